"""Large answers, written piece by piece as their clients take them, and how much is held for all clients together.

Theory of operation. What a client does not take stays in memory. So a body of more than ``PIECE_BYTES`` is made, or at
least written, a piece at a time: the next one when the socket has room. What is held for clients that take nothing is
counted over all connections, streams among them (``Held``). Where it grows beyond ``HELD_MAX_BYTES``, the client that
has taken nothing for the longest time is cut, so that those that read are answered. A paused client is not cut for
being slow alone.
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

#: Bytes from which on a piece is written. An answer of up to so many is written at once.
PIECE_BYTES = 64 * 1024

#: Bytes that are held for all clients that take nothing.
HELD_MAX_BYTES = 128 * 1024 * 1024

#: Why a client is cut.
TAKES_NOTHING = "its client has taken nothing for the longest time, and others need the memory"

_log = Logger()


class Holder(Protocol):
    """Holds bytes that its client has not taken."""

    def cut_off(self) -> None:
        """Let go of them, and of the client."""


class Held:
    """Counts the bytes held for clients: at most ``most`` in all."""

    def __init__(self, most: int = HELD_MAX_BYTES) -> None:
        self.most = most
        # in the order in which their clients have last taken something
        self._sizes: dict[Holder, int] = {}
        self.total = 0

    def hold(self, holder: Holder, size: int) -> None:
        """Its client has just taken something, or this is the first; so many bytes are held for it now."""
        self.release(holder)
        self._sizes[holder] = size
        self.total += size
        while self.total > self.most and len(self._sizes) > 1:
            first = next(iter(self._sizes))
            self.release(first)
            first.cut_off()

    def release(self, holder: Holder) -> None:
        """Nothing is held for it."""
        self.total -= self._sizes.pop(holder, 0)


def abort(request: Request | None, why: str) -> None:
    """Drop the connection, and what was to be sent there."""
    if request is not None:
        _log.info("cut {path}: {why}", path=request.path.decode("latin-1"), why=why)
        cast(ITCPTransport, request.transport).abortConnection()


async def answer_of(parts: AsyncIterator[bytes], held: Held) -> Answer | PiecedBody:
    """A JSON document of these parts."""
    pieces = _joined(parts)
    first = await anext(pieces, b"")
    if len(first) < PIECE_BYTES:  # the last one, too
        return Answer(first, content_type=JSON)
    return PiecedBody(held, Answer(first, content_type=JSON, sized=False), pieces)


def in_pieces(answer: Answer, held: Held) -> PiecedBody:
    """An answer whose body is known, and large."""
    body = answer.body

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(PIECE_BYTES, len(body), PIECE_BYTES):
            yield body[begin : begin + PIECE_BYTES]

    return PiecedBody(held, answer, pieces(), len(body))


async def _joined(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces of at least ``PIECE_BYTES``, but for the last."""
    waiting: list[bytes] = []
    size = 0
    async for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= PIECE_BYTES:
            waiting, size = [b"".join(waiting)], 0
            yield waiting.pop()  # so that it is not kept here
    if waiting:
        yield b"".join(waiting)


@implementer(IPushProducer)
class PiecedBody(Resource):
    """An answer whose body is written as its client takes it."""

    isLeaf = True  # noqa: N815

    def __init__(self, held: Held, answer: Answer, pieces: AsyncIterator[bytes], size: int = 0) -> None:
        """The answer has the first piece, or the whole body: then ``size`` is how much that is."""
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
        """``notifyFinish`` tells it as well."""

    def cut_off(self) -> None:
        abort(self._request, TAKES_NOTHING)

    async def _write(self, request: Request, piece: bytes) -> None:
        while piece:
            request.write(piece)
            size, piece = len(piece), b""  # the socket has a copy
            if self._paused is not None:
                self._held.hold(self, max(size, self._size))
                await self._paused
            piece = await anext(self._pieces, b"") if request.method != b"HEAD" else b""
        self._writing = None  # not to be cancelled by the following
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
