"""Signals that a client sends to a job, as clients see them."""

from __future__ import annotations

from scheduler.errors import Conflict, DeadlineExceeded, JobNotRunning, NotFound, Unreachable, Unsupported
from scheduler.model import NO_WAITING, JobState, QueueTerms, Target
from tests.fleet import W1, FleetTestCase
from tests.house import ECHO


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
        queued = self.successResultOf(self.scheduler.submit(ECHO, W1, QueueTerms(queue_timeout=60.0)))
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
        """One whose answer was lost may have arrived: that is said, with the job, and it is not sent again."""
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
        """A core worker can't do it."""
        self.fleet.add_worker("old", core=True)
        job = self.successResultOf(self.scheduler.submit(ECHO, Target(worker="old"), NO_WAITING))
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
