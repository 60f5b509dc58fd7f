"""Signals that come while the job is in between states."""

from __future__ import annotations

from scheduler.errors import DeadlineExceeded, JobNotRunning, NotFound, Unreachable
from scheduler.messages import JobStatus
from scheduler.model import JobState
from tests.unit.cluster.case import ECHO, W1, ClusterTestCase
from tests.unit.cluster.values import a_job


class SignalTests(ClusterTestCase):
    def test_while_starting(self) -> None:
        """A signal to a job that is starting is sent once the start was answered."""
        self.cluster.submit(ECHO, W1)
        start, job = self.take("start_job"), self.only_job()
        answer = self.cluster.signal(job.id, "SIGUSR1", "main")
        self.assertEqual(self.held(), [])
        start.answer.callback(JobStatus(job.id, JobState.RUNNING, started_at=1000.5))
        call = self.take("signal_job")
        self.assertEqual(call.args, (job.id, "SIGUSR1", "main"))
        self.assertNoResult(answer)
        call.answer.callback(None)
        self.successResultOf(answer)

    def test_start_that_fails(self) -> None:
        """Where the start comes to nothing there is no job; where the job fails at once, none that runs."""
        self.cluster.submit(ECHO, W1).addErrback(lambda reason: reason.trap(Unreachable))
        start, job = self.take("start_job"), self.only_job()
        answer = self.cluster.signal(job.id, "SIGUSR1", "main")
        start.answer.errback(Unreachable("w-1"))
        self.failureResultOf(answer, NotFound)
        self.cluster.submit(ECHO, W1)
        start, job = self.take("start_job"), self.only_job()
        answer = self.cluster.signal(job.id, "SIGUSR1", "main")
        start.answer.callback(JobStatus(job.id, JobState.FAILED, "no such command"))
        self.failureResultOf(answer, JobNotRunning)

    def test_id_of_the_workers_own(self) -> None:
        """The worker is called with the id that it knows the job by."""
        self.add(a_job(remote_id="r"))
        self.cluster.signal("j-1", "SIGUSR1", "tree")
        self.assertEqual(self.take("signal_job").args, ("r", "SIGUSR1", "tree"))

    def test_no_record(self) -> None:
        """A job that its worker does not know does not run there; what became of it is found out elsewhere."""
        self.add(a_job())
        answer = self.cluster.signal("j-1", "SIGUSR1", "main")
        self.take("signal_job").answer.errback(NotFound("job", "j-1"))
        self.failureResultOf(answer, JobNotRunning)
        self.assertIs(self.cluster.job("j-1").state, JobState.RUNNING)

    def test_client_gone(self) -> None:
        """A client that hangs up undoes nothing."""
        self.add(a_job())
        answer = self.cluster.signal("j-1", "SIGUSR1", "main")
        answer.addErrback(lambda _: None)
        answer.cancel()
        self.take("signal_job").answer.errback(DeadlineExceeded("signal", 10.0))
