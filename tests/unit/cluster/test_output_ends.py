"""The end of a follower: the end of the output, or an error."""

from __future__ import annotations

from attrs import evolve
from twisted.python.failure import Failure

from scheduler.cluster.output.failures import FAILING_MAX_SECONDS, FAULTS_MAX_SECONDS, RETRY_MAX_SECONDS
from scheduler.errors import (
    Busy,
    NotFound,
    OffsetBeyondEnd,
    OutputGone,
    OutputPruned,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
)
from scheduler.model import JobState, Ref, Stream, WorkerState
from tests.unit.cluster.output_case import KEY, OutputTestCase
from tests.unit.cluster.values import a_worker

CUT = Unreachable("w-1", sent=True)


class EndTests(OutputTestCase):
    def test_ended_job_is_pulled(self) -> None:
        """The output of an ended job is read by calls alone, one at a time, to its end."""
        self.write(50)
        self.end_job()
        reader = self.open()
        reading = reader.read()
        self.assertEqual(len(self.client.reads), 1)
        self.client.answer(30)
        self.assert_gives(reading, 0, 30)
        self.assertEqual(self.client.reads, [])
        reading = reader.read()
        self.client.answer(30)
        self.assert_gives(reading, 30, 20, end=True)
        self.assertEqual(self.client.streams, [])
        self.assert_idle()

    def test_known_length(self) -> None:
        """The end of an output of known length needs no call."""
        self.end_job(stdout_bytes=0)
        self.set_worker(WorkerState.UNREACHABLE)
        self.assert_gives(self.open().read(), 0, 0, end=True)
        self.assertEqual(self.client.reads_made, 0)

    def test_length_so_far(self) -> None:
        """The reported length of a running job's output is not its end."""
        self.change_job(stdout_bytes=5)
        self.write(10)
        reading = self.open(5).read()
        self.client.flow(10)
        self.assert_gives(reading, 5, 5)

    def test_told_of_the_end(self) -> None:
        """A follower that has all bytes gets the end when the job has ended, even if its stream was cut."""
        _, reading = self.under_way()
        self.client.stream().cut(CUT)
        self.end_job(stdout_bytes=10)
        self.assert_gives(reading, 10, 0, end=True)
        self.assert_idle()

    def test_failed_to_start(self) -> None:
        """The output of a job that never ran is empty, and its worker is not asked."""
        for state in (JobState.FAILED, JobState.STOPPED):
            self.setUp()
            reading = self.open().read()
            self.client.stream().cut(NotFound("job", "j-1"))
            self.end_job(state)
            self.assert_gives(reading, 0, 0, end=True)
            self.set_worker(WorkerState.UNREACHABLE)
            self.assert_gives(self.open().read(), 0, 0, end=True)
            self.assertEqual(self.client.reads_made, 0)
            self.assert_idle()

    def test_stopped_by_a_signal(self) -> None:
        """A job that was stopped by a signal did run, even if its worker did not tell its start time."""
        self.write(5)
        self.end_job(JobState.STOPPED, signal="SIGTERM")
        reading = self.open().read()
        self.client.answer()
        self.assert_gives(reading, 0, 5, end=True)


