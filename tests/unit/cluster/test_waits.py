from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.changes import ChangeFeed, JobChanged
from scheduler.cluster.registry import Registry
from scheduler.cluster.waits import Waits
from scheduler.errors import NotFound
from scheduler.model import Job, JobState
from tests.unit.cluster.values import a_job


class WaitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.registry = Clock(), Registry()
        self.feed = ChangeFeed(self.clock)
        self.waits = Waits(self.clock, self.registry, self.feed)
        self.put(a_job())
        self.clock.advance(0)

    def put(self, job: Job) -> None:
        before = self.registry.jobs.find(job.id)
        self.registry.put_job(job)
        self.feed.publish(JobChanged(before, job))

    def test_the_end(self) -> None:
        """All who wait for a job get it at its end, and at once when it has ended."""
        waits = [self.waits.until_ended("j-1", 30), self.waits.until_over("j-1", 60)]
        self.put(ended := a_job(state=JobState.FAILED))
        self.clock.advance(0)
        waits.append(self.waits.until_ended("j-1", 30))
        self.assertEqual([self.successResultOf(wait) for wait in waits], [ended] * 3)
        self.assertEqual((self.clock.getDelayedCalls(), self.feed.idle), ([], True))

    def test_no_longer(self) -> None:
        """After its time a wait answers the job as it is."""
        wait = self.waits.until_ended("j-1", 30)
        self.put(a_job(state=JobState.UNKNOWN))
        self.clock.advance(29)
        self.assertNoResult(wait)
        self.clock.advance(1)
        self.assertIs(self.successResultOf(wait).state, JobState.UNKNOWN)
        self.assertTrue(self.feed.idle)

    def test_given_up(self) -> None:
        """Cancelling a wait frees its timer and disturbs no other."""
        first, second = self.waits.until_ended("j-1", 30), self.waits.until_ended("j-1", 30)
        first.addErrback(lambda _: None).cancel()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.put(a_job(state=JobState.SUCCEEDED))
        self.clock.advance(0)
        self.assertIs(self.successResultOf(second).state, JobState.SUCCEEDED)

    def test_over(self) -> None:
        """An orphan has ended and is not over: a wait until it is does not take an end from before it was one."""
        self.put(lost := a_job(state=JobState.LOST))
        self.put(a_job(state=JobState.LOST, orphan=True))
        wait = self.waits.until_over("j-1", 30)
        self.clock.advance(0)
        self.assertNoResult(wait)
        self.put(lost)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(wait), lost)

    def test_gone(self) -> None:
        """A job that is gone is answered as it was last."""
        wait = self.waits.until_ended("j-1", 30)
        self.registry.remove_job("j-1")
        self.feed.publish(JobChanged(a_job(), None))
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(wait), a_job())

    def test_nothing(self) -> None:
        """There is no waiting for a job that is not there."""
        self.assertRaises(NotFound, self.waits.until_ended, "j-9", 30)
