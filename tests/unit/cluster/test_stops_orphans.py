"""Stops of orphans: jobs that are lost, and run."""

from __future__ import annotations

from scheduler.cluster.jobs.stops import STOP_WAIT_MAX_SECONDS
from scheduler.errors import LeftRunning, NotFound
from scheduler.messages import Heartbeat, JobReport, JobStatus
from scheduler.model import JobState
from scheduler.views import JobFilter
from tests.house import PEER
from tests.unit.cluster.case import ClusterTestCase
from tests.unit.cluster.values import a_job, a_worker


class OrphanStopTests(ClusterTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.add(a_job(state=JobState.LOST, reason="forgotten", orphan=True))

    def end(self) -> None:
        ended = JobStatus("j-1", JobState.STOPPED, "signal: terminated", finished_at=1001.0)
        answer = self.successResultOf(
            self.membership.heartbeat(Heartbeat("w-1", "boot", (), (JobReport(ended),)), PEER)
        )
        self.assertEqual(answer.acknowledged, ("j-1",))
        self.settle()

    def test_stop(self) -> None:
        """An orphan is stopped; that it is none any more is the end that is waited for."""
        answer = self.cluster.stop("j-1")
        self.take("stop_job").answer.callback(None)
        self.assertNoResult(answer)
        self.end()
        job = self.successResultOf(answer)
        self.assertEqual((job.state, job.reason, job.orphan), (JobState.LOST, "forgotten", False))

    def test_left_running(self) -> None:
        """The processes that an orphan leaves behind are shown, too."""
        answer = self.cluster.stop("j-1")
        self.take("stop_job").answer.callback(None)
        ended = JobStatus("j-1", JobState.STOPPED, finished_at=1001.0, leftover=(12,))
        self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", "boot", (), (JobReport(ended),)), PEER))
        self.assertNoResult(answer)
        self.take("stop_job").answer.callback(ended)  # it is asked whether they still run
        self.failureResultOf(answer, LeftRunning)
        job = self.cluster.job("j-1")
        self.assertEqual((job.state, job.orphan, job.leftover), (JobState.LOST, False, (12,)))

    def test_later(self) -> None:
        """The stop of an orphan is as durable as any."""
        self.add(a_worker(), online=False)
        self.assertFalse(self.successResultOf(self.cluster.stop("j-1")).over)
        self.add(a_worker())
        self.take("stop_job")

    def test_no_record(self) -> None:
        """A job that its worker does not know is no orphan."""
        answer = self.cluster.stop("j-1")
        self.take("stop_job").answer.errback(NotFound("job", "j-1"))
        self.assertTrue(self.successResultOf(answer).over)

    def test_matching(self) -> None:
        """Orphans are among the jobs that can be stopped together, and can be chosen."""
        self.add(a_job("j-2"), a_job("j-3", JobState.LOST))
        for which, ids in ((JobFilter(), {"j-1", "j-2"}), (JobFilter(orphan=True), {"j-1"})):
            answer = self.cluster.stop_matching(which)
            self.clock.advance(STOP_WAIT_MAX_SECONDS)
            self.assertEqual({job.id for job in self.successResultOf(answer)}, ids)
        self.workers.held.clear()