class RecordTests(OutputTestCase):
    """A worker without a record of the job, or without its output."""

    def test_no_record_before_it_began(self) -> None:
        """A worker that did not know the job before it ended is asked again: the start may have come after that."""
        reading = self.open().read()
        self.cut(NotFound("job", "j-1"))
        self.write(5)
        self.end_job(started_at=1000.5)
        self.client.fail_read(NotFound("job", "j-1"))
        self.client.answer()
        self.assert_gives(reading, 0, 5, end=True)
        self.assert_idle()

    def test_no_record_yet(self) -> None:
        """A worker that does not know an unfinished job is asked again."""
        reading = self.open().read()
        self.cut(NotFound("job", "j-1"))
        self.client.fail_read(NotFound("job", "j-1"))
        self.clock.advance(RETRY_MAX_SECONDS)
        self.write(5)
        self.client.answer()
        self.assert_gives(reading, 0, 5)

    def test_spool_is_gone(self) -> None:
        """The output of an ended job is not found if the worker has no record of the job any more."""
        self.end_job(stdout_bytes=10)
        reading = self.open().read()
        self.client.fail_read(NotFound("job", "j-1"))
        self.failureResultOf(reading, NotFound)
        self.assert_idle()

    def test_pruned(self) -> None:
        """A follower of pruned output fails, whether it has read something or not."""
        self.write(50)
        self.end_job(stdout_bytes=50)
        under_way, fresh = self.open(), self.open()
        reading = under_way.read()
        self.client.answer(30)
        self.assert_gives(reading, 0, 30)
        for reader in (under_way, fresh):
            reading = reader.read()
            self.client.fail_read(OutputPruned("j-1"))
            self.failureResultOf(reading, OutputPruned)
        self.assert_idle()

    def test_pruned_while_it_is_streamed(self) -> None:
        """A follower of pruned output fails also if the job's end is not known yet."""
        _, reading = self.under_way()
        self.cut(OutputPruned("j-1"))
        self.client.fail_read(OutputPruned("j-1"))
        self.failureResultOf(reading, OutputPruned)
        self.assert_idle()

    def test_spool_of_a_started_job_is_gone(self) -> None:
        """The output of a failed job is not found either if its length is unknown and the worker has no record."""
        self.end_job(JobState.FAILED, started_at=1000.5)
        reading = self.open().read()
        self.client.fail_read(NotFound("job", "j-1"))
        self.failureResultOf(reading, NotFound)
        self.assert_idle()

    def test_lost_with_its_output(self) -> None:
        """The output of a lost job is gone if its worker has no record of the job."""
        reading = self.open().read()
        self.client.stream().cut(NotFound("job", "j-1"))
        self.change_job(state=JobState.LOST, reason="no record")
        self.client.fail_read(NotFound("job", "j-1"))
        self.assertIn("no record", str(self.failureResultOf(reading, OutputGone).value))
        self.assert_idle()


class LostTests(OutputTestCase):
    """The output of a lost job."""

    def test_lost_but_its_output(self) -> None:
        """The rest of a lost job's output is read like any other, and its end is marked as cut.

        Workers of earlier versions report such a job without an output error.
        """
        self.write(10)
        self.end_job(JobState.LOST, reason="rebooted", stdout_bytes=10)
        reading = self.open().read()
        self.client.answer()
        lost = "the job is lost, and what it wrote last may be missing"
        self.assert_gives(reading, 0, 10, end=True, cut=lost)
        self.assert_gives(self.open(10).read(), 10, 0, end=True, cut=lost)

    def test_lost_and_ended_well(self) -> None:
        """The output of a lost job that had ended on its worker is complete if the worker says so."""
        self.write(10)
        self.end_job(JobState.LOST, reason="forgotten")
        reading = self.open().read()
        self.client.answer()
        self.assert_gives(reading, 0, 10, end=True)

    def test_lost_with_its_worker(self) -> None:
        """Followers of a job whose worker was forgotten fail when the stream is cut."""
        _, reading = self.under_way()
        self.change_job(state=JobState.LOST, reason="forgotten")
        self.assertNoResult(reading)
        self.client.stream().cut(CUT)
        self.assertNoResult(reading)
        self.ledger.learn(Ref("worker", "w-1"))
        self.house.settle()
        self.assertIn("forgotten", str(self.failureResultOf(reading, OutputGone).value))
        self.assert_idle()


