"""Attempts of one job that end while the end of another is being saved."""

from __future__ import annotations

from attrs import evolve

from scheduler.cluster.lifecycle import next_attempt
from scheduler.model import JobState
from scheduler.terms import QueueTerms, Retry, Target
from tests.unit.cluster.ledger_case import LedgerCase
from tests.unit.cluster.values import a_job, a_removal


class ToldAttemptsTests(LedgerCase):
    """A worker tells of the next attempt of a job while the end of one of the two is being saved."""

    def setUp(self) -> None:
        super().setUp()
        self.make_ledger()
        terms = QueueTerms(queue_timeout=60.0, retry=Retry(attempts=2))
        self.job = a_job(target=Target(selector={}), terms=terms, started_at=900.0)
        self.add(self.job)
        self.failed = evolve(self.job, state=JobState.FAILED, reason="exit status 1", exit_code=1, finished_at=999.0)
        following = next_attempt(self.failed, 1000.0)
        assert following is not None
        self.told = a_job(following.id, JobState.FAILED, worker_id="w-2", exit_code=1, finished_at=1000.0)
        last = next_attempt(evolve(following, state=JobState.FAILED), 1000.0)
        assert last is not None
        self.last = last.id

    def commit_all(self) -> None:
        self.store.commit_all()

    def chain(self) -> list[tuple[str, JobState]]:
        """All attempts in the registry, which must be as in the store."""
        known = list(self.ledger.registry.jobs.attempts("j-1"))
        stored = {job.id: job for job in self.store.holding().jobs}
        self.assertEqual([stored[job.id].state for job in known], [job.state for job in known])
        return [(job.id, job.state) for job in known]

    def test_attempt_first(self) -> None:
        """The end of the job before it is told again, and nothing makes the attempt a queued job again."""
        self.ledger.learn(self.told)
        self.ledger.learn(self.failed)
        self.commit_all()
        self.assertIs(self.ledger.registry.jobs.get("j-1").state, JobState.RUNNING)
        self.assertIs(self.store.holding().jobs[-1].state, JobState.FAILED)
        self.ledger.learn(self.failed)
        self.commit_all()
        ids = ("j-1", self.told.id, self.last)
        self.assertEqual(self.chain(), list(zip(ids, [JobState.FAILED, JobState.FAILED, JobState.QUEUED], strict=True)))

    def test_attempt_last(self) -> None:
        """The job becomes that attempt, and is never seen as queued."""
        self.ledger.learn(self.failed)
        self.ledger.learn(self.told)
        self.commit_all()
        ids = ("j-1", self.told.id, self.last)
        self.assertEqual(self.chain(), list(zip(ids, [JobState.FAILED, JobState.FAILED, JobState.QUEUED], strict=True)))
        self.clock.advance(0)
        self.assertNotIn((self.told.id, JobState.QUEUED), self.seen)

    def test_attempt_that_was_removed(self) -> None:
        """An attempt that a client removed is not made again."""
        self.end(self.told)
        removed = self.ledger.decide(*a_removal(self.told.id))
        self.store.commit()
        self.successResultOf(removed)
        self.end(self.failed)
        self.assertIsNone(self.ledger.registry.jobs.find(self.told.id))
