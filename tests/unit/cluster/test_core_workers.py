"""Jobs on core workers: what follows from the answers, the faults and the silence of programs of others."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from scheduler.errors import AnswerUnreadable, SchedulerError, StartUnanswered, WorkerFault
from scheduler.model import Job, JobState, Target
from tests.unit.cluster.case import ECHO, ClusterTestCase
from tests.unit.cluster.values import a_worker

CORE = Target(worker="core")


class CoreCase(ClusterTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.add(a_worker("core", boot_id="", slots=None))

    def submit(self) -> Deferred[Job]:
        return self.cluster.submit(ECHO, CORE)

    def refused(self, error: SchedulerError) -> Deferred[Job]:
        """A start that the worker answers with that error."""
        submitted = self.submit()
        self.take("start_job").answer.errback(error)
        self.settle()
        return submitted


class FaultTests(CoreCase):
    def test_fault(self) -> None:
        """A start that is answered with a fault is a job that has failed, with the worker's words."""
        job = self.successResultOf(self.refused(WorkerFault("core", "no such image")))
        self.assertIs(job.state, JobState.FAILED)
        self.assertEqual(job.reason, "worker 'core' answered with a fault: no such image")

    def test_unreadable(self) -> None:
        """One whose answer can't be read may run: the job is unknown, and is not started again."""
        refused = self.refused(AnswerUnreadable("core", "Received message larger than max"))
        error = self.failureResultOf(refused, StartUnanswered).value
        self.assertIn("Received message larger than max", str(error))
        job = self.only_job()
        self.assertEqual((error.job_id, job.state), (job.id, JobState.UNKNOWN))
        self.assertEqual(self.held(), [])
