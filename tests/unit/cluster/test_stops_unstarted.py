"""Stops of jobs that are queued, or whose start has not been answered."""

from __future__ import annotations

from scheduler.errors import DeadlineExceeded, NotFound, Unreachable
from scheduler.messages import Heartbeat, JobReport, JobStatus
from scheduler.model import JobState, WorkerState
from tests.house import PEER
from tests.unit.cluster.case import ECHO, W1, ClusterTestCase
from tests.unit.cluster.stops_case import StopTestCase
from tests.unit.cluster.values import a_job


class StartingStopTests(ClusterTestCase):
    def test_while_starting(self) -> None:
        """A stop of a job that is starting is sent once the start was answered."""
        self.house.submit(ECHO, W1)
        start = self.take("start_job")
        job_id = self.only_job().id
        self.cluster.stop(job_id)
        self.assertEqual(self.held(), [])
        start.answer.callback(JobStatus(job_id, JobState.RUNNING))
        self.assertEqual(self.take("stop_job").args, (job_id,))


class UnstartedStopTests(StopTestCase):
    def test_queued(self) -> None:
        """A queued job is stopped at once, and nobody is called."""
        self.add(a_job("q", JobState.QUEUED, worker_id="w-9", target=None))
        job = self.successResultOf(self.cluster.stop("q"))
        self.assertEqual((job.state, job.reason), (JobState.STOPPED, "stopped before it was started"))
        self.assertEqual((job.stop_requested_at, job.finished_at), (1000.0, 1000.0))
        self.assertEqual(self.held(), [])

    def test_a_start_that_is_not_answered(self) -> None:
        """A job whose start is not answered is asked about first; one that came up is then stopped."""
        started = self.house.submit(ECHO, W1)
        start = self.take("start_job")
        job_id = next(job.id for job in self.jobs() if job.state is JobState.STARTING)
        answer = self.cluster.stop(job_id)
        self.assertEqual(self.cluster.job(job_id).stop_requested_at, 1000.0)
        self.worker_is(WorkerState.ONLINE)
        self.assertEqual(self.held(), [])  # the start is under way
        start.answer.errback(DeadlineExceeded("start", 10.0))
        self.failureResultOf(started)
        query = self.take("query_job")
        self.assertEqual(query.args, (job_id, True))
        query.answer.callback(JobStatus(job_id, JobState.RUNNING, started_at=990.0))
        self.take("stop_job").answer.callback(None)
        self.assertNoResult(answer)
        ended = JobStatus(job_id, JobState.STOPPED, "signal: terminated", finished_at=1001.0)
        self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", "boot", ("j-1",), (JobReport(ended),)), PEER))
        self.settle()
        self.assertIs(self.successResultOf(answer).state, JobState.STOPPED)

    def test_a_start_that_never_arrived(self) -> None:
        """A start that never arrived is sealed, so that it never does, and the job is stopped."""
        self.add(a_job("u", JobState.UNKNOWN))
        answer = self.cluster.stop("u")
        self.take("query_job").answer.errback(NotFound("job", "u"))
        job = self.successResultOf(answer)
        self.assertEqual((job.state, job.reason), (JobState.STOPPED, "stopped before it was started"))

    def test_a_start_nobody_can_be_asked_about(self) -> None:
        """A job whose worker can't be reached is stopped later."""
        self.add(a_job("u", JobState.UNKNOWN))
        answer = self.cluster.stop("u")
        self.take("query_job").answer.errback(DeadlineExceeded("query", 10.0))
        self.assertIs(self.successResultOf(answer).state, JobState.UNKNOWN)
        self.worker_is(WorkerState.ONLINE)
        self.take("query_job")

    def test_a_start_that_was_never_sent(self) -> None:
        """A job whose start never left is none, and so can't be stopped."""
        self.house.submit(ECHO, W1).addErrback(lambda _: None)
        start = self.take("start_job")
        answer = self.cluster.stop(next(job.id for job in self.jobs() if job.state is JobState.STARTING))
        start.answer.errback(Unreachable("w-1"))
        self.failureResultOf(answer, NotFound)
