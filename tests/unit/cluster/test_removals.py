"""Removals step by step: what is durable when, and what comes of it when either side dies in between."""

from __future__ import annotations

from scheduler.errors import (
    Busy,
    DeadlineExceeded,
    JobNotEnded,
    NotFound,
    OutputPruned,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
)
from scheduler.messages import Chunk, JobReport, JobStatus
from scheduler.model import JobState, Stream
from tests.unit.cluster.case import ECHO, W1
from tests.unit.cluster.removals_case import RemovalCase
from tests.unit.cluster.values import a_job, a_worker


class StepTests(RemovalCase):
    def test_order(self) -> None:
        """The request is durable before the worker is told, and the job gone after the worker and the store said so."""
        self.store.held = True
        removal = self.remove()
        self.assertEqual((self.held(), self.cluster.job("j-1").remove_requested_at), ([], None))
        self.store.commit()
        self.assertEqual(self.cluster.job("j-1").remove_requested_at, 1000.0)
        call = self.take("remove_job")
        self.assertEqual((call.worker_id, call.args), ("w-1", ("j-1",)))
        call.answer.callback(None)
        self.assertEqual(self.known(), ["j-1"])
        self.assertNoResult(removal)
        self.store.commit()
        self.assertTrue(self.successResultOf(removal))
        self.assertEqual((self.known(), self.stored()), ([], None))

    def test_killed_after_the_request(self) -> None:
        """A scheduler that died before the worker was told tells it when both are back."""
        self.remove()
        self.begin()
        self.assertEqual(self.held(), [])
        self.assertEqual(self.cluster.job("j-1").remove_requested_at, 1000.0)
        self.online()
        self.take("remove_job").answer.callback(None)
        self.assertEqual((self.known(), self.stored()), ([], None))

    def test_killed_after_the_worker_removed_it(self) -> None:
        """A scheduler that died before the worker's answer asks again; a job that is not there is removed."""
        removal = self.remove()
        self.store.held = True
        self.take("remove_job").answer.callback(None)
        self.assertNoResult(removal)
        self.store.held = False
        self.begin()
        self.assertEqual(self.known(), ["j-1"])
        self.online()
        self.take("remove_job").answer.errback(NotFound("job", "j-1"))
        self.assertEqual((self.known(), self.stored()), ([], None))

    def test_killed_after_the_commit(self) -> None:
        """After that there is no job, and nothing is asked any more."""
        self.removed()
        self.begin()
        self.online()
        self.assertEqual((self.known(), self.held()), ([], []))

    def test_worker_gone_and_killed(self) -> None:
        """A removal that waits for a worker which is unknown at the start is finished then."""
        self.remove()
        self.ledger.registry.remove_worker("w-1")
        self.store.save([])
        self.begin()
        self.ledger.registry.remove_worker("w-1")
        self.removals.retry()
        self.assertEqual((self.known(), self.stored()), ([], None))

    def test_two_at_once(self) -> None:
        """A second request meanwhile shares the call, and the answer."""
        removals = [self.remove(), self.remove()]
        self.take("remove_job").answer.callback(None)
        for removal in removals:
            self.assertTrue(self.successResultOf(removal))
        self.assertEqual(self.held(), [])

    def test_hung_up(self) -> None:
        """A client that hangs up undoes nothing."""
        removal = self.remove()
        removal.addErrback(lambda _: None)
        removal.cancel()
        self.take("remove_job").answer.callback(None)
        self.assertEqual(self.known(), [])

    def test_id_of_the_workers_own(self) -> None:
        """The worker is called with the id that it knows the job by."""
        self.add(a_job("j-2", JobState.SUCCEEDED, remote_id="r"))
        self.cluster.remove("j-2")
        self.assertEqual(self.take("remove_job").args, ("r",))

    def test_not_now(self) -> None:
        """A worker that can't remove a job now is asked again, one call at a time."""
        for error in (Unreachable("w-1"), DeadlineExceeded("remove", 10.0), Unavailable("busy"), Busy("calls", 4)):
            removal = self.remove()
            self.take("remove_job").answer.errback(error)
            self.assertFalse(self.successResultOf(removal))
        self.online()
        self.online()
        call = self.take("remove_job")
        self.assertEqual(self.held(), [])
        call.answer.errback(Unreachable("w-1"))
        self.add(a_worker(), online=False)
        self.assertEqual(self.held(), [])
        self.online()
        self.take("remove_job").answer.callback(None)
        self.assertEqual(self.known(), [])

    def remove_two_later(self) -> None:
        """The removals of two jobs wait for their worker, which is back now."""
        self.add(a_job("j-2", JobState.SUCCEEDED, created_at=1001.0))
        self.add(a_worker(), online=False)
        for job_id in ("j-1", "j-2"):
            self.assertFalse(self.successResultOf(self.cluster.remove(job_id)))
        self.online()

    def test_one_that_fails_holds_up_no_other(self) -> None:
        """A fault about one job is none about the others; it is told to who asks, and tried again."""
        self.remove_two_later()
        self.take("remove_job").answer.errback(WorkerFault("w-1", "what"))
        self.take("remove_job").answer.callback(None)
        self.assertEqual(self.known(), ["j-1"])
        removal = self.remove()
        self.take("remove_job").answer.errback(WorkerFault("w-1", "what"))
        self.failureResultOf(removal, WorkerFault)
        self.online()
        self.take("remove_job").answer.callback(None)
        self.assertEqual(self.known(), [])

    def test_one_that_stays_holds_up_no_other(self) -> None:
        """A job that its worker can't remove is asked for again, and the others at once."""
        self.remove_two_later()
        for _ in range(2):
            self.assertEqual(self.held()[0].args, ("j-1",))
            self.take("remove_job").answer.errback(Unavailable("job 'j-1' can't be removed: not permitted"))
            if "j-2" in self.known():
                self.take("remove_job").answer.callback(None)
            self.assertEqual(self.known(), ["j-1"])
            self.online()

    def test_worker_of_an_earlier_version(self) -> None:
        """A worker that can't be told keeps the output as long as any other; the job goes all the same."""
        removal = self.remove()
        self.take("remove_job").answer.errback(Unsupported("w-1", "RemoveJob"))
        self.assertTrue(self.successResultOf(removal))
        self.assertEqual(self.known(), [])

    def test_worker_says_it_runs(self) -> None:
        """A job that its worker says runs stays, and is not removed later either."""
        removal = self.remove()
        self.take("remove_job").answer.errback(JobNotEnded("j-1", "running"))
        error = self.failureResultOf(removal, JobNotEnded).value
        self.assertEqual((error.job_id, error.state), ("j-1", "running"))
        self.assertIsNone(self.cluster.job("j-1").remove_requested_at)
        self.begin()
        self.online()
        self.assertEqual((self.known(), self.held()), (["j-1"], []))

    def test_while_its_start_is_under_way(self) -> None:
        """A job whose end a heartbeat told before its start was answered is removed after that answer."""
        submission = self.house.submit(ECHO, W1)
        start = self.take("start_job")
        job_id = start.args[0].id
        ended = JobStatus(job_id, JobState.SUCCEEDED, started_at=1000.0, finished_at=1000.5, exit_code=0)
        self.beat(ended=(JobReport(ended),))
        self.online()
        removal = self.cluster.remove(job_id)
        self.assertEqual(self.held(), [])
        start.answer.callback(ended)
        self.assertEqual(self.successResultOf(submission).id, job_id)
        self.take("remove_job").answer.callback(None)
        self.assertTrue(self.successResultOf(removal))


class FollowerTests(RemovalCase):
    def test_reading(self) -> None:
        """A reader that is served in pieces is cut where it is, and not asked for again."""
        reader = self.cluster.open_output("j-1", Stream.STDOUT, 0)
        first = reader.read()
        self.take("read_output").answer.callback(Chunk(b"he", 0, size=5))
        self.assertEqual(self.successResultOf(first).data, b"he")
        second = reader.read()
        self.removed_while_reading()
        self.failureResultOf(second, NotFound)
        self.failureResultOf(reader.read(), NotFound)

    def removed_while_reading(self) -> None:
        pull = self.take("read_output")
        removal = self.remove()
        self.take("remove_job").answer.callback(None)
        self.assertTrue(self.successResultOf(removal))
        self.settle()
        if not pull.answer.called:
            pull.answer.errback(OutputPruned("j-1"))
        self.settle()
