"""Output that is read as it is now, without following."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from scheduler.errors import (
    DeadlineExceeded,
    NotFound,
    OffsetBeyondEnd,
    OutputGone,
    Unavailable,
    Unreachable,
    WorkerFault,
)
from scheduler.messages import Chunk
from scheduler.model import JobState, Ref, WorkerState
from tests.unit.cluster.output_case import KEY, OutputTestCase
from tests.unit.cluster.values import a_job

CUT = Unreachable("w-1", sent=True)


class SnapshotTests(OutputTestCase):
    def read(self, offset: int = 0, size: int = 100) -> Deferred[Chunk]:
        return self.outputs.read(*KEY, offset, size)

    def begin(self, state: JobState) -> None:
        """Have ``j-1`` begin in that state."""
        self.setUp()
        self.house.parts.ledger.learn(self.house.job("j-1").ref)
        self.house.add(a_job(state=state))

    def test_asks_the_worker(self) -> None:
        """A read takes one call, for just the bytes wanted."""
        self.write(50)
        reading = self.read(10, 20)
        self.client.answer()
        self.assert_gives(reading, 10, 20)

    def test_length(self) -> None:
        """A read of 0 bytes answers with the length alone."""
        self.write(50)
        reading = self.read(0, 0)
        self.client.answer()
        self.assertEqual(self.successResultOf(reading), Chunk(b"", 0, size=50))

    def test_errors_pass(self) -> None:
        """Errors of the worker are passed on."""
        for error in (OffsetBeyondEnd(5, 0), CUT, DeadlineExceeded("ReadOutput", 10.0), WorkerFault("w-1", "oh")):
            reading = self.read(5)
            self.client.fail_read(error)
            self.failureResultOf(reading, type(error))

    def test_unknown_job(self) -> None:
        """The output of an unknown job is not found."""
        self.failureResultOf(self.outputs.read("j-2", KEY[1], 0, 1), NotFound)

    def test_unreachable(self) -> None:
        """A worker that can't be reached, or is gone, is not called; the output of what ended there is gone."""
        self.set_worker(WorkerState.UNREACHABLE)
        self.failureResultOf(self.read(), Unreachable)
        self.ledger.learn(Ref("worker", "w-1"))
        self.failureResultOf(self.read(), Unreachable)
        self.end_job()
        self.failureResultOf(self.read(), OutputGone)
        self.assertEqual(self.client.reads_made, 0)

    def test_no_worker(self) -> None:
        """The output of a job that was lost when its worker was forgotten is gone."""
        self.house.add(a_job("j-3", JobState.LOST, reason="forgotten"))
        self.ledger.learn(Ref("worker", "w-1"))
        reading = self.outputs.read("j-3", KEY[1], 0, 1)
        self.assertIn("forgotten", str(self.failureResultOf(reading, OutputGone).value))

    def test_queued(self) -> None:
        """A job that is queued has written nothing yet; that is not its end."""
        self.house.know(a_job("j-3", JobState.QUEUED, worker_id=None))
        self.assertEqual(self.successResultOf(self.outputs.read("j-3", KEY[1], 0, 10)), Chunk(b"", 0))
        self.failureResultOf(self.outputs.read("j-3", KEY[1], 1, 10), OffsetBeyondEnd)
        self.assertEqual(self.client.reads_made, 0)

    def test_starting(self) -> None:
        """A job whose start was not answered yet may run: its worker is asked."""
        self.begin(JobState.STARTING)
        self.write(10)
        reading = self.read(4)
        self.client.answer()
        self.assert_gives(reading, 4, 6)

    def test_not_started(self) -> None:
        """The output of a job that its worker has not begun is empty so far; that is not its end."""
        self.begin(JobState.STARTING)
        reading, beyond = self.read(), self.read(1)
        for _ in range(2):
            self.client.fail_read(NotFound("job", "j-1"))
        self.assertEqual(self.successResultOf(reading), Chunk(b"", 0))
        self.failureResultOf(beyond, OffsetBeyondEnd)

    def test_over_before_the_answer(self) -> None:
        """A worker that did not know the job before it ended is asked again, unless it never began."""
        for state in (JobState.STARTING, JobState.UNKNOWN, JobState.RUNNING):
            self.begin(state)
            reading = self.read()
            self.write(5)
            self.end_job(started_at=1000.5)
            self.client.fail_read(NotFound("job", "j-1"))
            self.client.answer()
            self.assert_gives(reading, 0, 5, end=True)
            self.begin(state)
            reading = self.read()
            self.end_job(JobState.STOPPED)
            self.client.fail_read(NotFound("job", "j-1"))
            self.assertEqual(self.successResultOf(reading), Chunk(b"", 0, end=True))

    def test_known_length(self) -> None:
        """A read behind the known length makes no call."""
        self.write(10)
        self.end_job(stdout_bytes=10)
        self.assertEqual(self.successResultOf(self.read(10)), Chunk(b"", 10, end=True, size=10))
        self.failureResultOf(self.read(11), OffsetBeyondEnd)
        self.assertEqual(self.client.reads_made, 0)

    def test_no_record(self) -> None:
        """Without a record on the worker, a read is empty for a job that never began, else it fails by state."""
        for state, outcome in (
            (JobState.RUNNING, Unavailable),
            (JobState.FAILED, None),
            (JobState.STOPPED, None),
            (JobState.LOST, OutputGone),
            (JobState.SUCCEEDED, NotFound),
        ):
            job = a_job(f"j-{state.value}", state)
            self.house.add(job)
            reading = self.outputs.read(job.id, KEY[1], 0, 10)
            if outcome is None:
                self.assertEqual(self.successResultOf(reading), Chunk(b"", 0, end=True))
            else:
                self.client.fail_read(NotFound("job", job.id))
                self.failureResultOf(reading, outcome)

    def test_cancel(self) -> None:
        """A cancelled read cancels its call."""
        reading = self.read()
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.assertTrue(self.client.reads[0].answer.called)
