"""How following ends: with the end, or with a reason why there is none."""

from __future__ import annotations

from attrs import evolve

from scheduler.cluster.output.follower import FAILING_MAX_SECONDS, FAULTS_MAX_SECONDS
from scheduler.cluster.output.live import RETRY_MAX_SECONDS
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
        """Where the length of the output is known, its end needs no call."""
        self.end_job(stdout_bytes=0)
        self.set_worker(WorkerState.UNREACHABLE)
        self.assert_gives(self.open().read(), 0, 0, end=True)
        self.assertEqual(self.client.reads_made, 0)

    def test_length_so_far(self) -> None:
        """What a running job was said to have written is not the end."""
        self.change_job(stdout_bytes=5)
        self.write(10)
        reading = self.open(5).read()
        self.client.flow(10)
        self.assert_gives(reading, 5, 5)

    def test_told_of_the_end(self) -> None:
        """A follower who has it all is let go when the job is known to have ended there, even if its stream is cut."""
        self.write(10)
        reader = self.open()
        self.client.flow(10)
        self.successResultOf(reader.read())
        reading = reader.read()
        self.client.stream().cut(CUT)
        self.end_job(stdout_bytes=10)
        self.assert_gives(reading, 10, 0, end=True)
        self.assert_idle()

    def test_failed_to_start(self) -> None:
        """A job that could not be started, or was stopped in time, has an output: none. No worker is asked."""
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
        """A job that was stopped by a signal did run, also where its worker did not tell when it began."""
        self.write(5)
        self.end_job(JobState.STOPPED, signal="SIGTERM")
        reading = self.open().read()
        self.client.answer()
        self.assert_gives(reading, 0, 5, end=True)

    def test_no_record_before_it_began(self) -> None:
        """A worker that did not know the job before it ended is asked again: the start may have come after that."""
        reading = self.open().read()
        self.client.stream().cut(NotFound("job", "j-1"))
        self.clock.advance(RETRY_MAX_SECONDS)
        self.write(5)
        self.end_job(started_at=1000.5)
        self.client.fail_read(NotFound("job", "j-1"))
        self.client.answer()
        self.assert_gives(reading, 0, 5, end=True)
        self.assert_idle()

    def test_no_record_yet(self) -> None:
        """While the job has not ended, a worker that does not know it may be told of it yet."""
        reading = self.open().read()
        self.client.stream().cut(NotFound("job", "j-1"))
        self.clock.advance(RETRY_MAX_SECONDS)
        self.client.fail_read(NotFound("job", "j-1"))
        self.clock.advance(RETRY_MAX_SECONDS)
        self.write(5)
        self.client.answer()
        self.assert_gives(reading, 0, 5)

    def test_spool_is_gone(self) -> None:
        """Where the worker has no record of an ended job any more, its output is not found."""
        self.end_job(stdout_bytes=10)
        reading = self.open().read()
        self.client.fail_read(NotFound("job", "j-1"))
        self.failureResultOf(reading, NotFound)
        self.assert_idle()

    def test_pruned(self) -> None:
        """Output that its worker no longer keeps is gone, for who begins and for who is in the middle."""
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
        """Where the end was not heard of yet there is a cut too, and no end."""
        self.write(10)
        reader = self.open()
        self.client.flow(10)
        self.successResultOf(reader.read())
        reading = reader.read()
        self.client.stream().cut(OutputPruned("j-1"))
        self.clock.advance(RETRY_MAX_SECONDS)
        self.client.fail_read(OutputPruned("j-1"))
        self.failureResultOf(reading, OutputPruned)
        self.assert_idle()

    def test_spool_of_a_started_job_is_gone(self) -> None:
        """So too where the job failed and its worker did not tell how much it wrote."""
        self.end_job(JobState.FAILED, started_at=1000.5)
        reading = self.open().read()
        self.client.fail_read(NotFound("job", "j-1"))
        self.failureResultOf(reading, NotFound)
        self.assert_idle()

    def test_lost_with_its_output(self) -> None:
        """A lost job of which its worker has no record is no more: its output can't be had."""
        reading = self.open().read()
        self.client.stream().cut(NotFound("job", "j-1"))
        self.change_job(state=JobState.LOST, reason="no record")
        self.client.fail_read(NotFound("job", "j-1"))
        self.assertIn("no record", str(self.failureResultOf(reading, OutputGone).value))
        self.assert_idle()

    def test_lost_but_its_output(self) -> None:
        """What is there of a lost job's output is read like that of any other; nobody knows that it is all."""
        self.write(10)
        self.end_job(JobState.LOST, reason="rebooted", stdout_bytes=10)
        reading = self.open().read()
        self.client.answer()
        lost = "the job is lost (rebooted), and what it wrote last may be missing"
        self.assert_gives(reading, 0, 10, end=True, cut=lost)
        self.assert_gives(self.open(10).read(), 10, 0, end=True, cut=lost)

    def test_lost_and_ended_well(self) -> None:
        """A job that was lost here, and had come to its end on its worker, is taken at that one's word."""
        self.write(10)
        self.end_job(JobState.LOST, reason="forgotten")
        reading = self.open().read()
        self.client.answer()
        self.assert_gives(reading, 0, 10, end=True)

    def test_lost_with_its_worker(self) -> None:
        """Followers of a job whose worker was forgotten fail as soon as the stream has gone too."""
        self.write(10)
        reader = self.open()
        self.client.flow(10)
        self.successResultOf(reader.read())
        reading = reader.read()
        self.change_job(state=JobState.LOST, reason="forgotten")
        self.assertNoResult(reading)
        self.client.stream().cut(CUT)
        self.assertNoResult(reading)
        self.ledger.learn(Ref("worker", "w-1"))
        self.house.settle()
        self.assertIn("forgotten", str(self.failureResultOf(reading, OutputGone).value))
        self.assert_idle()

    def test_ended_and_unreachable(self) -> None:
        """Who follows an ended job whose worker can't be reached is told so at once."""
        self.end_job()
        self.set_worker(WorkerState.UNREACHABLE)
        self.failureResultOf(self.open().read(), Unreachable)
        self.assert_idle()

    def test_ended_and_its_worker_forgotten(self) -> None:
        """Who follows an ended job whose worker is known no more is told at once that the output is gone."""
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
        reader = self.open(10)
        reading = reader.read()
        self.client.answer()
        self.failureResultOf(reading, Unavailable)
        self.assert_idle()

    def test_faults(self) -> None:
        """A worker that answers with faults alone is given up, even while the job runs."""
        reading = self.open().read()
        self.client.stream().cut(WorkerFault("w-1", "disk"))
        while not reading.called:
            self.clock.advance(0.5)
            for _ in self.client.reads[:]:
                self.client.fail_read(WorkerFault("w-1", "disk"))
            self.assertLess(self.clock.seconds(), FAULTS_MAX_SECONDS + 2 * RETRY_MAX_SECONDS)
        self.failureResultOf(reading, WorkerFault)
        self.assertGreaterEqual(self.clock.seconds(), FAULTS_MAX_SECONDS)
        self.assert_idle()

    def test_only_pulls(self) -> None:
        """Where the worker has no streams, but its output can be read, it is polled."""
        reading = self.open().read()
        for _ in range(3):
            self.client.stream().cut(Unsupported("w-1", "StreamJob"))
            self.clock.advance(RETRY_MAX_SECONDS)
            self.client.answer()
        self.assertNoResult(reading)
        self.client.stream().cut(Unsupported("w-1", "StreamJob"))
        self.write(5)
        self.clock.advance(RETRY_MAX_SECONDS)
        self.client.answer()
        self.assert_gives(reading, 0, 5)

    def test_unsupported(self) -> None:
        """Where it can do neither, the follower is told."""
        reading = self.open().read()
        self.client.stream().cut(Unsupported("w-1", "StreamJob"))
        self.clock.advance(RETRY_MAX_SECONDS)
        self.client.fail_read(Unsupported("w-1", "ReadOutput"))
        self.failureResultOf(reading, Unsupported)
        self.assert_idle()

    def test_beyond_the_end(self) -> None:
        """An offset past what there is, is refused: by the worker, or without it where the length is known."""
        reading = self.open(10).read()
        self.client.stream().cut(OffsetBeyondEnd(10, 0))
        self.clock.advance(RETRY_MAX_SECONDS)
        self.client.answer()
        self.failureResultOf(reading, OffsetBeyondEnd)
        self.end_job(stdout_bytes=5)
        self.failureResultOf(self.open(10).read(), OffsetBeyondEnd)
        self.assert_idle()

    def test_bug(self) -> None:
        """What is no error of ours is logged, fails those who run into it, and leaves nothing behind."""
        reading = self.open().read()
        self.client.stream().cut(ZeroDivisionError())
        self.clock.advance(RETRY_MAX_SECONDS)
        self.client.fail_read(ZeroDivisionError())
        self.failureResultOf(reading, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assert_idle()


class RefusalTests(OutputTestCase):
    def test_unknown_job(self) -> None:
        """There is no output of a job that is not known."""
        self.assertRaises(NotFound, self.outputs.open, "j-2", Stream.STDOUT, 0)

    def test_core_worker(self) -> None:
        """A core worker can't give output, and that is said at once."""
        self.house.add(evolve(a_worker(), boot_id=""))
        self.assertRaises(Unsupported, self.open)
        self.failureResultOf(self.outputs.read(*KEY, 0, 10), Unsupported)
        self.assert_idle()

    def test_busy(self) -> None:
        """Beyond the limit of streams a follower is refused, and leaves nothing behind."""
        self.client.refuse_stream(Busy("output streams", 256))
        self.assertRaises(Busy, self.open)
        self.assert_idle()
        self.open()
        self.client.stream()

    def test_busy_worker(self) -> None:
        """Where the worker is at its limit, a follower who got nothing yet is told so."""
        reader = self.open()
        reading = reader.read()
        self.client.stream().cut(Busy("output streams", 64))
        self.failureResultOf(reading, Busy)
        self.assert_idle()

    def test_busy_worker_while_under_way(self) -> None:
        """One under way goes on by pulling, ever more slowly, until there is room for its stream."""
        reader = self.open()
        self.write(5)
        self.client.flow(10)
        self.successResultOf(reader.read())
        reading = reader.read()
        for _ in range(3):
            self.client.stream().cut(Busy("output streams", 64))
            self.clock.advance(1)
            self.client.answer()
        self.write(5)
        self.client.flow(10)
        self.assert_gives(reading, 5, 5)
        self.assertEqual(self.client.reads_made, 3)

    def test_busy_pull(self) -> None:
        """One whose first pull finds no place is told so; it has no answer to spoil yet."""
        self.end_job()
        reading = self.open().read()
        self.client.fail_read(Busy("reads", 68))
        self.failureResultOf(reading, Busy)
        self.assert_idle()
