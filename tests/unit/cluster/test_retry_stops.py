"""Stops of jobs that have, or may get, another attempt."""

from __future__ import annotations

from scheduler.cluster.jobs.stops import STOP_MARGIN_SECONDS
from scheduler.errors import DeadlineExceeded, StoreFailed
from scheduler.messages import JobStatus
from scheduler.model import JobState, Ref
from scheduler.views import JobFilter
from tests.unit.cluster.retry_case import FULL, RetryTestCase
from tests.unit.cluster.values import a_worker


class StopTests(RetryTestCase):
    """A stop of any attempt ends the chain, whatever goes on meanwhile."""

    def setUp(self) -> None:
        super().setUp()
        self.job = self.begin_job()

    def assert_over(self) -> None:
        """Nothing runs, and nothing more will."""
        self.clock.pump([60.0] * 10)
        self.assertEqual(self.held(), [])
        self.assertEqual([job for job in self.jobs() if not job.over], [])
        self.assertLessEqual(len(self.jobs()), 2)

    def test_while_the_end_is_saved(self) -> None:
        """A stop that comes while the end, and the next attempt with it, are being saved stops that one."""
        self.store.held = True
        self.end(self.job)
        answer = self.cluster.stop(self.job.id)
        self.assertNoResult(answer)
        self.assertIs(self.cluster.job(self.job.id).state, JobState.RUNNING)
        self.store.commit_all()
        self.assertIs(self.successResultOf(answer).state, JobState.FAILED)
        self.assertIs(self.cluster.job(self.next(self.job).id).state, JobState.STOPPED)
        self.assert_over()

    def test_while_the_end_can_not_be_saved(self) -> None:
        """A stop waits for an end that could not be saved, and then stops the next attempt."""
        self.store.held = True
        self.end(self.job)
        answer = self.cluster.stop(self.job.id)
        self.store.fail_all()
        self.assertNoResult(answer)
        self.assertIsNone(self.following(self.job))
        self.store.held = False
        self.clock.advance(1)
        self.assertIs(self.successResultOf(answer).state, JobState.FAILED)
        self.assertIs(self.cluster.job(self.next(self.job).id).state, JobState.STOPPED)

    def test_while_the_end_can_not_be_saved_for_long(self) -> None:
        """Then the stop is not promised, and the next attempt comes when the store works."""
        self.store.held = True
        self.end(self.job)
        answer = self.cluster.stop(self.job.id)
        self.store.fail_all()
        self.clock.pump([1.0] * int(FULL.stop_grace + STOP_MARGIN_SECONDS - 1))
        self.assertNoResult(answer)
        self.clock.advance(1)
        self.failureResultOf(answer, StoreFailed)
        self.store.held = False
        self.store.commit_all()
        self.assertIs(self.cluster.job(self.next(self.job).id).state, JobState.QUEUED)

    def test_before_the_end(self) -> None:
        """A job that was asked to stop and then fails by itself has no next attempt, even after a restart."""
        self.add(a_worker(), online=False)
        self.assertFalse(self.successResultOf(self.cluster.stop(self.job.id)).over)
        self.begin()
        self.end(self.job)
        self.assert_over()

    def test_while_the_next_one_starts(self) -> None:
        """A starting attempt is stopped once its start is answered; if it could not start, none follows it."""
        for status, stops in ((JobState.FAILED, 0), (JobState.RUNNING, 1)):
            self.end(self.job)
            self.clock.advance(60)
            self.settle()
            following = self.next(self.job)
            self.assertIs(self.cluster.job(following.id).state, JobState.STARTING)
            answer = self.cluster.stop(self.job.id)
            self.assertIsNotNone(self.cluster.job(following.id).stop_requested_at)
            self.take("start_job").answer.callback(JobStatus(following.id, status, started_at=1000.0))
            for _ in range(stops):
                call = self.take("stop_job")
                self.assertEqual(call.args, (following.id,))
                call.answer.callback(None)
                self.end(following)
            self.assertEqual(self.successResultOf(answer).retried_by, following.id)
            self.assertIsNone(self.following(following))
            self.job = self.begin_job()

    def test_while_the_next_one_is_committed(self) -> None:
        """An attempt whose start is being committed is not started."""
        self.end(self.job)
        self.store.held = True
        self.clock.advance(60)
        self.settle()
        answer = self.cluster.stop(self.job.id)
        self.store.commit_all()
        self.successResultOf(answer)
        self.assertIs(self.cluster.job(self.next(self.job).id).state, JobState.STOPPED)
        self.store.held = False
        self.assert_over()

    def test_of_the_last(self) -> None:
        """The last one of a chain that is over is answered as it is, and so is one whose next is kept no more."""
        self.end(self.job, stop_requested_at=1000.0)
        ended = self.cluster.job(self.job.id)
        self.assertEqual(self.successResultOf(self.cluster.stop(self.job.id)), ended)
        job = self.begin_job()
        self.end(job)
        following = self.next(job)
        self.successResultOf(self.cluster.stop(following.id))
        self.ledger.learn(Ref("job", following.id))
        self.assertEqual(self.successResultOf(self.cluster.stop(job.id)), self.cluster.job(job.id))
        self.assertEqual(self.cluster.last_attempt(job.id), self.cluster.job(job.id))

    def test_not_in_time(self) -> None:
        """An error about the last attempt, which did not stop in time, names that attempt."""
        self.end(self.job)
        self.clock.advance(60)
        self.settle()
        following = self.next(self.job)
        self.run_it(following)
        answer = self.cluster.stop(self.job.id)
        self.take("stop_job").answer.callback(None)
        self.clock.advance(FULL.stop_grace + STOP_MARGIN_SECONDS)
        self.assertEqual(self.failureResultOf(answer, DeadlineExceeded).value.job_id, following.id)

    def test_matching_while_the_end_is_saved(self) -> None:
        """To stop all that match is answered with what was stopped."""
        self.store.held = True
        self.end(self.job)
        answer = self.cluster.stop_matching(JobFilter(states=frozenset({JobState.RUNNING})))
        self.store.commit_all()
        (stopped,) = self.successResultOf(answer)
        self.assertEqual((stopped.retry_of, stopped.state), (self.job.id, JobState.STOPPED))
