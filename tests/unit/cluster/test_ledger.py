from __future__ import annotations

from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.changes import Change, JobChanged, WorkerChanged
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.lifecycle import next_attempt
from scheduler.errors import StoreFailed
from scheduler.interfaces import JobFilter
from scheduler.model import IdempotencyKey, Job, JobSpec, JobState, QueueTerms, Ref, Retry, Target, WorkerState
from scheduler.store.memory import MemoryStore
from tests.doubles.store import ScriptedStore
from tests.unit.cluster.values import a_job, a_worker

A_KEY = IdempotencyKey("k", "f" * 64, "j-1")


class LedgerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = ScriptedStore()
        self.store.held = True
        self.seen: list[tuple[str, JobState]] = []
        self.make_ledger(keep_finished=2)

    def make_ledger(self, **limits: int) -> None:
        self.ledger = Ledger(self.clock, lambda: 1000.0, self.store, **limits)
        self.ledger.feed.subscribe(self.see)

    def see(self, change: Change) -> None:
        if isinstance(change, JobChanged):
            self.seen.append((change.last.id, change.last.state))

    def add(self, job: Job, key: IdempotencyKey | None = None) -> None:
        added = self.ledger.add_job(job, key)
        self.store.commit()
        self.successResultOf(added)
        self.clock.advance(0)

    def end(self, job: Job) -> None:
        ended = self.ledger.update_job(job)
        self.store.commit()
        self.successResultOf(ended)


