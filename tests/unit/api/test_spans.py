"""Which part of the output is meant."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.api import spans
from scheduler.api.spans import Range, offset_of_tail, read_range
from scheduler.errors import OffsetBeyondEnd
from scheduler.model import Stream
from tests.unit.api.conversation import Stage


class RangeTests(SynchronousTestCase):
    """The Range header."""

    def test_understood(self) -> None:
        """First and last, first alone, a suffix."""
        self.assertEqual(read_range("bytes=0-0"), Range(0, 0))
        self.assertEqual(read_range("bytes=5-"), Range(5))
        self.assertEqual(read_range("bytes=-5"), Range(suffix=5))

    def test_ignored(self) -> None:
        """Malformed and multiple ranges ask for everything."""
        for header in (
            None,
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=0-1,3-4",
            "bytes=--1",
            "items=0-1",
            "bytes=0-1x",
            "bytes=" + "9" * 30 + "-",
        ):
            self.assertIsNone(read_range(header), header)

    def test_within(self) -> None:
        """Cut to what is there; beyond that there is nothing."""
        self.assertEqual(Range(2, 99).within(10), (2, 10))
        self.assertEqual(Range(2, 4).within(10), (2, 5))
        self.assertEqual(Range(9).within(10), (9, 10))
        self.assertEqual(Range(suffix=99).within(10), (0, 10))
        self.assertEqual(Range(suffix=3).within(10), (7, 10))
        for beyond in (Range(10), Range(10, 11), Range(suffix=0)):
            self.assertEqual(self.assertRaises(OffsetBeyondEnd, beyond.within, 10).size, 10)


class TailTests(SynchronousTestCase):
    """The last lines."""

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
        """A last line without an end is one too."""
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
        """The same as cutting all of it, in blocks as small as can be and answers smaller still."""
        self.patch(spans, "FIRST_BLOCK_BYTES", 4)
        self.patch(spans, "BLOCK_MAX_BYTES", 16)
        whole = data.split(b"\n")
        parts = [line + b"\n" for line in whole[:-1]] + ([whole[-1]] if whole[-1] else [])
        self.assertEqual(self.tail(data, lines, piece), b"".join(parts[max(0, len(parts) - lines) :]))

    def test_bounded(self) -> None:
        """A long output is not read as a whole for a few lines, and never in more than one block."""
        scheduler = self.stage.scheduler
        job = self.stage.fleet.add_job(b"line\n" * 1_000_000)
        self.successResultOf(Deferred.fromCoroutine(offset_of_tail(scheduler, job.id, Stream.STDOUT, 3)))
        sizes = [size for *_, size in scheduler.asked("read_output")]
        self.assertEqual(sizes, [0, spans.FIRST_BLOCK_BYTES])
