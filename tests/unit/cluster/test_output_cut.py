"""The end of output that is not all that the job wrote."""

from __future__ import annotations

from scheduler.cluster.output.failures import RETRY_MAX_SECONDS
from scheduler.errors import WorkerFault
from scheduler.model import WorkerState
from tests.unit.cluster.output_case import KEY, OutputTestCase
from tests.unit.cluster.values import a_worker

FULL = "stdout: No space left on device"


class CutTests(OutputTestCase):
    """The end of an output that is incomplete is marked as cut."""

    def test_streamed(self) -> None:
        """The worker's mark at the end of its stream reaches a waiting follower, and one that is served from memory."""
        waiting = self.open().read()
        self.write(5)
        self.client.flow(10)
        self.assert_gives(waiting, 0, 5)
        reader, late = self.open(5), self.open(2)
        waiting = reader.read()
        self.spool.ended, self.spool.cut = True, FULL
        self.client.flow(10)
        self.assert_gives(waiting, 5, 0, end=True, cut=FULL)
        self.assert_gives(late.read(), 2, 3, end=True, cut=FULL)

    def test_part_of_the_rest(self) -> None:
        """A chunk before the end is not marked."""
        self.write(30)
        self.spool.ended, self.spool.cut = True, FULL
        reader = self.open()
        self.client.flow(10)
        with_the_end = self.successResultOf(reader.read())
        self.assertEqual((len(with_the_end.data), with_the_end.end, with_the_end.cut), (30, True, FULL))
        self.end_job()
        reading = self.open().read()
        self.client.answer(20)
        self.assert_gives(reading, 0, 20)

    def test_pulled(self) -> None:
        """The worker's mark at the end of a pulled output is passed on."""
        self.write(10)
        self.end_job()
        self.spool.cut = FULL
        reading = self.open(3).read()
        self.client.answer()
        self.assert_gives(reading, 3, 7, end=True, cut=FULL)

    def test_known_here(self) -> None:
        """The job's end marks the output if the worker does not, or is not asked."""
        self.write(10)
        self.end_job(stdout_bytes=10, output_error=FULL)
        reading = self.open().read()
        self.client.answer()
        self.assert_gives(reading, 0, 10, end=True, cut=FULL)
        self.set_worker(WorkerState.UNREACHABLE)
        self.assert_gives(self.open(10).read(), 10, 0, end=True, cut=FULL)
        self.assert_gives(self.outputs.read(*KEY, 10, 5), 10, 0, end=True, cut=FULL)
        self.assertEqual(self.client.reads_made, 1)

    def test_snapshot(self) -> None:
        """Output that is not followed is marked, too."""
        self.write(10)
        self.end_job(stdout_bytes=10, output_error=FULL)
        reading = self.outputs.read(*KEY, 5, 100)
        self.client.answer()
        self.assert_gives(reading, 5, 5, end=True, cut=FULL)

    def test_short(self) -> None:
        """A stream is marked if its end is not where the job's end says."""
        self.write(8)
        self.end_job(stdout_bytes=10)
        reading = self.open().read()
        self.client.answer()
        self.assert_gives(reading, 0, 8, end=True, cut="stdout has 8 bytes, and the job wrote 10")

    def test_short_stream(self) -> None:
        """A stream is marked also if the job's end is heard after that of the stream."""
        self.write(8)
        reader = self.open()
        self.spool.ended = True
        self.client.flow(10)
        self.end_job(stdout_bytes=10)
        self.assert_gives(reader.read(), 0, 8, end=True, cut="stdout has 8 bytes, and the job wrote 10")


class EarlierWorkerTests(OutputTestCase):
    """A worker of an earlier version does not mark the end of an incomplete output."""

    def setUp(self) -> None:
        super().setUp()
        self.house.add(a_worker(features=frozenset()))

    def test_streamed(self) -> None:
        """The end of the stream waits for the end of the job, which has the mark; the bytes do not wait."""
        self.write(5)
        self.spool.ended = True
        reader = self.open()
        self.client.flow(10)
        self.assert_gives(reader.read(), 0, 5)
        readings = [reader.read(), self.open(5).read()]
        self.clock.pump([RETRY_MAX_SECONDS] * 5)
        for reading in readings:
            self.assertNoResult(reading)
        self.end_job(stdout_bytes=5, output_error=FULL)
        for reading in readings:
            self.assert_gives(reading, 5, 0, end=True, cut=FULL)
        self.assertEqual((len(self.client.streams), self.client.reads_made), (1, 0))
        self.assert_idle()

    def test_whole(self) -> None:
        """A proper end waits for the end of the job, too."""
        self.spool.ended = True
        reading = self.open().read()
        self.client.flow(10)
        self.assertNoResult(reading)
        self.end_job(stdout_bytes=0)
        self.assert_gives(reading, 0, 0, end=True)
        self.assert_idle()

    def test_pulled(self) -> None:
        """Pulled bytes are given at once, and the end is awaited by a stream."""
        self.write(5)
        self.spool.ended = True
        reader = self.open()
        reading = reader.read()
        self.cut(WorkerFault("w-1", "oh"))
        self.client.answer()
        self.assert_gives(reading, 0, 5)
        reading = reader.read()
        self.client.flow(10)
        self.assertNoResult(reading)
        self.end_job(stdout_bytes=5, output_error=FULL)
        self.assert_gives(reading, 5, 0, end=True, cut=FULL)
        self.assert_idle()

    def test_end_alone_is_pulled(self) -> None:
        """A follower that has all bytes and pulls waits for the end of the job, too."""
        _, reading = self.under_way(5)
        self.spool.ended = True
        self.cut(WorkerFault("w-1", "oh"))
        self.client.answer()
        self.client.flow(10)
        self.assertNoResult(reading)
        self.end_job(stdout_bytes=5)
        self.assert_gives(reading, 5, 0, end=True)
        self.assert_idle()
