"""Responses that go on for as long as a job does.

Theory of operation. A stream is a resource that answers NOT_DONE_YET and
registers itself as the push producer of its connection, so the socket says when
more may be written. It asks a reader for the next chunk only while it may
write, and one at a time: a slow client holds at most one chunk beside what the
socket buffers, and slows nobody else down. It is never a Klein Deferred: one
that failed after the first byte would end the body as if it were complete.

The end of the body has a meaning. It ends properly only when the job has ended
and every byte that it wrote was sent; whatever else happens, the connection is
cut. So it is where output was cut, after all that there is of it: resumed there,
it is refused with the reason. Events have an end that tells of that. Until the
first chunk came, or for ``HOLD`` seconds, the headers are held back too, so that
a stream that can't be had at all is answered with a problem document.

``UnderWay`` knows all streams and long polls, for the shutdown: events are told
to resume later, the rest is cut.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from scheduler.api import events
from scheduler.api.answers import job_json, problem_answer, send
from scheduler.api.errors import problem_of
from scheduler.errors import OutputCut, ShuttingDown, Unavailable
from scheduler.fields import Object
from scheduler.interfaces import IOutputReader, IScheduler
from scheduler.model import Chunk, Job, Stream

#: Seconds that headers wait for the first chunk or the first failure.
HOLD = 1.0

HEARTBEAT_INTERVAL = 15.0

#: Seconds to wait for a job to be final once its output has ended.
SETTLE = 30.0

#: Bytes asked for at once.
CHUNK = 1024 * 1024

_log = Logger()


class UnderWay:
    """What would not end by itself soon; at shutdown each is told to."""

    def __init__(self) -> None:
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


@implementer(IOutputReader)
class SpanReader:
    """The bytes of a stream from the first chunk's offset up to ``end``, read when asked for."""

    def __init__(self, scheduler: IScheduler, job_id: str, stream: Stream, first: Chunk, end: int) -> None:
        self._read = lambda offset, size: scheduler.read_output(job_id, stream, offset, size)
        self._first: Chunk | None = first
        self._end = end
        self._pending: Deferred[Chunk] | None = None
        self.offset = first.offset

    def read(self) -> Deferred[Chunk]:
        first, self._first = self._first, None
        if first is not None and (first.data or self.offset >= self._end):
            return succeed(self._clipped(first))
        self._pending = self._read(self.offset, min(CHUNK, self._end - self.offset))
        return self._pending.addCallback(self._clipped)

    def close(self) -> None:
        if self._pending is not None:
            self._pending.cancel()

    def _clipped(self, chunk: Chunk) -> Chunk:
        self._pending = None
        data = chunk.data[: self._end - self.offset]
        start, self.offset = self.offset, self.offset + len(data)
        end = self.offset >= self._end
        if not data and not end:
            raise Unavailable(f"output that was there is gone at offset {start}")
        return Chunk(data, start, end, chunk.size)


