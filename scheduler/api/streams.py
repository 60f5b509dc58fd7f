"""Responses that go on for as long as a job does: what all of them share, and the raw bytes of one stream.

Theory of operation. A stream is a resource that answers NOT_DONE_YET and
registers itself as the push producer of its connection, so the socket says when
more may be written. It asks a reader for the next chunk only while it may
write, and one at a time: a slow client holds at most one chunk beside what the
socket buffers, and slows nobody else down. It is never a Klein Deferred: one
that failed after the first byte would end the body as if it were complete.

The end of the body has a meaning. It ends properly only when the job has ended
and every byte that it wrote was sent; whatever else happens, the connection is
cut. So it is where output was cut, after all that there is of it: resumed there,
it is refused with the reason. Events have an end that tells of that.

The headers go out at once where the job has not ended, for nothing is known that
could still be refused. Where it has, they wait for the first chunk, or for ``HEADERS_WAIT_MAX_SECONDS``
seconds, so that output that can't be had is answered with a problem document.

A raw follow reports the job's end in trailers (RFC 9110, 6.5), after the last byte.

``UnderWay`` knows all streams and long polls, for the shutdown: events are told
to resume later, the rest is cut.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from scheduler.api.answers import problem_answer
from scheduler.api.bodies import PIECE_BYTES, TAKES_NOTHING, Held, abort, in_pieces
from scheduler.api.errors import Problem, problem_of
from scheduler.errors import OutputCut, ShuttingDown, Unavailable
from scheduler.interfaces import IOutputReader, IScheduler
from scheduler.messages import Chunk
from scheduler.model import Job

#: Seconds that headers wait for the first chunk or the first failure.
HEADERS_WAIT_MAX_SECONDS = 1.0

#: Seconds to wait for a job to be final once its output has ended.
END_WAIT_MAX_SECONDS = 30.0

#: Trailers of a raw follow.
JOB_STATE, EXIT_CODE = "X-Job-State", "X-Exit-Code"

_log = Logger()


def follow_headers(job: Job, offset: int) -> dict[str, str]:
    """The headers of a raw follow that begins at that byte."""
    return {
        "Content-Type": "text/plain; charset=utf-8",
        "X-Job-Id": job.id,
        "X-Output-Offset": str(offset),
        "X-Accel-Buffering": "no",
        "Trailer": f"{JOB_STATE}, {EXIT_CODE}",
    }


class Trailed(Protocol):
    """A request whose chunked response has ``trailers``, which go out when it is finished."""

    trailers: dict[str, str]


class UnderWay:
    """What would not end by itself soon; at shutdown each is told to. ``held`` is what clients have yet to take."""

    def __init__(self) -> None:
        self.held = Held()
        self._ends: set[Callable[[], None]] = set()

    def add(self, end: Callable[[], None]) -> None:
        """``end`` is called at shutdown, unless discarded before."""
        self._ends.add(end)

    def discard(self, end: Callable[[], None]) -> None:
        """It has ended."""
        self._ends.discard(end)

    def end(self) -> None:
        """End everything."""
        for end in list(self._ends):
            end()


class Pull:
    """Takes chunks off one reader for as long as they are wanted."""

    def __init__(
        self,
        reader: IOutputReader,
        wanted: Callable[[], bool],
        deliver: Callable[[Chunk], None],
        failed: Callable[[Failure], None],
    ) -> None:
        self._reader = reader
        self._wanted = wanted
        self._deliver = deliver
        self._failed = failed
        self._offset = reader.offset
        self._reading = self._pulling = self._closed = False

    def pull(self) -> None:
        """Read while there is something at once and it is wanted; not recursive, however much that is."""
        if self._pulling:
            return
        self._pulling = True
        try:
            while self._wanted() and not self._reading and not self._closed:
                self._reading = True
                self._reader.read().addCallback(self._got).addErrback(self._lost)
        finally:
            self._pulling = False

    def close(self) -> None:
        """Let go of the reader."""
        if not self._closed:
            self._closed = True
            self._reader.close()

    def _got(self, chunk: Chunk) -> None:
        self._reading = False
        if self._closed:
            return
        if chunk.offset != self._offset:
            raise AssertionError(f"a chunk at {chunk.offset} where {self._offset} was next")
        self._offset = chunk.next_offset
        if chunk.end:
            self.close()
        self._deliver(chunk)
        self.pull()

    def _lost(self, failure: Failure) -> None:
        # Also what went wrong with the last chunk, whose reader is closed by then.
        self._reading = False
        self.close()
        self._failed(failure)


@implementer(IPushProducer)
class StreamResource(Resource):
    """What the streams have in common: beginning, pausing, being cut."""

    isLeaf = True  # noqa: N815

    def __init__(
        self,
        clock: IReactorTime,
        under_way: UnderWay,
        headers: Mapping[str, str],
        status: int = 200,
        at_once: bool = False,
        problem: Callable[[Failure], Problem] = problem_of,
    ) -> None:
        """``at_once``: the headers wait for nothing. ``problem`` tells of a failure while they do."""
        super().__init__()
        self._clock = clock
        self._under_way = under_way
        self._headers = headers
        self._status = status
        self._at_once = at_once
        self._problem = problem
        self._request: Request | None = None
        # the same until its connection is no more, though it was cut
        self._connected: Request | None = None
        self._paused = self._begun = self._over = self._finishing = False
        # bytes written since the socket has taken everything
        self._unsent = 0
        self._timer: IDelayedCall | None = None
        self._settling: Deferred[Any] | None = None
        self._pulls: list[Pull] = []

    # -- Resource

    def render(self, request: Request) -> int:
        self._request = self._connected = request
        request.setResponseCode(self._status)
        for name, value in self._headers.items():
            request.setHeader(name, value)
        request.notifyFinish().addBoth(self._ended)
        request.registerProducer(self, True)
        self._under_way.add(self.end)
        self._timer = self._clock.callLater(HEADERS_WAIT_MAX_SECONDS, self._begin)
        self._opened()
        if self._at_once:
            self._begin()
        self._pull()
        return NOT_DONE_YET

    # -- IPushProducer

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._unsent = 0
        self._under_way.held.release(self)
        if self._finishing:
            self._finish_now()
            return
        # None of several may always be first.
        self._pulls.append(self._pulls.pop(0))
        self._pull()

    def stopProducing(self) -> None:
        self._close()

    def cut_off(self) -> None:
        request = self._connected
        self._release()
        abort(request, TAKES_NOTHING)

    # -- for those below

    def _opened(self) -> None:
        """The response is under way, and nothing of it was sent."""

    @abstractmethod
    def end(self) -> None:
        """The process is shutting down."""

    def _wanted(self) -> bool:
        return not (self._paused or self._over or self._finishing)

    def _pull(self) -> None:
        for pull in list(self._pulls):
            pull.pull()

    def _begin(self) -> None:
        """Send the headers, once."""
        if self._begun or self._over:
            return
        self._begun = True
        self._stop_timer()
        self._write(b"")

    def _write(self, data: bytes) -> None:
        if self._request is None or self._over:
            return
        self._request.write(data)
        self._unsent = self._unsent + len(data) if self._paused else 0
        if self._unsent > PIECE_BYTES:
            self._under_way.held.hold(self, self._unsent)

    def _finish(self) -> None:
        """The proper end, once the client has taken what was written."""
        self._begin()
        if self._paused and not self._over:
            self._finishing = True
            self._under_way.discard(self.end)
        else:
            self._finish_now()

    def _finish_now(self) -> None:
        request = self._release()
        if request is not None:
            request.finish()

    def _cut(self, failure: Failure) -> None:
        """The other end: a problem document while that is possible, or a connection that breaks."""
        request = self._release()
        if request is None:
            return
        problem = problem_of(failure) if self._begun else self._problem(failure)
        if not self._begun:
            for name in ("Content-Length", "Content-Range", "Accept-Ranges", "Trailer"):
                request.responseHeaders.removeHeader(name)
            in_pieces(problem_answer(problem), self._under_way.held).render(request)
            return
        _log.info("cut {path}: {reason}", path=request.path.decode("latin-1"), reason=problem.detail)
        if request.chunked or request.responseHeaders.hasHeader("Content-Length"):
            request.loseConnection()  # what was written still arrives, and is seen to be short
        else:
            cast(ITCPTransport, request.transport).abortConnection()

    def _release(self) -> Request | None:
        """Let go of everything; the request, if there is something left to tell it."""
        request = self._request
        if self._over or request is None:
            return None
        self._close()
        request.unregisterProducer()
        return request

    def _ended(self, _: object) -> None:
        """The response is complete, or the connection is no more."""
        self._under_way.held.release(self)
        self._connected = None
        self._close()

    def _close(self) -> None:
        self._over = True
        self._request = None
        self._stop_timer()
        self._under_way.discard(self.end)
        for pull in self._pulls:
            pull.close()
        settling, self._settling = self._settling, None
        if settling is not None:
            settling.cancel()

    def _settle(self, ended: Deferred[Any], settled: Callable[[Any], None]) -> None:
        """Go on when that has fired, which is cancelled if the response ends before."""
        self._settling = ended
        ended.addCallback(settled).addErrback(self._unsettled)

    def _unsettled(self, failure: Failure) -> None:
        if not self._over:
            self._cut(failure)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


class RawStream(StreamResource):
    """The bytes of one reader of a job's output, as they are."""

    def __init__(
        self,
        clock: IReactorTime,
        under_way: UnderWay,
        job_id: str,
        reader: IOutputReader,
        headers: Mapping[str, str],
        status: int = 200,
        at_once: bool = False,
        problem: Callable[[Failure], Problem] = problem_of,
    ) -> None:
        super().__init__(clock, under_way, headers, status, at_once, problem)
        self._job_id = job_id
        self._pulls = [Pull(reader, self._wanted, self._deliver, self._cut)]

    def end(self) -> None:
        self._cut(Failure(ShuttingDown()))

    def _deliver(self, chunk: Chunk) -> None:
        if chunk.data:
            self._begin()
            self._write(chunk.data)
        if chunk.end and chunk.cut:
            self._cut(Failure(OutputCut(self._job_id, chunk.cut)))
        elif chunk.end:
            self._finish()


