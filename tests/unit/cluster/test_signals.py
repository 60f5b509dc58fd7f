"""Signals to jobs: those that run, those that do not, and those in between."""

from __future__ import annotations

from scheduler.errors import Conflict, DeadlineExceeded, JobNotRunning, NotFound, Unreachable, Unsupported
from scheduler.messages import JobStatus
from scheduler.model import JobState
from scheduler.terms import NO_WAITING, QueueTerms, Target
from tests.fleet import FleetTestCase
from tests.unit.cluster.case import ECHO, W1, ClusterTestCase
from tests.unit.cluster.values import a_job


class SignalTests(ClusterTestCase):
    def test_while_starting(self) -> None:
        """A signal to a job that is starting is sent once the start was answered."""
        self.house.submit(ECHO, W1)
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
        self.house.submit(ECHO, W1).addErrback(lambda reason: reason.trap(Unreachable))
        start, job = self.take("start_job"), self.only_job()
        answer = self.cluster.signal(job.id, "SIGUSR1", "main")
        start.answer.errback(Unreachable("w-1"))
        self.failureResultOf(answer, NotFound)
        self.house.submit(ECHO, W1)
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


class SignallingTests(FleetTestCase):
    def test_running(self) -> None:
        """A job that runs gets it, once, and nothing else changes."""
        job = self.submit()
        self.assertIsNone(self.successResultOf(self.scheduler.signal(job.id, "SIGUSR1", "main")))
        self.assertIsNone(self.successResultOf(self.scheduler.signal(job.id, "SIGHUP", "tree")))
        self.assertEqual(self.fleet.signals(), [(job.id, "SIGUSR1", "main"), (job.id, "SIGHUP", "tree")])
        self.assertEqual(self.scheduler.job(job.id), job)

    def test_killed(self) -> None:
        """A job that it ends has failed, and names it: nobody asked it to stop."""
        job = self.submit()
        self.successResultOf(self.scheduler.signal(job.id, "SIGKILL", "main"))
        job = self.scheduler.job(job.id)
        self.assertEqual((job.state, job.reason, job.signal), (JobState.FAILED, "signal: killed", "SIGKILL"))
        self.assertIsNone(job.stop_requested_at)

    def test_not_running(self) -> None:
        """A job that has ended, or is queued, gets none; one that never was is not found."""
        ended = self.ended(3)
        self.fleet.lose("w1")
        queued = self.successResultOf(self.house.submit(ECHO, Target(worker="w1"), QueueTerms(queue_timeout=60.0)))
        for job, state in ((ended, "failed"), (queued, "queued")):
            error = self.refusal(JobNotRunning, self.scheduler.signal, job.id, "SIGUSR1", "main")
            self.assertEqual((error.job_id, error.state), (job.id, state))
        self.refusal(NotFound, self.scheduler.signal, "nothing", "SIGUSR1", "main")
        self.assertEqual(self.fleet.signals(), [])

    def test_unreachable(self) -> None:
        """While its worker can't be reached nothing is sent, then or later."""
        job = self.submit()
        self.fleet.lose("w1")
        self.assertEqual(self.refusal(Unreachable, self.scheduler.signal, job.id, "SIGUSR1", "main").name, "w1")
        self.fleet.find("w1")
        self.flow()
        self.assertEqual(self.fleet.signals(), [])
        self.successResultOf(self.scheduler.signal(job.id, "SIGUSR1", "main"))

    def test_out_of_reach_at_the_call(self) -> None:
        """So it is where that shows at the call."""
        job = self.submit()
        self.house.vanish("id-w1")
        self.refusal(Unreachable, self.scheduler.signal, job.id, "SIGUSR1", "main")

    def test_unanswered(self) -> None:
        """A signal whose answer was lost may have arrived: the error says so with the job; it is not sent again."""
        job = self.submit()
        self.house.workers.fail("signal_job", DeadlineExceeded("signal", 10), arrives=True)
        error = self.refusal(DeadlineExceeded, self.scheduler.signal, job.id, "SIGUSR1", "main")
        self.assertEqual(error.job_id, job.id)
        self.flow()
        self.assertEqual(self.fleet.signals(), [(job.id, "SIGUSR1", "main")])

    def test_not_permitted(self) -> None:
        """Where processes may not be signalled, that is said."""
        job = self.submit()
        self.fleet.leave(job.id, 123)
        self.assertIn("can't be sent", str(self.refusal(Conflict, self.scheduler.signal, job.id, "SIGUSR1", "tree")))

    def test_core_worker(self) -> None:
        self.fleet.add_worker("old", core=True)
        job = self.successResultOf(self.house.submit(ECHO, Target(worker="old"), NO_WAITING))
        error = self.refusal(Unsupported, self.scheduler.signal, job.id, "SIGUSR1", "main")
        self.assertEqual(error.worker, "old")

    def test_orphan(self) -> None:
        """A lost job that its worker turned out to run can be signalled."""
        job = self.submit()
        self.fleet.lose("w1")
        self.successResultOf(self.scheduler.forget("w1"))
        self.fleet.come_back("w1")
        self.assertTrue(self.scheduler.job(job.id).orphan)
        self.successResultOf(self.scheduler.signal(job.id, "SIGUSR1", "main"))
        self.assertEqual(self.fleet.signals(), [(job.id, "SIGUSR1", "main")])
