"""Counts of commits that workers make up, or that can't be saved."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from scheduler.cluster.commit_counts import TIMELINES_AHEAD_MAX, TIMELINES_BEGUN_MAX, TOLD_GONE_MAX
from scheduler.cluster.set_back import UNKNOWN_SEEN_MAX
from scheduler.cluster.settling import SILENCE_MAX_SECONDS
from scheduler.commits import COMMIT_COUNT_MAX, TIMELINE_COMMITS, next_timeline
from scheduler.errors import StoreFailed
from scheduler.messages import Heartbeat, JobReport, JobStatus
from scheduler.model import FEATURES, Job, JobState
from scheduler.terms import Target
from tests.house import ANY, ECHO
from tests.unit.cluster.test_set_back import LEASE, WAITING, SetBackCase


class MadeUpTests(SetBackCase):
    """Counts of workers are believed within bounds."""

    def test_counts_of_one_that_was_told(self) -> None:
        """A worker that this process told a count can't know a higher one, and has no other worker asked."""
        self.other()
        for _ in range(3):
            before = self.present
            answer = self.house.beat("w-2", commit_count=before + 1)
            self.assertEqual((answer.report_all, answer.commit_count), (False, before))
            self.assertFalse(self.beat().report_all)
        self.assertFalse(self.house.parts.set_back.settling.is_set_back)

    def test_one_timeline_each(self) -> None:
        """A worker begins one timeline in each process, and all of them a few."""
        self.other(commit_count=self.present + 5)
        first = self.present
        self.assertEqual(first, next_timeline(0))
        self.house.beat("w-2", commit_count=first + 5)
        self.assertEqual(self.present, first)
        for number in range(3, 3 + 2 * TIMELINES_BEGUN_MAX):
            self.other(f"w-{number}", f"other-{number}", commit_count=self.present + 5)
        self.assertEqual(self.present // TIMELINE_COMMITS, TIMELINES_BEGUN_MAX)
        self.flushLoggedErrors()

    def test_far_ahead(self) -> None:
        """A count so high that no store can have been set back so often is not believed."""
        for number, timelines in enumerate((TIMELINES_AHEAD_MAX + 1, COMMIT_COUNT_MAX // TIMELINE_COMMITS - 1), 2):
            answer = self.other(f"w-{number}", f"other-{number}", commit_count=timelines * TIMELINE_COMMITS)
            self.assertEqual((answer.report_all, answer.commit_count), (False, self.present))
        self.assertLess(self.present, TIMELINE_COMMITS)
        self.other("w-9", "other-9", commit_count=TIMELINES_AHEAD_MAX * TIMELINE_COMMITS)
        self.assertEqual(self.present // TIMELINE_COMMITS, TIMELINES_AHEAD_MAX + 1)
        self.flushLoggedErrors()

    def test_still_found(self) -> None:
        """A store that is set back is noticed even after made-up counts."""
        self.other(commit_count=COMMIT_COUNT_MAX - 1)
        self.other("w-3", "third", commit_count=TIMELINES_AHEAD_MAX * TIMELINE_COMMITS)
        for _ in range(3):
            self.beat()
        backup = self.backup()
        job_id = self.run_job()
        self.restored(backup)
        self.assertTrue(self.beat().report_all)
        self.describe(self.beat())
        self.assertIs(self.house.job(job_id).state, JobState.SUCCEEDED)
        self.flushLoggedErrors()

    def test_a_count_beyond_all(self) -> None:
        """A count near the limit of a message is answered with a count that a message can hold."""
        count = self.present + 5
        facts = {"name": "other", "slots": 1, "boot_id": "b", "nonce": "o", "features": FEATURES}
        self.house.register("w-2", "127.0.0.1:2", commit_count=count, **facts)
        self.assertLess(self.house.beat("w-2", commit_count=(1 << 64) - 1).commit_count, 1 << 63)
        self.flushLoggedErrors()

    def test_a_queued_job_of_another(self) -> None:
        """A job that names another worker, or has labels that this one lacks, is nobody else's to report."""
        self.other()
        self.house.lose("w-1")
        job = self.successResultOf(self.house.submit(ECHO, Target(worker="w-1"), terms=WAITING))
        labelled = self.successResultOf(self.house.submit(ECHO, Target(selector={"name": "box"}), terms=WAITING))
        self.house.restart()
        self.reports("w-2", job.id, labelled.id)
        self.assertEqual({self.house.job(each.id).state for each in (job, labelled)}, {JobState.QUEUED})

    def test_after_all_have_told(self) -> None:
        """Once it is known what the store lacks, no worker reports a job that it does not have, nor a next attempt."""
        self.restart_with_a_queue()
        for worker in ("w-1", "w-2"):
            self.house.beat(worker)
        self.assertTrue(self.house.parts.set_back.settled)
        self.house.parts.ledger.decide(self.queued("next", retry_of="q"))
        self.reports("w-2", "q", "next")
        self.assertEqual({self.house.job(each).state for each in ("q", "next")}, {JobState.QUEUED})

    def restart_with_a_queue(self) -> None:
        """A restart while a job waits and both workers are drained."""
        self.other()
        for worker in ("w-1", "w-2"):
            self.successResultOf(self.house.parts.service.drain(worker))
        self.house.parts.ledger.decide(self.queued("q"))
        self.house.restart()

    def queued(self, job_id: str, **facts: object) -> Job:
        """A job for any worker, which waits."""
        now = self.house.parts.ledger.now()
        return Job(job_id, ECHO, JobState.QUEUED, now, target=ANY, terms=WAITING, promised=True, **facts)

    def test_one_that_is_asked(self) -> None:
        """A worker of the past that calls late tells of a job that the store has as queued."""
        self.restart_with_a_queue()
        self.house.beat("w-2")
        self.house.clock.advance(SILENCE_MAX_SECONDS)
        self.assertTrue(self.house.parts.set_back.settled)
        self.reports("w-1", "q", count=self.told + 5)
        self.assertEqual((self.house.job("q").state, self.house.job("q").worker_id), (JobState.SUCCEEDED, "w-1"))
        self.flushLoggedErrors()

    def test_ids_without_end(self) -> None:
        """A worker that reports new unknown jobs each time is done after a limited number of them."""
        count, set_back = self.present + 5, self.house.parts.set_back
        self.other(commit_count=count)
        for first in range(0, 2 * UNKNOWN_SEEN_MAX, 1000):
            ended = [JobReport(JobStatus(f"x-{first + each}", JobState.SUCCEEDED)) for each in range(1000)]
            heartbeat = Heartbeat("w-2", "b", commit_count=count, ended=tuple(ended))
            count = max(count, set_back.answer(heartbeat, saved=True, more=False)[1])
        self.assertTrue(set_back.may_acknowledge("w-2"))
        self.flushLoggedErrors()

    def test_workers_without_end(self) -> None:
        """A limited number of workers that are gone are remembered."""
        set_back = self.house.parts.set_back
        for number in range(TOLD_GONE_MAX + 10):
            set_back.registered(f"gone-{number}", 0, True)
            set_back.forget(f"gone-{number}")
        remembered = sum(set_back.may_acknowledge(f"gone-{number}") for number in range(TOLD_GONE_MAX + 10))
        self.assertEqual(remembered, TOLD_GONE_MAX)


class FailingStoreTests(SetBackCase):
    def test_counted_all_the_same(self) -> None:
        """A timeline that can't be saved does not keep ends from being acknowledged for ever."""
        self.other()
        self.house.restart()
        self.house.workers.runners["w-1"] = self.house.runners["w-1"]
        pending: list[Deferred[None]] = []
        store, count_commits = self.house.store, self.house.store.count_commits

        def hanging(above: int = 0, set_back_to: int | None = None) -> Deferred[None]:
            if set_back_to is None:
                return count_commits(above, set_back_to)
            pending.append(Deferred())
            return pending[-1]

        self.patch(store, "count_commits", hanging)
        self.house.beat("w-2", commit_count=self.present + 50)
        self.house.clock.advance(LEASE)
        pending[0].errback(StoreFailed("timeout"))
        self.beat()
        job = self.successResultOf(self.house.submit(ECHO, Target(worker="w-1")))
        self.house.end(job, report=False)
        self.assertEqual(self.beat().acknowledged, (job.id,))
        self.flushLoggedErrors()
