"""Large answers, written in pieces as their clients read them, and a limit on the bytes held for all clients.

Theory of operation. Bytes that a client has not read stay in memory. So a body of more than ``PIECE_BYTES`` is written
in pieces, each when the socket has room, and is made in pieces where that is possible. ``Held`` counts the bytes held
for clients that read nothing, over all connections, including streams. When they exceed ``HELD_MAX_BYTES``, the client
that has read nothing for the longest time is cut, so that the others can be answered. A client is never cut only for
being slow.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from scheduler.api.answers import JSON, Answer, prepare
from scheduler.limits import HELD_MAX_BYTES

#: Bytes of a piece, at least. A smaller answer is written as a whole.
PIECE_BYTES = 64 * 1024

#: The reason in the log if a client is cut.
TAKES_NOTHING = "its client has taken nothing for the longest time, and others need the memory"

_log = Logger()


class Holder(Protocol):
    """A response that holds bytes that its client has not read."""

    def cut_off(self) -> None:
        """Drop the held bytes and the connection."""


class Held:
    """Counts the bytes held for clients, and keeps them to ``most`` in all."""

    def __init__(self, most: int = HELD_MAX_BYTES) -> None:
        self.most = most
        # in the order in which the holders' clients last read something
        self._sizes: dict[Holder, int] = {}
        self.total = 0

    def hold(self, holder: Holder, size: int) -> None:
        """Record the bytes held for a client that just read something, or that is new."""
        self.release(holder)
        self._sizes[holder] = size
        self.total += size
        while self.total > self.most and len(self._sizes) > 1:
            first = next(iter(self._sizes))
            self.release(first)
            first.cut_off()

    def release(self, holder: Holder) -> None:
        """Note that the holder holds no bytes."""
        self.total -= self._sizes.pop(holder, 0)


def abort(request: Request | None, why: str) -> None:
    """Drop a request's connection and all bytes that were to be sent there."""
    if request is not None:
        _log.info("cut {path}: {why}", path=request.path.decode("latin-1"), why=why)
        cast(ITCPTransport, request.transport).abortConnection()


async def answer_of(parts: AsyncIterator[bytes], held: Held) -> Answer | PiecedBody:
    """Make an answer with the JSON document that consists of ``parts``. A large document is written in pieces."""
    pieces = _joined(parts)
    first = await _next(pieces)
    if len(first) < PIECE_BYTES:  # the document is complete
        return Answer(first, content_type=JSON)
    return PiecedBody(held, Answer(first, content_type=JSON, sized=False), pieces)


def in_pieces(answer: Answer, held: Held) -> PiecedBody:
    """Write a complete answer in pieces, as its client reads. ``held`` counts the bytes that it has not read."""
    body = answer.body

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(PIECE_BYTES, len(body), PIECE_BYTES):
            yield body[begin : begin + PIECE_BYTES]

    return PiecedBody(held, answer, pieces(), len(body))


async def _next(pieces: AsyncIterator[bytes]) -> bytes:
    """The next piece; ``b""`` after the last.

    ``anext`` with a default fails here if an awaited Deferred fires with a tuple: CPython 3.11 takes it for several
    arguments.
    """
    try:
        return await anext(pieces)
    except StopAsyncIteration:
        return b""


async def _joined(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Join the parts into pieces of at least ``PIECE_BYTES``; the last piece may be smaller."""
    waiting: list[bytes] = []
    size = 0
    async for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= PIECE_BYTES:
            waiting, size = [b"".join(waiting)], 0
            yield waiting.pop()  # so that no reference is kept here
    if waiting:
        yield b"".join(waiting)


@implementer(IPushProducer)
class PiecedBody(Resource):
    """An answer whose body is written as its client reads it."""

    isLeaf = True  # noqa: N815

    def __init__(self, held: Held, answer: Answer, pieces: AsyncIterator[bytes], size: int = 0) -> None:
        """``answer`` has the first piece, or the whole body; then ``size`` is the body's length."""
        super().__init__()
        self._held = held
        self._answer: Answer | None = answer
        self._pieces = pieces
        self._size = size
        self._request: Request | None = None
        self._paused: Deferred[None] | None = None
        self._writing: Deferred[None] | None = None

    def render(self, request: Request) -> int:
        answer, self._answer = self._answer, None
        assert answer is not None
        self._request = request
        request.notifyFinish().addBoth(self._ended)
        request.registerProducer(self, True)
        body = prepare(request, answer)
        first = body[:PIECE_BYTES] if self._size else body
        writing = self._writing = Deferred.fromCoroutine(self._write(request, first))
        writing.addErrback(self._failed)
        return NOT_DONE_YET

    def pauseProducing(self) -> None:
        if self._paused is None:
            self._paused = Deferred()

    def resumeProducing(self) -> None:
        paused, self._paused = self._paused, None
        self._held.release(self)
        if paused is not None:
            paused.callback(None)

    def stopProducing(self) -> None:
        """Nothing to do: ``notifyFinish`` fires as well."""

    def cut_off(self) -> None:
        abort(self._request, TAKES_NOTHING)

    async def _write(self, request: Request, piece: bytes) -> None:
        while piece:
            request.write(piece)
            size, piece = len(piece), b""  # the socket has a copy
            if self._paused is not None:
                self._held.hold(self, max(size, self._size))
                await self._paused
            piece = await _next(self._pieces) if request.method != b"HEAD" else b""
        self._writing = None  # so that ``_ended`` does not cancel it
        request.unregisterProducer()
        request.finish()

    def _failed(self, reason: Failure) -> None:
        request = self._request
        if request is None:
            reason.trap(CancelledError)  # the client is gone
            return
        _log.failure("an answer can't be completed", reason)
        request.unregisterProducer()
        abort(request, "it can't be completed")

    def _ended(self, _: Any) -> None:
        self._request = None
        self._held.release(self)
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.cancel()
