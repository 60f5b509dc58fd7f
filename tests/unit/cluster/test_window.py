"""The window of the last bytes of a stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.output.window import BLOCK_MAX_BYTES, Window


class WindowTests(SynchronousTestCase):
    def test_empty(self) -> None:
        """A window that holds nothing starts where it ends, and has no byte to give."""
        window = Window(100)
        window.reset(7)
        self.assertEqual((window.start, window.end, window.read(7, 10)), (7, 7, b""))

    def test_whole_block_is_not_copied(self) -> None:
        """A large chunk goes out as the very object that came in."""
        window = Window(10 * BLOCK_MAX_BYTES)
        large = bytes(2 * BLOCK_MAX_BYTES)
        window.append(large)
        self.assertIs(window.read(0, 10 * BLOCK_MAX_BYTES), large)
        window.append(large)
        self.assertIs(window.read(0, 3 * BLOCK_MAX_BYTES), large)

    def test_small_pieces_are_joined(self) -> None:
        """A stream that comes byte by byte is kept in few objects."""
        window = Window(10 * BLOCK_MAX_BYTES)
        starts = set()
        for _ in range(13 * BLOCK_MAX_BYTES):
            window.append(b"x")
            starts.add(window.start)
        self.assertLessEqual(len(starts), 4)  # a whole block goes at a time

    def test_outside(self) -> None:
        """No byte can be read before the window or behind it."""
        window = Window(80)
        for _ in range(20):
            window.append(bytes(10))
        self.assertEqual((window.read(window.start - 1, 10), window.read(window.end, 10)), (b"", b""))

    @given(
        st.integers(8, 100),
        st.integers(0, 1000),
        st.lists(st.binary(max_size=40)),
        st.integers(0, 300),
        st.integers(1, 50),
    )
    def test_property(self, capacity: int, origin: int, pieces: list[bytes], place: int, limit: int) -> None:
        """The window keeps at most its capacity, and each byte that it gives is the stream's byte at that offset."""
        window = Window(capacity)
        window.reset(origin)
        for piece in pieces:
            window.append(piece)
            assert window.end - window.start <= capacity
            assert window.size == window.end - window.start
        stream = b"".join(pieces)
        assert window.end == origin + len(stream)
        offset = origin + place
        given_out = window.read(offset, limit)
        assert len(given_out) <= limit
        assert stream[place : place + len(given_out)] == given_out
        assert bool(given_out) == (window.start <= offset < window.end)
