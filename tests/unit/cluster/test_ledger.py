"""The ledger: what is visible when, and what is left after a failure of the store."""

from __future__ import annotations

from attrs import evolve

from scheduler.cluster.changes import Change, JobChanged, PresenceChanged, WorkerChanged
from scheduler.cluster.ledger import Ledger
from scheduler.errors import StoreFailed
from scheduler.model import Disk, Job, JobSpec, JobState, Presence, Ref, WorkerState
from scheduler.request_keys import RequestKey
from scheduler.store.memory import MemoryStore
from scheduler.terms import QueueTerms, Retry, Target
from scheduler.views import JobFilter
from tests.unit.cluster.ledger_case import LedgerCase
from tests.unit.cluster.values import a_job, a_removal, a_worker

A_KEY = RequestKey("k", "f" * 64)


class LedgerTests(LedgerCase):
    def test_a_new_job_is_invisible_until_committed(self) -> None:
        """A job that may yet be lost is not visible, but the load of its worker counts it."""
        added = self.ledger.decide(a_job())
        self.assertNoResult(added)
        self.assertIsNone(self.ledger.registry.jobs.find("j-1"))
        self.assertEqual(self.ledger.registry.load("w-1"), 1)
        self.store.commit()
        self.successResultOf(added)
        self.assertEqual(self.ledger.registry.load("w-1"), 1)
        self.clock.advance(0)
        self.assertEqual(self.seen, [("j-1", JobState.RUNNING)])

    def test_a_failed_commit_drops_the_job(self) -> None:
        """A job whose commit failed has never been, even if its records got to the disk."""
        added = self.ledger.decide(a_job())
        self.store.fail()
        self.failureResultOf(added, StoreFailed)
        self.assertIsNone(self.ledger.registry.jobs.find("j-1"))
        self.assertEqual(self.ledger.registry.load("w-1"), 0)
        self.assertIn("disk full", self.ledger.store_problem)
        self.clock.advance(1)
        self.assertEqual(self.store.saves[0][0], [Ref("job", "j-1")])

    def test_a_queued_job_loads_nobody(self) -> None:
        """A job without a worker is committed and shown like any other, and counts into no load."""
        self.add(a_job(state=JobState.QUEUED, worker_id=None))
        self.assertIs(self.ledger.registry.jobs.get("j-1").state, JobState.QUEUED)
        self.assertEqual(self.ledger.registry.load("w-1"), 0)

    def test_a_key_comes_and_goes_with_its_job(self) -> None:
        """The job of a key is found from its commit on; the key of a job that never came to be is free again."""
        added = self.ledger.decide(job := a_job(key=A_KEY))
        self.assertIsNone(self.ledger.registry.find_key(A_KEY))
        self.store.commit()
        self.successResultOf(added)
        self.assertEqual(self.ledger.registry.find_key(A_KEY), job)
        self.ledger.learn(job.ref)
        self.assertIsNone(self.ledger.registry.find_key(A_KEY))

    def test_an_end_is_invisible_until_committed(self) -> None:
        """An end that a crash could undo is not visible, nor is the next attempt; no other end comes between."""
        self.add(job := a_job(target=Target("w-1"), terms=QueueTerms(retry=Retry(1))))
        self.ledger.learn(evolve(job, state=JobState.FAILED))
        self.assertEqual(self.ledger.registry.jobs.find("j-1"), job)
        other = self.ledger.decide(evolve(job, state=JobState.LOST))
        self.ledger.learn(evolve(job, state=JobState.UNKNOWN))
        self.assertEqual(self.ledger.registry.jobs.find("j-1"), job)
        self.assertEqual([len(records) for records, _ in self.store.saves], [2, 0, 0])
        self.store.commit()
        self.assertIs(self.ledger.registry.jobs.get("j-1").state, JobState.FAILED)
        self.assertEqual([job.retry_of for job in self.ledger.registry.jobs.unfinished(None)], ["j-1"])
        self.assertNoResult(other)

    def test_an_end_that_is_not_committed(self) -> None:
        """If it can't be, one that was decided here is void; one that the worker reported is saved and shown later."""
        self.add(job := a_job(target=Target("w-1"), terms=QueueTerms(retry=Retry(1))))
        decided = self.ledger.decide(evolve(job, state=JobState.FAILED))
        self.store.fail()
        self.failureResultOf(decided, StoreFailed)
        self.assertEqual(list(self.ledger.registry.jobs.listing.matching(JobFilter())), [job])
        self.failureResultOf(self.ledger.learn(evolve(job, state=JobState.FAILED)), StoreFailed)
        self.assertIs(self.ledger.registry.jobs.get("j-1").state, JobState.RUNNING)
        self.clock.advance(1)
        saved = {record.id: record for record in self.store.saves[0][0] if isinstance(record, Job)}
        self.assertEqual([job.state for job in saved.values()], [JobState.FAILED, JobState.QUEUED])
        self.store.commit()
        self.assertIs(self.ledger.registry.jobs.get("j-1").state, JobState.FAILED)

    def test_a_failed_update_is_made_up_for(self) -> None:
        """A failed update is saved, as the record is then, as soon as the store works, without another call."""
        self.add(a_job())
        update = self.ledger.learn(a_job(stdout_bytes=1))
        self.store.fail()
        self.failureResultOf(update, StoreFailed)
        ended = a_job(state=JobState.SUCCEEDED)
        self.failureResultOf(self.ledger.learn(ended), StoreFailed)
        self.failureResultOf(self.ledger.learn(a_worker()), StoreFailed)
        self.failureResultOf(self.ledger.decide(a_job("j-2")), StoreFailed)
        self.assertEqual(self.store.saves, [])
        self.clock.advance(1)
        self.assertEqual(self.store.saves[0][0], [ended, a_worker(), Ref("job", "j-2")])
        self.store.commit()
        self.assertEqual(self.ledger.store_problem, "")

    def test_no_change_is_not_told(self) -> None:
        """An update that changes nothing wakes nobody, yet waits for what was saved before."""
        self.add(a_job())
        self.seen.clear()
        self.assertNoResult(self.ledger.learn(a_job()))
        self.clock.advance(0)
        self.assertEqual(self.seen, [])

    def test_see(self) -> None:
        """A presence is visible at once and never saved; a change of it is what decides whether a worker takes jobs."""
        self.ledger.registry.put_worker(a_worker())
        told: list[Change] = []
        self.ledger.feed.subscribe(told.append)
        online, full = Presence(WorkerState.ONLINE, last_seen=2.0), Presence(WorkerState.ONLINE, refusing="no room")
        for presence, is_change in (
            (Presence(reason="no sign of life for 43 s", last_seen=1.0), False),
            (online, True),
            (evolve(online, last_seen=3.0, disk=Disk(2, 1), clock_difference=0.5), False),
            (full, True),
            (Presence(), True),
        ):
            before = self.ledger.registry.presences.of("w-1")
            self.ledger.see("w-1", presence)
            self.clock.advance(0)
            self.assertEqual(self.ledger.registry.presences.of("w-1"), presence)
            self.assertEqual(told, [PresenceChanged("w-1", before, presence)] if is_change else [])
            told.clear()
        self.assertEqual(self.store.saves, [])

    def test_the_same_worker_is_no_change(self) -> None:
        """A worker that registers as it was is saved, and no change is published."""
        self.ledger.learn(a_worker())
        self.clock.advance(0)
        told: list[Change] = []
        self.ledger.feed.subscribe(told.append)
        self.ledger.learn(a_worker())
        self.clock.advance(0)
        self.assertEqual((told, len(self.store.saves)), ([], 2))

    def test_the_oldest_ends_are_dropped(self) -> None:
        """Beyond the limit the finished job that ended first goes, from the store too; unfinished ones stay."""
        for number in range(4):
            self.add(a_job(f"j{number}"))
        for number in range(2):
            self.end(a_job(f"j{number}", JobState.SUCCEEDED))
        self.ledger.learn(a_job("j2", JobState.SUCCEEDED))
        self.assertIn(Ref("job", "j0"), self.store.saves[-1][0])
        self.store.commit()
        found = self.ledger.registry.jobs.listing.matching(JobFilter())
        self.assertEqual(sorted(job.id for job in found), ["j1", "j2", "j3"])

    def test_an_ended_job_is_kept_light(self) -> None:
        """The parts that were only needed to run a job are dropped at its end, once its next attempt has them."""
        spec = JobSpec(command="cat", stdin=b"in")
        job = a_job(spec=spec, target=Target("w-1"), terms=QueueTerms(retry=Retry(1)))
        self.add(job)
        self.assertEqual(self.ledger.registry.jobs.get("j-1").spec, spec)
        self.end(evolve(job, state=JobState.FAILED, finished_at=1001.0))
        self.assertEqual(self.ledger.registry.jobs.get("j-1").spec, spec.trimmed())
        (again,) = (job for job in self.ledger.registry.jobs.listing.matching(JobFilter()) if job.retry_of == "j-1")
        self.assertEqual(again.spec, spec)

    def test_removals_are_published(self) -> None:
        """A job that was removed, never came to be, or is kept no longer is published as gone; so is a worker."""
        for job_id in ("j-1", "j-2", "j-3"):
            self.add(a_job(job_id))
        self.end(a_job("j-3", JobState.SUCCEEDED))
        self.end(a_job("j-1", JobState.SUCCEEDED))
        self.add(a_worker())
        self.clock.advance(0)
        gone: list[Change] = []
        self.ledger.feed.subscribe(gone.append)
        jobs = [self.ledger.registry.jobs.get(job_id) for job_id in ("j-1", "j-2", "j-3")]
        removed = self.ledger.decide(*a_removal("j-1"))
        self.store.commit_all()
        self.successResultOf(removed)
        self.ledger.learn(jobs[1].ref)
        self.ledger.learn(Ref("job", "j-3"))
        self.ledger.learn(Ref("worker", "w-1"))
        self.clock.advance(0)
        self.assertEqual(gone, [*(JobChanged(job, None) for job in jobs), WorkerChanged(a_worker(), None)])

    def test_load(self) -> None:
        """After a restart nobody is reachable, what ran is unknown, and the rest is as it was."""
        store = MemoryStore()
        queued, ended = a_job("j-2", JobState.QUEUED, worker_id=None), a_job("j-3", JobState.FAILED, key=A_KEY)
        store.save([a_job(), queued, ended, a_job("j-4", JobState.STARTING), a_worker(), *a_removal("j-5")])
        ledger = Ledger(self.clock, lambda: 2000.0, store)
        self.successResultOf(ledger.load())
        registry = ledger.registry
        self.assertEqual(
            [registry.jobs.get("j-2"), registry.jobs.get("j-3"), registry.find_key(A_KEY)], [queued, ended, ended]
        )
        self.assertIn("j-5", registry.removed)
        for job_id in ("j-1", "j-4"):
            job = registry.jobs.get(job_id)
            expected = (JobState.UNKNOWN, "the scheduler was restarted", 2000.0)
            self.assertEqual((job.state, job.reason, job.unknown_since), expected)
        self.assertIs(registry.presences.of("w-1").state, WorkerState.UNREACHABLE)
