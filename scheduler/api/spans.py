"""Parts of a job's output: the last lines, a range of bytes, and a reader that ends at a given byte."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from werkzeug.http import parse_range_header
from zope.interface import implementer

from scheduler.errors import OffsetBeyondEnd, Unavailable
from scheduler.interfaces import IOutputReader, IScheduler
from scheduler.messages import Chunk
from scheduler.model import Stream

#: Bytes of one read, at most.
READ_MAX_BYTES = 1024 * 1024

#: Bytes of the first read in a search for the beginning of the last lines. Each read is twice as large as the one
#: before, up to the second number.
FIRST_BLOCK_BYTES, BLOCK_MAX_BYTES = 64 * 1024, 1024 * 1024

#: A range of bytes: its first byte and the byte after its last, ``None`` for the end. ``(-n, None)``: the last ``n``.
Range = tuple[int, int | None]


def read_range(header: str | None) -> Range | None:
    """The range in a ``Range`` header; ``None``, for the whole output, if it is malformed or has several ranges."""
    found = parse_range_header(header)
    return found.ranges[0] if found is not None and found.units == "bytes" and len(found.ranges) == 1 else None


def span_of(wanted: Range, size: int) -> tuple[int, int]:
    """The first byte of a range, and the byte after its last. Raises ``OffsetBeyondEnd`` if ``size`` is too small."""
    begin, end = wanted
    if begin < 0:
        return max(0, size + begin), size
    if begin >= size:
        raise OffsetBeyondEnd(begin, size)
    return begin, size if end is None else min(end, size)


async def size_of(scheduler: IScheduler, job_id: str, stream: Stream) -> int:
    """The present length of a stream, in bytes."""
    return (await scheduler.read_output(job_id, stream, 0, 0)).size


async def offset_of_tail(scheduler: IScheduler, job_id: str, stream: Stream, lines: int) -> tuple[int, int]:
    """The offset of the last ``lines`` lines, and the size of the stream at which they were counted.

    A last line without a line feed counts as a line. Reads backward, and holds one block at a time.
    """
    size = end = await size_of(scheduler, job_id, stream)
    if not lines:
        return size, size
    block = FIRST_BLOCK_BYTES
    left = lines
    while end > 0:
        start = max(0, end - block)
        data = await read_between(scheduler, job_id, stream, start, end)
        # The last line feed of the stream ends the last line; no line begins after it.
        position = len(data) - (end == size and data.endswith(b"\n"))
        while left and (position := data.rfind(b"\n", 0, position)) >= 0:
            left -= 1
        if not left:
            return start + position + 1, size
        end, block = start, min(2 * block, BLOCK_MAX_BYTES)
    return 0, size


async def read_between(scheduler: IScheduler, job_id: str, stream: Stream, start: int, end: int) -> bytes:
    """All bytes from ``start`` to ``end``, which must exist. Repeats reads, as a read may return fewer bytes."""
    data = b""
    while start + len(data) < end:
        chunk = await scheduler.read_output(job_id, stream, start + len(data), end - start - len(data))
        if not chunk.data:
            raise OffsetBeyondEnd(end, start + len(data))
        data += chunk.data
    return data


@implementer(IOutputReader)
class SpanReader:
    """Reads a stream from the offset of the first chunk up to ``end``."""

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