class FollowStream(RawStream):
    """The same to the end of the job, whose state and exit code are trailers.

    ``stall``: seconds without a byte of output after which the connection is cut, ``None`` for never. The time in
    which the client takes nothing does not count.
    """

    def __init__(
        self,
        clock: IReactorTime,
        under_way: UnderWay,
        scheduler: IScheduler,
        job: Job,
        reader: IOutputReader,
        headers: Mapping[str, str],
        status: int = 200,
        stall: float | None = None,
        problem: Callable[[Failure], Problem] = problem_of,
    ) -> None:
        super().__init__(clock, under_way, job.id, reader, headers, status, not job.over, problem)
        self._scheduler = scheduler
        self._stall = stall
        self._silence: IDelayedCall | None = None

    def pauseProducing(self) -> None:
        super().pauseProducing()
        self._await_silence()

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self._await_silence()

    def _begin(self) -> None:
        if not self._begun:
            super()._begin()
            self._await_silence()

    def _write(self, data: bytes) -> None:
        super()._write(data)
        self._await_silence()

    def _await_silence(self) -> None:
        """From now on."""
        if self._silence is not None and self._silence.active():
            self._silence.cancel()
        self._silence = None
        if self._stall is not None and self._begun and self._wanted():
            stalled = Unavailable(f"job {self._job_id!r} has written nothing for {self._stall:g} s")
            self._silence = self._clock.callLater(self._stall, self._cut, Failure(stalled))

    def _finish(self) -> None:
        self._stall = None
        self._await_silence()
        self._settle(self._scheduler.wait(self._job_id, END_WAIT_MAX_SECONDS), self._settled)

    def _settled(self, job: Job) -> None:
        if not job.state.final:
            self._cut(Failure(Unavailable(f"the end of job {job.id!r} is not known yet")))
            return
        self._begin()
        trailers = cast(Trailed, self._request).trailers
        trailers[JOB_STATE] = job.state.value
        if job.exit_code is not None:
            trailers[EXIT_CODE] = str(job.exit_code)
        super()._finish()

    def _close(self) -> None:
        super()._close()
        self._await_silence()