class LedgerTests(LedgerCase):
    def test_a_new_job_is_invisible_until_committed(self) -> None:
        """Nobody sees a job that may yet be lost, but the load of its worker counts it."""
        added = self.ledger.add_job(a_job())
        self.assertNoResult(added)
        self.assertIsNone(self.ledger.registry.find_job("j-1"))
        self.assertEqual(self.ledger.registry.load("w-1"), 1)
        self.store.commit()
        self.successResultOf(added)
        self.assertEqual(self.ledger.registry.load("w-1"), 1)
        self.clock.advance(0)
        self.assertEqual(self.seen, [("j-1", JobState.RUNNING)])

    def test_a_failed_commit_drops_the_job(self) -> None:
        """A job whose commit failed has never been, even if its records got to the disk."""
        added = self.ledger.add_job(a_job(), A_KEY)
        self.store.fail()
        self.failureResultOf(added, StoreFailed)
        self.assertIsNone(self.ledger.registry.find_job("j-1"))
        self.assertEqual(self.ledger.registry.load("w-1"), 0)
        self.assertIn("disk full", self.ledger.store_problem)
        self.clock.advance(1)
        self.assertEqual(self.store.saves[0][0], [Ref("job", "j-1"), Ref("key", "k")])

    def test_a_queued_job_loads_nobody(self) -> None:
        """A job without a worker is committed and shown like any other, and counts into no load."""
        self.add(a_job(state=JobState.QUEUED, worker_id=None))
        self.assertIs(self.ledger.registry.job("j-1").state, JobState.QUEUED)
        self.assertEqual(self.ledger.registry.load("w-1"), 0)

    def test_a_key_comes_with_its_job(self) -> None:
        """Job and key go into one save, and are seen together once it is committed."""
        added = self.ledger.add_job(a_job(), A_KEY)
        self.assertEqual(self.store.saves[0][0], [a_job(), A_KEY])
        self.assertIsNone(self.ledger.registry.find_key("k"))
        self.store.commit()
        self.successResultOf(added)
        self.assertEqual(self.ledger.registry.find_key("k"), A_KEY)

    def test_a_key_learns_its_answer(self) -> None:
        """A changed key goes into the save of what changed its job; an unchanged one into none."""
        self.add(a_job(), A_KEY)
        answered = evolve(A_KEY, answer=a_job())
        for _ in range(2):
            self.ledger.update_jobs([a_job(stdout_bytes=3)], keys=[answered])
        self.assertEqual([records for records, _ in self.store.saves], [[a_job(stdout_bytes=3), answered], []])
        self.assertEqual(self.ledger.registry.find_key("k"), answered)

    def test_a_key_goes_with_its_job(self) -> None:
        """The key of a job that never came to be is free again, here and in the store."""
        self.add(a_job(), A_KEY)
        self.ledger.drop_job(a_job())
        self.assertEqual(self.store.saves[0][0], [Ref("job", "j-1"), Ref("key", "k")])
        self.assertIsNone(self.ledger.registry.find_key("k"))

    def test_an_end_is_invisible_until_committed(self) -> None:
        """Nobody sees an end that a crash could undo, nor the attempt that follows; and no other comes between."""
        self.add(job := a_job(target=Target("w-1"), terms=QueueTerms(retry=Retry(1))))
        self.ledger.update_job(evolve(job, state=JobState.FAILED))
        self.assertEqual(self.ledger.registry.find_job("j-1"), job)
        other = self.ledger.conclude_job(evolve(job, state=JobState.LOST))
        self.ledger.update_job(evolve(job, state=JobState.UNKNOWN))
        self.assertEqual(self.ledger.registry.find_job("j-1"), job)
        self.assertEqual([len(records) for records, _ in self.store.saves], [2, 0, 0])
        self.store.commit()
        self.assertIs(self.ledger.registry.job("j-1").state, JobState.FAILED)
        self.assertEqual([job.retry_of for job in self.ledger.registry.unfinished(None)], ["j-1"])
        self.assertNoResult(other)

    def test_an_end_that_is_not_committed(self) -> None:
        """If it can't be, one that was decided here is void; one that the worker reported is saved and shown later."""
        self.add(job := a_job(target=Target("w-1"), terms=QueueTerms(retry=Retry(1))))
        decided = self.ledger.conclude_job(evolve(job, state=JobState.FAILED))
        self.store.fail()
        self.failureResultOf(decided, StoreFailed)
        self.assertEqual(list(self.ledger.registry.listing.matching(JobFilter())), [job])
        reported = self.ledger.update_job(evolve(job, state=JobState.FAILED))
        self.failureResultOf(reported, StoreFailed)
        self.assertIs(self.ledger.registry.job("j-1").state, JobState.RUNNING)
        self.clock.advance(1)
        saved = {record.id: record for record in self.store.saves[0][0] if isinstance(record, Job)}
        self.assertEqual([job.state for job in saved.values()], [JobState.FAILED, JobState.QUEUED])
        self.store.commit()
        self.assertIs(self.ledger.registry.job("j-1").state, JobState.FAILED)

    def test_a_failed_update_is_made_up_for(self) -> None:
        """What could not be saved is, as it is known then, as soon as the store works, and nobody has to ask for it."""
        self.add(a_job())
        update = self.ledger.update_job(a_job(stdout_bytes=1))
        self.store.fail()
        self.failureResultOf(update, StoreFailed)
        ended = a_job(state=JobState.SUCCEEDED)
        self.failureResultOf(self.ledger.update_job(ended), StoreFailed)
        self.failureResultOf(self.ledger.update_worker(a_worker()), StoreFailed)
        self.failureResultOf(self.ledger.add_job(a_job("j-2")), StoreFailed)
        self.assertEqual(self.store.saves, [])
        self.clock.advance(1)
        self.assertEqual(self.store.saves[0][0], [ended, a_worker(), Ref("job", "j-2")])
        self.store.commit()
        self.assertEqual(self.ledger.store_problem, "")

    def test_no_change_is_not_told(self) -> None:
        """An update that changes nothing wakes nobody, yet waits for what was saved before."""
        self.add(a_job())
        self.seen.clear()
        self.assertNoResult(self.ledger.update_job(a_job()))
        self.clock.advance(0)
        self.assertEqual(self.seen, [])

    def test_what_is_only_noted_is_not_saved(self) -> None:
        """A sign of life changes what is known and costs the store nothing."""
        self.ledger.note_worker(a_worker())
        self.assertEqual((self.ledger.registry.worker("w-1"), self.store.saves), (a_worker(), []))

    def test_the_oldest_ends_are_dropped(self) -> None:
        """Beyond the limit the finished job that ended first goes, from the store too; unfinished ones stay."""
        for number in range(4):
            self.add(a_job(f"j{number}"))
        for number in range(2):
            self.end(a_job(f"j{number}", JobState.SUCCEEDED))
        self.ledger.update_job(a_job("j2", JobState.SUCCEEDED))
        self.assertIn(Ref("job", "j0"), self.store.saves[-1][0])
        self.store.commit()
        found = self.ledger.registry.listing.matching(JobFilter())
        self.assertEqual(sorted(job.id for job in found), ["j1", "j2", "j3"])

    def test_an_ended_job_is_kept_light(self) -> None:
        """What was only needed to run it is let go of at its end, but not before its next attempt has it."""
        spec = JobSpec(command="cat", stdin=b"in")
        job = a_job(spec=spec, target=Target("w-1"), terms=QueueTerms(retry=Retry(1)))
        self.add(job)
        self.assertEqual(self.ledger.registry.job("j-1").spec, spec)
        self.end(evolve(job, state=JobState.FAILED, finished_at=1001.0))
        self.assertEqual(self.ledger.registry.job("j-1").spec, spec.trimmed())
        (again,) = (job for job in self.ledger.registry.listing.matching(JobFilter()) if job.retry_of == "j-1")
        self.assertEqual(again.spec, spec)

    def test_removals_are_published(self) -> None:
        """A job that was removed, never came to be, or is kept no longer is published as gone; so is a worker."""
        for job_id in ("j-1", "j-2", "j-3"):
            self.add(a_job(job_id))
        self.end(a_job("j-3", JobState.SUCCEEDED))
        self.end(a_job("j-1", JobState.SUCCEEDED))
        self.ledger.note_worker(a_worker())
        self.clock.advance(0)
        gone: list[Change] = []
        self.ledger.feed.subscribe(gone.append)
        jobs = [self.ledger.registry.job(job_id) for job_id in ("j-1", "j-2", "j-3")]
        removed = self.ledger.remove_for_client("j-1")
        while self.store.saves:
            self.store.commit()
        self.successResultOf(removed)
        self.ledger.drop_job(jobs[1])
        self.ledger.remove_jobs(["j-3"])
        self.ledger.remove_worker("w-1")
        self.clock.advance(0)
        self.assertEqual(gone, [*(JobChanged(job, None) for job in jobs), WorkerChanged(a_worker(), None)])

    def test_load(self) -> None:
        """After a restart nobody is reachable, what ran is unknown, and the rest is as it was."""
        store = MemoryStore()
        queued, ended = a_job("j-2", JobState.QUEUED, worker_id=None), a_job("j-3", JobState.FAILED)
        store.save([a_job(), queued, ended, a_job("j-4", JobState.STARTING), a_worker(), A_KEY])
        ledger = Ledger(self.clock, lambda: 2000.0, store)
        self.successResultOf(ledger.load())
        registry = ledger.registry
        self.assertEqual([registry.job("j-2"), registry.job("j-3"), registry.find_key("k")], [queued, ended, A_KEY])
        for job_id in ("j-1", "j-4"):
            job = registry.job(job_id)
            expected = (JobState.UNKNOWN, "the scheduler was restarted", 2000.0)
            self.assertEqual((job.state, job.reason, job.unknown_since), expected)
        self.assertIs(registry.worker("w-1").state, WorkerState.UNREACHABLE)


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
        while self.store.saves:
            self.store.commit()

    def chain(self) -> list[tuple[str, JobState]]:
        """All attempts in the registry, which must be as in the store."""
        known = list(self.ledger.registry.attempts("j-1"))
        stored = {job.id: job for job in self.store.holding().jobs}
        self.assertEqual([stored[job.id].state for job in known], [job.state for job in known])
        return [(job.id, job.state) for job in known]

    def test_attempt_first(self) -> None:
        """The end of the job before it is told again, and nothing makes the attempt a queued job again."""
        self.ledger.update_jobs([self.told])
        self.ledger.update_jobs([self.failed])
        self.commit_all()
        self.assertIs(self.ledger.registry.job("j-1").state, JobState.RUNNING)
        self.assertIs(self.store.holding().jobs[-1].state, JobState.FAILED)
        self.ledger.update_jobs([self.failed])
        self.commit_all()
        ids = ("j-1", self.told.id, self.last)
        self.assertEqual(self.chain(), list(zip(ids, [JobState.FAILED, JobState.FAILED, JobState.QUEUED], strict=True)))

    def test_attempt_last(self) -> None:
        """It becomes that attempt, and is never seen to be queued."""
        self.ledger.update_jobs([self.failed])
        self.ledger.update_jobs([self.told])
        self.commit_all()
        ids = ("j-1", self.told.id, self.last)
        self.assertEqual(self.chain(), list(zip(ids, [JobState.FAILED, JobState.FAILED, JobState.QUEUED], strict=True)))
        self.clock.advance(0)
        self.assertNotIn((self.told.id, JobState.QUEUED), self.seen)

    def test_attempt_that_was_removed(self) -> None:
        """One that a client removed is not made again."""
        self.end(self.told)
        removed = self.ledger.remove_for_client(self.told.id)
        self.store.commit()
        self.successResultOf(removed)
        self.end(self.failed)
        self.assertIsNone(self.ledger.registry.find_job(self.told.id))
