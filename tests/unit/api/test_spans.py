"""Ranges and the last lines of output."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.api import spans
from scheduler.api.spans import offset_of_tail, read_range, span_of
from scheduler.errors import OffsetBeyondEnd
from scheduler.model import Stream
from tests.unit.api.conversation import Stage


class RangeTests(SynchronousTestCase):
    def test_understood(self) -> None:
        """A range has a first byte and a last, a first alone, or a number of last bytes."""
        self.assertEqual(read_range("bytes=0-0"), (0, 1))
        self.assertEqual(read_range("bytes=5-"), (5, None))
        self.assertEqual(read_range("bytes=-5"), (-5, None))

    def test_ignored(self) -> None:
        """Malformed and multiple ranges ask for the whole output."""
        for header in (
            *(None, "", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-4", "bytes=0-1,3-4", "bytes=--1"),
            *("items=0-1", "bytes=0-1x", "bytes=" + "9" * 5000 + "-"),
        ):
            self.assertIsNone(read_range(header), header)

    def test_span(self) -> None:
        """A range is cut to the size of the stream; one that begins past the end is refused."""
        self.assertEqual(span_of((2, 100), 10), (2, 10))
        self.assertEqual(span_of((2, 5), 10), (2, 5))
        self.assertEqual(span_of((9, None), 10), (9, 10))
        self.assertEqual(span_of((-99, None), 10), (0, 10))
        self.assertEqual(span_of((-3, None), 10), (7, 10))
        for beyond in ((10, None), (10, 12), (10**30, None)):
            self.assertEqual(self.assertRaises(OffsetBeyondEnd, span_of, beyond, 10).size, 10)


class TailTests(SynchronousTestCase):
    """The offset of the last lines."""

    def setUp(self) -> None:
        self.stage = Stage(Clock())

    def tail(self, data: bytes, lines: int, piece: int = 1 << 20) -> bytes:
        stage = self.stage
        stage.house.workers.piece = piece
        job = stage.fleet.add_job(data)
        found = Deferred.fromCoroutine(offset_of_tail(stage.scheduler, job.id, Stream.STDOUT, lines))
        offset, size = self.successResultOf(found)
        self.assertEqual(size, len(data))
        return data[offset:]

    def test_lines(self) -> None:
        """A last line without a line feed counts as a line."""
        self.assertEqual(self.tail(b"a\nb\nc\n", 2), b"b\nc\n")
        self.assertEqual(self.tail(b"a\nb\nc", 2), b"b\nc")
        self.assertEqual(self.tail(b"a\nb\n\n", 2), b"b\n\n")
        self.assertEqual(self.tail(b"a\nb", 9), b"a\nb")
        self.assertEqual(self.tail(b"a\nb", 0), b"")
        self.assertEqual(self.tail(b"", 3), b"")
        self.assertEqual(self.tail(b"\n", 1), b"\n")

    @given(
        st.lists(st.sampled_from([b"\n", b"x", b"yy\n", b"z" * 9]), max_size=60).map(b"".join),
        st.integers(0, 12),
        st.integers(1, 7),
    )
    def test_like_splitlines(self, data: bytes, lines: int, piece: int) -> None:
        """The last lines are those of the whole output, with blocks and answers as small as can be."""
        self.patch(spans, "FIRST_BLOCK_BYTES", 4)
        self.patch(spans, "BLOCK_MAX_BYTES", 16)
        whole = data.split(b"\n")
        parts = [line + b"\n" for line in whole[:-1]] + ([whole[-1]] if whole[-1] else [])
        self.assertEqual(self.tail(data, lines, piece), b"".join(parts[max(0, len(parts) - lines) :]))

    def test_bounded(self) -> None:
        """A few lines of a long output are found without reading all of it, one block at a time."""
        scheduler = self.stage.scheduler
        job = self.stage.fleet.add_job(b"line\n" * 1_000_000)
        self.successResultOf(Deferred.fromCoroutine(offset_of_tail(scheduler, job.id, Stream.STDOUT, 3)))
        sizes = [size for *_, size in scheduler.asked("read_output")]
        self.assertEqual(sizes, [0, spans.FIRST_BLOCK_BYTES])
