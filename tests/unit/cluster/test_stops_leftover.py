"""Stops of jobs that left processes behind."""

from __future__ import annotations

from scheduler.cluster import lifecycle
from scheduler.errors import DeadlineExceeded, LeftRunning, NotFound, Unsupported
from scheduler.messages import JobStatus
from scheduler.model import JobState
from tests.unit.cluster.case import ClusterTestCase
from tests.unit.cluster.values import a_job, a_worker


class LeftoverStopTests(ClusterTestCase):
    def test_what_is_left_is_looked_at(self) -> None:
        """Left processes are shown until the worker says that they are gone; one that can't tell changes nothing."""
        self.add(a_job(state=JobState.STOPPED, leftover=(12, 13), remote_id="r"))
        for answer, left, text in (
            (JobStatus("r", JobState.STOPPED, leftover=(13,)), (13,), "1 process could not be ended: 13"),
            (None, (12, 13), "2 processes could not be ended: 12, 13"),
            (JobStatus("r", JobState.RUNNING), (12, 13), "2 processes could not be ended: 12, 13"),
            (NotFound("job", "r"), (12, 13), "12, 13, as seen at its end (its worker no longer keeps the job)"),
            (DeadlineExceeded("stop", 10.0), (12, 13), "as seen at its end"),
            (Unsupported("w-1", "StopJob"), (12, 13), "as seen at its end"),
        ):
            stop = self.cluster.stop("j-1")
            call = self.take("stop_job")
            self.assertEqual(call.args, ("r",))
            (call.answer.errback if isinstance(answer, Exception) else call.answer.callback)(answer)
            error = self.failureResultOf(stop, LeftRunning).value
            self.assertEqual((error.job_id, error.leftover), ("j-1", left))
            self.assertIn(text, error.reason)
        self.add(a_worker(), online=False)
        error = self.failureResultOf(self.cluster.stop("j-1"), LeftRunning).value
        self.assertEqual((error.leftover, self.held()), ((12, 13), []))
        self.add(a_worker())
        stop = self.cluster.stop("j-1")
        self.take("stop_job").answer.callback(JobStatus("r", JobState.STOPPED))
        self.assertEqual(self.successResultOf(stop), self.cluster.job("j-1"))

    def test_a_hundred_are_left(self) -> None:
        """No more than a hundred are named, and that there may be more is said."""
        self.assertIn("at least 100 processes could", lifecycle.leftover_text(tuple(range(1, 101))))