class _Tap:
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
        status: int,
        members: Mapping[str, object] | None = None,
    ) -> None:
        """``members`` are added to the problem document, where it comes to one."""
        super().__init__()
        self._clock = clock
        self._under_way = under_way
        self._headers = headers
        self._status = status
        self._members = members or {}
        self._request: Request | None = None
        self._paused = self._begun = self._over = False
        self._timer: IDelayedCall | None = None
        self._taps: list[_Tap] = []

    # -- Resource

    def render(self, request: Request) -> int:
        self._request = request
        request.setResponseCode(self._status)
        for name, value in self._headers.items():
            request.setHeader(name, value)
        request.notifyFinish().addBoth(lambda _: self._close())
        request.registerProducer(self, True)
        self._under_way.add(self.end)
        self._timer = self._clock.callLater(HOLD, self._begin)
        self._introduce()
        self._pull()
        return NOT_DONE_YET

    # -- IPushProducer

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        # None of several may always be first.
        self._taps.append(self._taps.pop(0))
        self._pull()

    def stopProducing(self) -> None:
        self._close()

    # -- for those below

    def _introduce(self) -> None:
        """Say something before all output."""

    @abstractmethod
    def end(self) -> None:
        """The process is shutting down."""

    def _wanted(self) -> bool:
        return not (self._paused or self._over)

    def _pull(self) -> None:
        for tap in list(self._taps):
            tap.pull()

    def _begin(self) -> None:
        """Send the headers, once."""
        if self._begun or self._over:
            return
        self._begun = True
        self._stop_timer()
        self._write(b"")

    def _write(self, data: bytes) -> None:
        if self._request is not None and not self._over:
            self._request.write(data)

    def _finish(self) -> None:
        """The proper end."""
        self._begin()
        request = self._release()
        if request is not None:
            request.finish()

    def _cut(self, failure: Failure) -> None:
        """The other end: a problem document while that is possible, or a connection that breaks."""
        request = self._release()
        if request is None:
            return
        problem = problem_of(failure)
        if not self._begun:
            for name in ("Content-Length", "Content-Range", "Accept-Ranges"):
                request.responseHeaders.removeHeader(name)
            send(request, problem_answer(evolve(problem, members={**problem.members, **self._members})))
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

    def _close(self) -> None:
        self._over = True
        self._request = None
        self._stop_timer()
        self._under_way.discard(self.end)
        for tap in self._taps:
            tap.close()

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
        members: Mapping[str, object] | None = None,
    ) -> None:
        """``at_once``: the headers do not wait for the first byte."""
        super().__init__(clock, under_way, headers, status, members)
        self._job_id = job_id
        self._at_once = at_once
        self._taps = [_Tap(reader, self._wanted, self._deliver, self._cut)]

    def _introduce(self) -> None:
        if self._at_once:
            self._begin()

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


class EventStream(StreamResource):
    """Both streams of a job as server-sent events, and then its end."""

    def __init__(
        self,
        clock: IReactorTime,
        under_way: UnderWay,
        scheduler: IScheduler,
        job: Job,
        readers: Mapping[Stream, IOutputReader],
        headers: Mapping[str, str],
        started: bool = False,
    ) -> None:
        """``started``: this answers the job's start, so ``event: job`` comes first, and at once."""
        super().__init__(
            clock,
            under_way,
            {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no", **headers},
            201 if started else 200,
        )
        self._scheduler = scheduler
        self._job = job
        self._started = started
        self._taps = [
            _Tap(reader, self._wanted, partial(self._deliver, stream), self._cut) for stream, reader in readers.items()
        ]
        self._pieces = {stream: events.Pieces(reader.offset) for stream, reader in readers.items()}
        self._unended = set(readers)
        self._settling: Deferred[None] | None = None

    def _introduce(self) -> None:
        if self._started:
            self._begin()
            self._event("job", job_json(self._scheduler, self._job))

    def _begin(self) -> None:
        if not self._begun:
            super()._begin()
            self._await_silence()

    def _await_silence(self) -> None:
        if not self._over:
            self._timer = self._clock.callLater(HEARTBEAT_INTERVAL, self._beat)

    def _beat(self) -> None:
        if not self._paused:
            self._write(events.HEARTBEAT)
        self._await_silence()

    def end(self) -> None:
        # Without data a browser drops an event.
        self._begin()
        self._event("resume", {})
        self._finish()

    def _event(self, name: str, data: Object) -> None:
        position = ",".join(str(self._pieces[stream].sent) for stream in (Stream.STDOUT, Stream.STDERR))
        self._write(events.event(name, data, position))

    def _deliver(self, stream: Stream, chunk: Chunk) -> None:
        if chunk.data:  # the end of a stream without any says nothing of whether the other can be had
            self._begin()
        pieces = self._pieces[stream]
        for data in pieces.feed(chunk.data):
            self._event(stream.value, data)
        if chunk.end:
            for data in pieces.flush():
                self._event(stream.value, data)
            self._unended.discard(stream)
            if not self._unended:
                self._settling = self._scheduler.wait(self._job.id, SETTLE).addCallbacks(self._settled, self._unsettled)

    def _settled(self, job: Job) -> None:
        if not job.state.final:
            self.end()
            return
        self._begin()
        self._event("end", job_json(self._scheduler, job))
        self._finish()

    def _unsettled(self, failure: Failure) -> None:
        if not self._over:
            self._cut(failure)

    def _close(self) -> None:
        super()._close()
        settling, self._settling = self._settling, None
        if settling is not None:
            settling.cancel()
