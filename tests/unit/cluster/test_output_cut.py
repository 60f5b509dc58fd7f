"""The end of output that is not all that the job wrote."""

from __future__ import annotations

from scheduler.cluster.output.failures import RETRY_MAX_SECONDS
from scheduler.errors import WorkerFault
from scheduler.model import WorkerState
from tests.unit.cluster.output_case import KEY, OutputTestCase
from tests.unit.cluster.values import a_worker

FULL = "stdout: No space left on device"


class CutTests(OutputTestCase):
    """Something that the job wrote was not kept: the end of its output says so."""

    def test_streamed(self) -> None:
        """The worker says it with the end of its stream: to one who waits, and to one who is served from memory."""
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
        """Before the end nothing is said of it."""
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
        """The worker says it with the end of what is pulled."""
        self.write(10)
        self.end_job()
        self.spool.cut = FULL
        reading = self.open(3).read()
        self.client.answer()
        self.assert_gives(reading, 3, 7, end=True, cut=FULL)

    def test_known_here(self) -> None:
        """What the job says is said where the worker does not, or is not asked."""
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
        """One that is not followed says it too."""
        self.write(10)
        self.end_job(stdout_bytes=10, output_error=FULL)
        reading = self.outputs.read(*KEY, 5, 100)
        self.client.answer()
        self.assert_gives(reading, 5, 5, end=True, cut=FULL)

    def test_short(self) -> None:
        """A stream whose end is not where the job says, however it came to that, has not all of its bytes."""
        self.write(8)
        self.end_job(stdout_bytes=10)
        reading = self.open().read()
        self.client.answer()
        self.assert_gives(reading, 0, 8, end=True, cut="stdout has 8 bytes, and the job wrote 10")

    def test_short_stream(self) -> None:
        """So it is where that was heard only after the stream had ended."""
        self.write(8)
        reader = self.open()
        self.spool.ended = True
        self.client.flow(10)
        self.end_job(stdout_bytes=10)
        self.assert_gives(reader.read(), 0, 8, end=True, cut="stdout has 8 bytes, and the job wrote 10")


class EarlierWorkerTests(OutputTestCase):
    """A worker of an earlier version does not say of an end that output was cut."""

    def setUp(self) -> None:
        super().setUp()
        self.house.add(a_worker(features=frozenset()))

    def test_streamed(self) -> None:
        """The end of its stream waits for the end of the job, which says it; the bytes do not."""
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
        """So does a proper end."""
        self.spool.ended = True
        reading = self.open().read()
        self.client.flow(10)
        self.assertNoResult(reading)
        self.end_job(stdout_bytes=0)
        self.assert_gives(reading, 0, 0, end=True)
        self.assert_idle()

    def test_pulled(self) -> None:
        """What is pulled is given, and the end awaited by a stream."""
        self.write(5)
        self.spool.ended = True
        reader = self.open()
        reading = reader.read()
        self.client.stream().cut(WorkerFault("w-1", "oh"))
        self.clock.advance(RETRY_MAX_SECONDS)
        self.client.answer()
        self.assert_gives(reading, 0, 5)
        reading = reader.read()
        self.client.flow(10)
        self.assertNoResult(reading)
        self.end_job(stdout_bytes=5, output_error=FULL)
        self.assert_gives(reading, 5, 0, end=True, cut=FULL)
        self.assert_idle()

    def test_end_alone_is_pulled(self) -> None:
        """One who has it all and pulls waits too."""
        self.write(5)
        reader = self.open()
        self.client.flow(10)
        self.successResultOf(reader.read())
        reading = reader.read()
        self.spool.ended = True
        self.client.stream().cut(WorkerFault("w-1", "oh"))
        self.clock.advance(RETRY_MAX_SECONDS)
        self.client.answer()
        self.client.flow(10)
        self.assertNoResult(reading)
        self.end_job(stdout_bytes=5)
        self.assert_gives(reading, 5, 0, end=True)
        self.assert_idle()
