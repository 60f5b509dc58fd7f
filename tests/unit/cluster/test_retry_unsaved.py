"""The next attempt of a job while the store fails."""

from __future__ import annotations

from attrs import evolve

from scheduler.cluster.jobs.queue import SWEEP_INTERVAL_SECONDS
from scheduler.errors import StoreFailed, Unavailable
from scheduler.model import Job, JobState
from tests.unit.cluster.retry_case import RetryTestCase


class UnsavedRetryTests(RetryTestCase):
    def test_store_fails_at_its_only_chance(self) -> None:
        """An attempt that must start at once, and whose start can't be committed, does when the store works."""
        following = self.due_while_the_store_fails()
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 10)
        self.assert_starts_later(following)

    def test_store_fails_as_it_becomes_due(self) -> None:
        """So it does where the failure of the store is not known before that commit."""
        self.assert_starts_later(self.due_while_the_store_fails(known=False))

    def test_refused_while_the_store_fails(self) -> None:
        """The end of one that its worker refused is decided when that can be saved; until then it is queued."""
        following = self.next_attempt()
        self.clock.advance(60)
        self.store.problem = "disk full"
        self.take("start_job").answer.errback(Unavailable("no more processes"))
        self.settle()
        self.assertIs(self.cluster.job(following.id).state, JobState.QUEUED)
        self.store.problem = ""
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 6)
        self.take("start_job").answer.errback(Unavailable("no more processes"))
        self.settle()
        self.assertEqual(self.cluster.job(following.id).reason, "no more processes")

    def assert_starts_later(self, following: Job) -> None:
        """The attempt is queued while the store fails, and is started when the store works."""
        self.assertEqual((self.cluster.job(following.id).state, self.held()), (JobState.QUEUED, []))
        self.store.problem = ""
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 6)
        self.assertEqual(self.take("start_job").args[0].id, following.id)

    def due_while_the_store_fails(self, known: bool = True) -> Job:
        """The next attempt, whose time has come; whether it is ``known`` by then that nothing can be saved."""
        following = self.next_attempt()
        self.clock.advance(50)
        self.store.problem = "disk full"
        if known:
            self.ledger.learn(evolve(following, reason="x")).addErrback(lambda reason: reason.trap(StoreFailed))
        self.clock.advance(10)
        self.settle()
        return following
