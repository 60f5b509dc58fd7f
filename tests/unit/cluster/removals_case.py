"""An ended job ``j-1`` on worker ``w-1``, for the tests of removals."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from scheduler.cluster.build import RETRY_INTERVAL_SECONDS
from scheduler.messages import Heartbeat, HeartbeatAnswer, JobReport, JobStatus
from scheduler.model import Job, JobSpec, JobState
from scheduler.views import JobFilter
from tests.house import PEER
from tests.unit.cluster.case import ClusterTestCase
from tests.unit.cluster.values import a_job, a_worker

#: What the worker of the job says of it.
ENDED = JobReport(JobStatus("j-1", JobState.SUCCEEDED, started_at=900.0, finished_at=1001.0, exit_code=0))
RUNNING = JobReport(JobStatus("j-1", JobState.RUNNING, started_at=900.0), JobSpec(command="true"), 900.0)


class RemovalCase(ClusterTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.add(a_job(state=JobState.SUCCEEDED))

    def known(self) -> list[str]:
        """Ids of the jobs that clients see."""
        return [job.id for job in self.cluster.jobs(JobFilter(), 10, None).jobs]

    def stored(self) -> Job | None:
        """The job as it is durable."""
        jobs = {job.id: job for job in self.successResultOf(self.store.load()).jobs}
        return jobs.get("j-1")

    def remove(self) -> Deferred[bool]:
        return self.cluster.remove("j-1")

    def removed(self) -> None:
        """Remove it, all the way."""
        removal = self.remove()
        self.take("remove_job").answer.callback(None)
        self.assertTrue(self.successResultOf(removal))
        self.assertEqual(self.known(), [])

    def beat(self, **facts: object) -> HeartbeatAnswer:
        return self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", "boot", **facts), PEER))

    def online(self) -> None:
        """The worker is back, and it is time to try again."""
        self.add(a_worker())
        self.clock.advance(RETRY_INTERVAL_SECONDS)
        self.settle()
