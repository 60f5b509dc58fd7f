"""What part of a job's output a request is for: all of it, from an offset, the last lines, a range."""

from __future__ import annotations

import re

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from scheduler.errors import OffsetBeyondEnd, Unavailable
from scheduler.interfaces import IOutputReader, IScheduler
from scheduler.messages import Chunk
from scheduler.model import Stream

#: Bytes asked for at once.
READ_MAX_BYTES = 1024 * 1024

#: Bytes read at once while looking for the beginning of the last lines; doubled up to the second.
FIRST_BLOCK_BYTES, BLOCK_MAX_BYTES = 64 * 1024, 1024 * 1024

_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*")


@frozen
class Range:
    """One range of bytes: ``first`` to ``last``, both inclusive, or the ``suffix`` last ones."""

    first: int = 0
    last: int | None = None
    suffix: int | None = None

    def within(self, size: int) -> tuple[int, int]:
        """First byte and the byte after the last, in a stream of that size; ``OffsetBeyondEnd``."""
        if self.suffix is not None:
            if not self.suffix:
                raise OffsetBeyondEnd(size, size)
            return max(0, size - self.suffix), size
        if self.first >= size:
            raise OffsetBeyondEnd(self.first, size)
        return self.first, size if self.last is None else min(self.last + 1, size)


def read_range(header: str | None) -> Range | None:
    """What a ``Range`` header asks for; ``None`` for everything, so too if it is malformed or has several."""
    match = _RANGE.fullmatch(header or "")
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return Range(suffix=int(match[2]))
    first, last = int(match[1]), int(match[2]) if match[2] else None
    return None if last is not None and last < first else Range(first, last)


async def size_of(scheduler: IScheduler, job_id: str, stream: Stream) -> int:
    """Length of a stream now, in bytes."""
    return (await scheduler.read_output(job_id, stream, 0, 0)).size


async def offset_of_tail(scheduler: IScheduler, job_id: str, stream: Stream, lines: int) -> tuple[int, int]:
    """Where the last ``lines`` lines begin, and the size of the stream that was looked at.

    A last line without an end counts as one. Looks backward, holding one block at a time.
    """
    size = end = await size_of(scheduler, job_id, stream)
    if not lines:
        return size, size
    block = FIRST_BLOCK_BYTES
    left = lines
    while end > 0:
        start = max(0, end - block)
        data = await read_between(scheduler, job_id, stream, start, end)
        # The line feed that ends the last line begins no other.
        position = len(data) - (end == size and data.endswith(b"\n"))
        while left and (position := data.rfind(b"\n", 0, position)) >= 0:
            left -= 1
        if not left:
            return start + position + 1, size
        end, block = start, min(2 * block, BLOCK_MAX_BYTES)
    return 0, size


async def read_between(scheduler: IScheduler, job_id: str, stream: Stream, start: int, end: int) -> bytes:
    """All bytes from ``start`` to ``end``, which are there; an answer may hold fewer than asked for."""
    data = b""
    while start + len(data) < end:
        chunk = await scheduler.read_output(job_id, stream, start + len(data), end - start - len(data))
        if not chunk.data:
            raise OffsetBeyondEnd(end, start + len(data))
        data += chunk.data
    return data


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
        self._pending = self._read(self.offset, min(READ_MAX_BYTES, self._end - self.offset))
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