class FailureTests(OutputTestCase):
    """Followers that can't be served."""

    def test_ended_and_unreachable(self) -> None:
        """A new follower of an ended job whose worker can't be reached fails at once."""
        self.end_job()
        self.set_worker(WorkerState.UNREACHABLE)
        self.failureResultOf(self.open().read(), Unreachable)
        self.assert_idle()

    def test_ended_and_its_worker_forgotten(self) -> None:
        """A new follower of an ended job whose worker was removed fails at once: the output is gone."""
        self.end_job()
        self.ledger.learn(Ref("worker", "w-1"))
        self.house.settle()
        error = self.failureResultOf(self.open().read(), OutputGone).value
        self.assertEqual(str(error), "the output of job 'j-1' is gone: worker 'w-1' is not known any more")
        self.assert_idle()

    def test_gives_up(self) -> None:
        """A follower under way waits for the worker of an ended job, but not for ever."""
        self.write(20)
        self.end_job()
        reader = self.open()
        reading = reader.read()
        self.client.answer(10)
        self.successResultOf(reading)
        self.set_worker(WorkerState.UNREACHABLE)
        reading = reader.read()
        self.clock.pump([1.0] * int(FAILING_MAX_SECONDS - 2 * RETRY_MAX_SECONDS))
        self.assertNoResult(reading)
        self.clock.pump([1.0] * int(3 * RETRY_MAX_SECONDS))
        self.failureResultOf(reading, Unreachable)
        self.assert_idle()

    def test_end_that_does_not_come(self) -> None:
        """A worker that never says where the output of an ended job ends is given up too."""
        self.write(10)
        self.end_job()
        self.spool.ended = False
        reading = self.open(10).read()
        self.client.answer()
        self.failureResultOf(reading, Unavailable)
        self.assert_idle()

    def test_faults(self) -> None:
        """A worker that answers with faults alone is given up, even while the job runs."""
        failures: list[Failure] = []
        self.open().read().addErrback(failures.append)
        self.client.stream().cut(WorkerFault("w-1", "disk"))
        while not failures:
            self.clock.advance(0.5)
            for _ in self.client.reads[:]:
                self.client.fail_read(WorkerFault("w-1", "disk"))
            self.assertLess(self.clock.seconds(), FAULTS_MAX_SECONDS + 2 * RETRY_MAX_SECONDS)
        self.assertTrue(failures[0].check(WorkerFault))
        self.assertGreaterEqual(self.clock.seconds(), FAULTS_MAX_SECONDS)
        self.assert_idle()

    def test_only_pulls(self) -> None:
        """The output of a worker without ``StreamJob`` is polled by ``ReadOutput``."""
        reading = self.open().read()
        for _ in range(3):
            self.cut(Unsupported("w-1", "StreamJob"))
            self.client.answer()
        self.assertNoResult(reading)
        self.client.stream().cut(Unsupported("w-1", "StreamJob"))
        self.write(5)
        self.clock.advance(RETRY_MAX_SECONDS)
        self.client.answer()
        self.assert_gives(reading, 0, 5)

    def test_unsupported(self) -> None:
        """A follower fails if the worker has neither ``StreamJob`` nor ``ReadOutput``."""
        reading = self.open().read()
        self.cut(Unsupported("w-1", "StreamJob"))
        self.client.fail_read(Unsupported("w-1", "ReadOutput"))
        self.failureResultOf(reading, Unsupported)
        self.assert_idle()

    def test_beyond_the_end(self) -> None:
        """An offset beyond the end is refused by the worker, or without it if the length is known."""
        reading = self.open(10).read()
        self.cut(OffsetBeyondEnd(10, 0))
        self.client.answer()
        self.failureResultOf(reading, OffsetBeyondEnd)
        self.end_job(stdout_bytes=5)
        self.failureResultOf(self.open(10).read(), OffsetBeyondEnd)
        self.assert_idle()

    def test_bug(self) -> None:
        """An unexpected error is logged, ends the followers that meet it, and leaves nothing behind."""
        reading = self.open().read()
        self.cut(ZeroDivisionError())
        self.client.fail_read(ZeroDivisionError())
        self.failureResultOf(reading, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assert_idle()


class RefusalTests(OutputTestCase):
    def test_unknown_job(self) -> None:
        """The output of an unknown job is not found."""
        self.assertRaises(NotFound, self.outputs.open, "j-2", Stream.STDOUT, 0)

    def test_core_worker(self) -> None:
        """A follower of a job on a core worker is refused at once."""
        self.house.add(evolve(a_worker(), boot_id=""))
        self.assertRaises(Unsupported, self.open)
        self.failureResultOf(self.outputs.read(*KEY, 0, 10), Unsupported)
        self.assert_idle()

    def test_busy(self) -> None:
        """A follower beyond the limit of streams is refused, and leaves nothing behind."""
        self.client.refuse_stream(Busy("output streams", 256))
        self.assertRaises(Busy, self.open)
        self.assert_idle()
        self.open()
        self.client.stream()

    def test_busy_worker(self) -> None:
        """A follower that has read nothing gets ``Busy`` if the worker is at its limit of streams."""
        reading = self.open().read()
        self.client.stream().cut(Busy("output streams", 64))
        self.failureResultOf(reading, Busy)
        self.assert_idle()

    def test_busy_worker_while_under_way(self) -> None:
        """A follower that has read something pulls, with growing delays, until there is room for its stream."""
        _, reading = self.under_way(5)
        for _ in range(3):
            self.client.stream().cut(Busy("output streams", 64))
            self.clock.advance(1)
            self.client.answer()
        self.write(5)
        self.client.flow(10)
        self.assert_gives(reading, 5, 5)
        self.assertEqual(self.client.reads_made, 3)

    def test_busy_pull(self) -> None:
        """A follower that has read nothing gets ``Busy`` if its pull finds no place."""
        self.end_job()
        reading = self.open().read()
        self.client.fail_read(Busy("reads", 68))
        self.failureResultOf(reading, Busy)
        self.assert_idle()
