"""Responses that last as long as a job: the common part of raw bodies (``raw``) and event streams (``sse``).

Theory of operation. A stream is a resource that answers NOT_DONE_YET and registers itself as the push producer of its
connection, so the socket says when more may be written. It asks a reader for the next chunk only while it may write,
and one at a time: a slow client holds at most one chunk beside what the socket buffers, and slows nobody else down. It
is never a Klein Deferred: a Deferred that failed after the first byte would end the body as if it were complete.

The end of the body has a meaning. The body ends properly only when the job has ended and every byte that it wrote was
sent. After any other end the connection is cut. So a body whose output was cut (full disk, ``output_limit``) is cut
after its last byte, and the next request at that offset is refused with the reason. Event streams tell of cut output in
the event ``end``.

The headers of a job that has not ended go out at once, because nothing is known that could still be refused. The
headers of an ended job wait for the first chunk, at most ``HEADERS_WAIT_MAX_SECONDS``, so that unreadable output is
answered with a problem document.

At shutdown ``Context.under_way`` ends all streams: event streams tell their clients to resume later, raw bodies are
cut.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, cast

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from scheduler.api.answers import problem_answer
from scheduler.api.bodies import PIECE_BYTES, TAKES_NOTHING, abort, in_pieces
from scheduler.api.context import Context
from scheduler.api.errors import Problem, problem_of
from scheduler.interfaces import IOutputReader
from scheduler.messages import Chunk

#: Seconds that headers wait for the first chunk or the first failure.
HEADERS_WAIT_MAX_SECONDS = 1.0

#: Seconds that a job may take to be final once its output has ended.
END_WAIT_MAX_SECONDS = 30.0

_log = Logger()


@define(eq=False, slots=False)
class Pull:
    """Reads chunks from one reader while ``wanted()`` is true."""

    _reader: IOutputReader
    _wanted: Callable[[], bool]
    _deliver: Callable[[Chunk], None]
    _failed: Callable[[Failure], None]

    def __attrs_post_init__(self) -> None:
        self._offset = self._reader.offset
        self._reading = self._pulling = self._closed = False

    def pull(self) -> None:
        """Read until a chunk must be waited for or none is wanted. A loop, so that the stack does not grow."""
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
        # This also reports a failure in the delivery of the last chunk, after its reader was closed.
        self._reading = False
        self.close()
        self._failed(failure)


@frozen
class Opening:
    """The beginning of a stream: headers, the status, and the problem for a failure before any output."""

    headers: Mapping[str, str] = field(factory=dict)
    status: int = 200
    problem: Callable[[Failure], Problem] = problem_of

    def of_kind(self, headers: Mapping[str, str]) -> Opening:
        """The same beginning, with the headers of this kind of stream."""
        return evolve(self, headers={**headers, **self.headers})


@implementer(IPushProducer)
class StreamResource(Resource):
    """The common part of all streams: beginning, pausing, being cut."""

    isLeaf = True  # noqa: N815

    def __init__(self, context: Context, opening: Opening, at_once: bool) -> None:
        """``at_once``: the headers are sent without waiting for output."""
        super().__init__()
        self._context = context
        self._opening = opening
        self._at_once = at_once
        self._request: Request | None = None
        # the same request until its connection is closed, even if the response was cut
        self._connected: Request | None = None
        self._paused = self._begun = self._over = self._finishing = False
        # bytes written since the socket last had room
        self._unsent = 0
        self._timer: IDelayedCall | None = None
        self._settling: Deferred[Any] | None = None
        self._pulls: list[Pull] = []

    # -- Resource

    def render(self, request: Request) -> int:
        self._request = self._connected = request
        request.setResponseCode(self._opening.status)
        for name, value in self._opening.headers.items():
            request.setHeader(name, value)
        request.notifyFinish().addBoth(self._ended)
        request.registerProducer(self, True)
        self._context.under_way.add(self.end)
        self._timer = self._context.clock.callLater(HEADERS_WAIT_MAX_SECONDS, self._begin)
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
        self._context.under_way.held.release(self)
        if self._finishing:
            self._finish_now()
            return
        # The readers take turns at being first.
        self._pulls.append(self._pulls.pop(0))
        self._pull()

    def stopProducing(self) -> None:
        self._close()

    def cut_off(self) -> None:
        request = self._connected
        self._release()
        abort(request, TAKES_NOTHING)

    # -- for subclasses

    def _opened(self) -> None:
        """Hook for subclasses: the response is registered, and nothing is sent yet."""

    @abstractmethod
    def end(self) -> None:
        """End the response: the process is shutting down."""

    def _wanted(self) -> bool:
        return not (self._paused or self._over or self._finishing)

    def _pull(self) -> None:
        for pull in list(self._pulls):
            pull.pull()

    def _begin(self) -> None:
        """Send the headers, unless they are sent already."""
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
            self._context.under_way.held.hold(self, self._unsent)

    def _finish(self) -> None:
        """End the body properly, once the client has read everything that was written."""
        self._begin()
        if self._paused and not self._over:
            self._finishing = True
            self._context.under_way.discard(self.end)
        else:
            self._finish_now()

    def _finish_now(self) -> None:
        if (request := self._release()) is not None:
            request.finish()

    def _cut(self, failure: Failure) -> None:
        """End after a failure: with a problem document if no headers are sent yet, else by cutting the connection."""
        request = self._release()
        if request is None:
            return
        problem = problem_of(failure) if self._begun else self._opening.problem(failure)
        if not self._begun:
            for name in ("Content-Length", "Content-Range", "Accept-Ranges", "Trailer"):
                request.responseHeaders.removeHeader(name)
            in_pieces(problem_answer(problem), self._context.under_way.held).render(request)
            return
        _log.info("cut {path}: {reason}", path=request.path.decode("latin-1"), reason=problem.detail)
        if request.chunked or request.responseHeaders.hasHeader("Content-Length"):
            request.loseConnection()  # the bytes written still arrive, and are seen to be too few
        else:
            cast(ITCPTransport, request.transport).abortConnection()

    def _release(self) -> Request | None:
        """Close the readers and timers. Returns the request if it can still be answered, else ``None``."""
        request = self._request
        if self._over or request is None:
            return None
        self._close()
        request.unregisterProducer()
        return request

    def _ended(self, _: object) -> None:
        """Clean up: the response is complete, or the connection is closed."""
        self._context.under_way.held.release(self)
        self._connected = None
        self._close()

    def _close(self) -> None:
        self._over = True
        self._request = None
        self._stop_timer()
        self._context.under_way.discard(self.end)
        for pull in self._pulls:
            pull.close()
        settling, self._settling = self._settling, None
        if settling is not None:
            settling.cancel()

    def _settle(self, ended: Deferred[Any], settled: Callable[[Any], None]) -> None:
        """Call ``settled`` with the result of ``ended``, which is cancelled if the response ends before."""
        self._settling = ended
        ended.addCallback(settled).addErrback(lambda failure: None if self._over else self._cut(failure))

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
