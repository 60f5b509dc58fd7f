"""The last bytes of a stream that grows, in memory, for all who read it at its live end."""

from __future__ import annotations

from bisect import bisect_right

#: Bytes up to which pieces are joined to one block: a job that writes byte by byte must not cost an object for each.
BLOCK_MAX_BYTES = 16 * 1024


class Window:
    """The bytes from offset ``start`` up to ``end``, never more than ``capacity``."""

    def __init__(self, capacity: int, end: int = 0) -> None:
        self.capacity = capacity
        self.end = end
        self._join_up_to = min(BLOCK_MAX_BYTES, capacity // 8)
        # offsets of the blocks, ascending, and the blocks themselves, none of them empty
        self._offsets: list[int] = []
        self._blocks: list[bytes] = []

    @property
    def start(self) -> int:
        """Offset of the first byte held; ``end`` if none is."""
        return self._offsets[0] if self._offsets else self.end

    @property
    def size(self) -> int:
        return sum(map(len, self._blocks))

    def reset(self, offset: int) -> None:
        """Drop all bytes, and go on at ``offset``."""
        self._offsets.clear()
        self._blocks.clear()
        self.end = offset

    def append(self, data: bytes) -> None:
        """Add the bytes that follow ``end``; the oldest blocks beyond the capacity are dropped."""
        if not data:
            return
        if self._blocks and len(self._blocks[-1]) + len(data) <= self._join_up_to:
            self._blocks[-1] += data
        else:
            self._offsets.append(self.end)
            self._blocks.append(data)
        self.end += len(data)
        surplus = 0
        while surplus < len(self._blocks) and self.end - self._offsets[surplus] > self.capacity:
            surplus += 1
        del self._offsets[:surplus], self._blocks[:surplus]

    def read(self, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes from ``offset`` on; none if it is outside. A whole block is not copied."""
        if not self.start <= offset < self.end:
            return b""
        index = bisect_right(self._offsets, offset) - 1
        skip = offset - self._offsets[index]
        first = self._blocks[index]
        if skip or len(first) > limit:
            first = first[skip : skip + limit]
        pieces, size = [first], len(first)
        for block in self._blocks[index + 1 :]:
            if size + len(block) > limit:
                break
            pieces.append(block)
            size += len(block)
        return b"".join(pieces) if len(pieces) > 1 else first
