"""Stops of jobs that run, and of all jobs that match."""

from __future__ import annotations

from scheduler.cluster.jobs.stops import STOP_MARGIN_SECONDS, STOP_WAIT_MAX_SECONDS
from scheduler.errors import DeadlineExceeded, NotFound
from scheduler.messages import Heartbeat, JobReport, JobStatus
from scheduler.model import JobSpec, JobState
from scheduler.views import JobFilter
from scheduler.worker.shim import phases
from tests.house import PEER
from tests.unit.cluster.case import ClusterTestCase, call_or_fail
from tests.unit.cluster.values import a_job, a_worker


class StopTests(ClusterTestCase):
    def end(self, state: JobState) -> None:
        ended = JobStatus("j-1", state, "signal: terminated", finished_at=1001.0, signal="SIGTERM")
        heartbeat = Heartbeat("w-1", "boot", ended=(JobReport(ended),))
        self.successResultOf(self.membership.heartbeat(heartbeat, PEER))
        self.settle()

    def test_stop_waits_for_the_end(self) -> None:
        """A stop is answered once the end of the job has been reported."""
        self.add(a_job())
        answer = self.cluster.stop("j-1")
        self.take("stop_job").answer.callback(None)
        self.assertNoResult(answer)
        self.assertEqual(self.cluster.job("j-1").stop_requested_at, 1000.0)
        self.end(JobState.STOPPED)
        self.assertIs(self.successResultOf(answer).state, JobState.STOPPED)

    def test_no_end_in_time(self) -> None:
        """A stop whose job has not ended within its grace and a margin is not called one."""
        self.add(a_job(spec=JobSpec(command="x", stop_grace=3.0)))
        answer = self.cluster.stop("j-1")
        self.take("stop_job").answer.callback(None)
        self.clock.advance(3.0 + STOP_MARGIN_SECONDS)
        self.failureResultOf(answer, DeadlineExceeded)

    def test_the_margin(self) -> None:
        """The margin is longer than a shim waits for killed processes, so its report comes in time."""
        self.assertGreaterEqual(STOP_MARGIN_SECONDS, phases.KILL_WAIT_MAX_SECONDS + 2.0)

    def test_a_long_grace(self) -> None:
        """A stop that was delivered, of a job with much time to end, is answered with the job as it is."""
        self.add(a_job(spec=JobSpec(command="x", stop_grace=600.0)))
        answer = self.cluster.stop("j-1")
        self.take("stop_job").answer.callback(None)
        self.clock.advance(STOP_WAIT_MAX_SECONDS - 1)
        self.assertNoResult(answer)
        self.clock.advance(1)
        job = self.successResultOf(answer)
        self.assertEqual((job.state, job.stop_requested_at), (JobState.RUNNING, 1000.0))

    def test_ended_already(self) -> None:
        """A stop of an ended job asks nothing of the worker."""
        self.add(a_job(state=JobState.SUCCEEDED))
        self.assertIs(self.successResultOf(self.cluster.stop("j-1", "w-1")).state, JobState.SUCCEEDED)
        self.assertEqual(self.held(), [])

    def test_no_record(self) -> None:
        """A job its worker does not know is lost, which is an end."""
        self.add(a_job())
        answer = self.cluster.stop("j-1")
        self.take("stop_job").answer.errback(NotFound("job", "j-1"))
        self.assertIs(self.successResultOf(answer).state, JobState.LOST)

    def test_of_another_worker(self) -> None:
        """A stop that names the wrong worker stops nothing."""
        self.add(a_job(), a_worker("w-2"))
        self.failureResultOf(call_or_fail(self.cluster.stop, "j-1", "w-2"), NotFound)
        self.assertEqual(self.held(), [])

    def test_matching(self) -> None:
        """All that match are stopped; one that can't be is answered as it is."""
        self.add(a_worker("w-2"), online=False)
        self.add(a_job(), a_job("j-2", JobState.UNKNOWN, "w-2"), a_job("j-3", JobState.FAILED))
        answer = self.cluster.stop_matching(JobFilter())
        self.take("stop_job").answer.callback(None)
        self.end(JobState.STOPPED)
        stopped = {job.id: (job.state, job.stop_requested_at) for job in self.successResultOf(answer)}
        self.assertEqual(stopped, {"j-1": (JobState.STOPPED, 1000.0), "j-2": (JobState.UNKNOWN, 1000.0)})

    def test_matching_has_its_time(self) -> None:
        """Stopping many is answered within a minute, whatever some of them take."""
        self.add(a_job(spec=JobSpec(command="x", stop_grace=600.0)), a_job("j-2"))
        answer = self.cluster.stop_matching(JobFilter())
        self.clock.advance(STOP_WAIT_MAX_SECONDS)
        self.assertEqual({job.state for job in self.successResultOf(answer)}, {JobState.RUNNING})
