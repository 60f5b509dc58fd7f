"""A store that was set back: found out, made up for by what workers tell, and not acted on before."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.jobs.choice import REQUEST_WAIT_MAX_SECONDS
from scheduler.cluster.jobs.keys import KEY_WAIT_MAX_SECONDS
from scheduler.cluster.jobs.stops import STOP_WAIT_MAX_SECONDS
from scheduler.cluster.set_back import (
    SILENCE_MAX_SECONDS,
    TIMELINES_AHEAD_MAX,
    TIMELINES_BEGUN_MAX,
    TOLD_GONE_MAX,
    UNKNOWN_SEEN_MAX,
)
from scheduler.commits import COMMIT_COUNT_MAX, TIMELINE_COMMITS, next_timeline
from scheduler.errors import DeadlineExceeded, KeyUnsettled, NoFreeSlot, StoreFailed, Unreachable
from scheduler.interfaces import Loaded
from scheduler.messages import Heartbeat, HeartbeatAnswer, JobReport, JobStatus, RequestKey
from scheduler.model import FEATURES, Job, JobState, QueueTerms, Retry, Target
from tests.house import ANY, ECHO, HOME, House

LEASE = 30.0

KEY = RequestKey("k", "f" * 64)

WAITING = QueueTerms(queue_timeout=600.0)


class SetBackCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House(lease=LEASE)
        self.house.register("w-1", "127.0.0.1:1", name="box", slots=1, boot_id="b", nonce="n", features=FEATURES)
        self.house.beat("w-1")
        self.told = self.house.beat("w-1").commit_count

    def backup(self) -> Loaded:
        return self.house.store.holding()

    def restored(self, backup: Loaded) -> None:
        """The scheduler is killed, and started with that; its worker's process goes on."""
        self.house.store.restore(backup)
        self.house.restart()
        self.house.workers.runners["w-1"] = self.house.runners["w-1"]

    def beat(self, count: int | None = None) -> HeartbeatAnswer:
        """A heartbeat of the worker, which does as it is told."""
        answer = self.house.beat("w-1", commit_count=self.told if count is None else count)
        self.told = max(self.told, answer.commit_count)
        if answer.report_all:
            self.house.runners["w-1"].report_again()
        return answer

    def run_job(self, key: RequestKey | None = None, **terms: object) -> str:
        """A job that ran, ended and was acknowledged, since the backup."""
        job = self.successResultOf(self.house.submit(ECHO, ANY, key=key))
        self.house.end(job, report=False)
        self.beat()
        return job.id

    def describe(self, answer: HeartbeatAnswer) -> HeartbeatAnswer:
        """The heartbeat that describes what was asked for."""
        runner = self.house.runners["w-1"]
        described = self.successResultOf(runner.describe(answer.describe))
        answer = self.house.beat("w-1", commit_count=self.told, described=described)
        self.told = max(self.told, answer.commit_count)
        return answer

    def other(self, worker_id: str = "w-2", name: str = "other", **facts: object) -> HeartbeatAnswer:
        """Another worker registers, and calls."""
        facts = {"slots": 1, "boot_id": "b", "nonce": worker_id, "features": FEATURES, **facts}
        self.house.register(worker_id, f"127.0.0.1:{worker_id[2:]}", name=name, **facts)
        return self.house.beat(worker_id, commit_count=facts.get("commit_count", 0))

    def reports(self, worker_id: str, *job_ids: str, count: int = 0) -> HeartbeatAnswer:
        """A worker reports that these jobs have succeeded, whatever runs there."""
        ends = [JobStatus(each, JobState.SUCCEEDED, exit_code=0, started_at=1.0, finished_at=2.0) for each in job_ids]
        nonce = self.house.worker(worker_id).nonce
        heartbeat = Heartbeat(worker_id, "b", (), tuple(map(JobReport, ends)), nonce=nonce, commit_count=count)
        return self.successResultOf(self.house.parts.membership.heartbeat(heartbeat, HOME))

    @property
    def present(self) -> int:
        return self.house.store.commit_count


class SetBackTests(SetBackCase):
    def test_counted_only_when_known(self) -> None:
        """No worker is told a count before all that were loaded have told of their jobs."""
        self.house.register("w-2", "127.0.0.1:2", name="other", slots=1, boot_id="b", nonce="m", features=FEATURES)
        self.house.restart()
        self.assertEqual(self.beat().commit_count, 0)
        self.house.beat("w-2")
        self.assertGreaterEqual(self.beat().commit_count, self.told)

    def test_ended_jobs_come_back(self) -> None:
        """A worker that heard of a commit the store lacks reports all its jobs once more; their keys answer."""
        backup = self.backup()
        job_id = self.run_job(KEY)
        self.restored(backup)
        self.assertTrue(self.beat().report_all)
        answer = self.beat()
        self.assertEqual((answer.describe, answer.commit_count), ((job_id,), 0))
        self.describe(answer)
        self.assertIs(self.house.job(job_id).state, JobState.SUCCEEDED)
        self.assertGreaterEqual(self.beat().commit_count, next_timeline(0))
        again = self.house.submit(ECHO, ANY, key=KEY)
        self.house.clock.advance(LEASE)
        self.assertEqual(self.successResultOf(again).id, job_id)
        self.flushLoggedErrors()

    def test_asked_again_after_a_restart(self) -> None:
        """Whoever is killed meanwhile, the worker is asked until it has told everything."""
        backup = self.backup()
        job_id = self.run_job()
        self.restored(backup)
        self.assertTrue(self.beat().report_all)
        self.house.restart()
        self.house.workers.runners["w-1"] = self.house.runners["w-1"]
        self.assertTrue(self.beat().report_all)
        self.describe(self.beat())
        self.assertIs(self.house.job(job_id).state, JobState.SUCCEEDED)

    def test_an_answer_that_is_lost(self) -> None:
        """A worker that did not hear that it was asked is asked once more."""
        backup = self.backup()
        self.run_job()
        self.restored(backup)
        before = self.told
        self.assertTrue(self.house.beat("w-1", commit_count=before).report_all)
        self.assertTrue(self.house.beat("w-1", commit_count=before).report_all)

    def test_a_queued_job_that_ran(self) -> None:
        """It is not placed, nor is its time over, before its worker told; then it is that job, and runs once."""
        first = self.successResultOf(self.house.submit(ECHO, ANY))
        queued = self.successResultOf(self.house.submit(ECHO, ANY, terms=WAITING))
        self.assertIs(queued.state, JobState.QUEUED)
        backup = self.backup()
        self.house.end(first)
        self.house.settle()
        self.assertIs(self.house.job(queued.id).state, JobState.RUNNING)
        started = len(self.house.runners["w-1"].started)
        self.restored(backup)
        self.house.clock.advance(SILENCE_MAX_SECONDS - 1)
        self.assertIs(self.house.job(queued.id).state, JobState.QUEUED)
        self.beat()
        job = self.house.job(queued.id)
        self.assertEqual((job.state, job.worker_id, job.target), (JobState.RUNNING, "w-1", ANY))
        self.house.clock.advance(LEASE)
        self.assertEqual(len(self.house.runners["w-1"].started), started)

    def test_silence(self) -> None:
        """A worker that is not heard of holds the queue up for a few seconds and no longer."""
        first = self.successResultOf(self.house.submit(ECHO, ANY))
        queued = self.successResultOf(self.house.submit(ECHO, ANY, terms=WAITING))
        self.house.end(first, report=False)
        self.house.restart()
        self.house.register("w-2", "127.0.0.1:2", name="other", slots=1, boot_id="b", nonce="m", features=FEATURES)
        self.house.beat("w-2")
        self.assertIs(self.house.job(queued.id).state, JobState.QUEUED)
        self.house.clock.advance(SILENCE_MAX_SECONDS)
        self.house.settle()
        self.assertEqual(self.house.job(queued.id).worker_id, "w-2")

    def test_newcomers_wait(self) -> None:
        """A next attempt that is due meanwhile goes before jobs that are submitted after that."""
        self.other()
        self.successResultOf(self.house.parts.service.drain("other"))
        terms = evolve(WAITING, retry=Retry(1, delay=1.0))
        first = self.successResultOf(self.house.submit(ECHO, ANY, terms=terms))
        self.house.end(first, exit_code=1)
        self.house.restart()
        self.house.workers.runners["w-1"] = self.house.runners["w-1"]
        self.beat()
        self.house.find("w-1")
        self.house.clock.advance(SILENCE_MAX_SECONDS - 1)
        newcomer = self.successResultOf(self.house.submit(ECHO, ANY, terms=WAITING))
        self.assertIs(newcomer.state, JobState.QUEUED)
        self.house.clock.advance(1)
        self.house.settle()
        self.assertIs(self.house.parts.service.last_attempt(first.id).state, JobState.RUNNING)
        self.assertIs(self.house.job(newcomer.id).state, JobState.QUEUED)

    def test_a_key_waits(self) -> None:
        """A request with a key that is not known waits until it is clear that no worker tells of its job."""
        self.house.restart()
        self.house.workers.runners["w-1"] = self.house.runners["w-1"]
        answer = self.house.submit(ECHO, ANY, key=KEY)
        self.assertNoResult(answer)
        self.beat()
        self.assertIs(self.successResultOf(answer).state, JobState.RUNNING)

    def test_a_key_that_nobody_told_of(self) -> None:
        """Where workers take long to tell what was lost, it is refused, and carried out once they have."""
        self.other()
        self.house.restart()
        self.house.workers.runners["w-1"] = self.house.runners["w-1"]
        self.house.beat("w-1", commit_count=self.present + 5)
        answer = self.house.submit(ECHO, ANY, key=KEY)
        self.house.clock.advance(KEY_WAIT_MAX_SECONDS - 0.1)
        self.assertNoResult(answer)
        self.house.clock.advance(0.1)
        self.failureResultOf(answer, KeyUnsettled)
        self.house.clock.advance(LEASE - KEY_WAIT_MAX_SECONDS)
        self.house.find("w-1")
        again = self.house.submit(ECHO, ANY, key=KEY)
        self.assertIs(self.successResultOf(again).state, JobState.RUNNING)
        self.flushLoggedErrors()

    def test_the_last_one_leaves(self) -> None:
        """A request whose key waited is answered when it is known that its worker has left."""
        self.house.restart()
        answer = self.house.submit(ECHO, Target(worker="w-1"), key=KEY)
        self.successResultOf(self.house.parts.membership.deregister("w-1", "n"))
        self.house.settle()
        self.assertIn("deregistered", str(self.failureResultOf(answer, Unreachable).value))

    def test_waits_in_all(self) -> None:
        """What a request waited for its key counts where it waits for a worker."""
        self.other()
        self.house.restart()
        answer = self.house.submit(ECHO, ANY, key=KEY)
        self.house.clock.advance(REQUEST_WAIT_MAX_SECONDS)
        self.failureResultOf(answer, NoFreeSlot)

    def test_next_attempts(self) -> None:
        """One that a worker tells of is the next attempt of its job, and is not made a second time."""
        terms = evolve(WAITING, retry=Retry(2))
        job = self.successResultOf(self.house.submit(ECHO, ANY, terms=terms))
        backup = self.backup()
        self.house.end(job, exit_code=1)
        self.house.settle()
        second = self.house.parts.service.last_attempt(job.id)
        self.house.end(second, exit_code=1)
        self.house.settle()
        third = self.house.parts.service.last_attempt(job.id)
        self.assertEqual(len({job.id, second.id, third.id}), 3)
        self.beat()
        self.restored(backup)
        answer = self.beat()
        while answer.report_all or answer.describe:
            answer = self.describe(answer)
        self.house.clock.advance(LEASE)
        attempts = list(self.house.parts.ledger.registry.attempts(job.id))
        self.assertEqual([each.id for each in attempts], [job.id, second.id, third.id])
        self.assertIs(attempts[-1].state, JobState.RUNNING)

    def test_stop(self) -> None:
        """A job that waits in the backup, and runs, is stopped where it runs, once its worker has told of it."""
        first = self.successResultOf(self.house.submit(ECHO, ANY))
        queued = self.successResultOf(self.house.submit(ECHO, ANY, terms=WAITING))
        backup = self.backup()
        self.house.end(first)
        self.house.settle()
        self.restored(backup)
        stopped = self.house.parts.service.stop(queued.id)
        self.assertNoResult(stopped)
        self.assertIs(self.house.job(queued.id).state, JobState.QUEUED)
        self.beat()
        self.house.clock.advance(LEASE / 2)
        self.beat()
        self.assertEqual(self.successResultOf(stopped).reason, "signal: terminated")

    def test_stop_that_takes_too_long(self) -> None:
        """Where that is not known in the time of a stop, the job waits as before, and the answer says so."""
        self.house = House(lease=3600.0)
        self.house.register("w-1", "127.0.0.1:1", name="box", slots=1, boot_id="b", nonce="n", features=FEATURES)
        self.house.submit(ECHO, ANY)
        self.told = self.house.beat("w-1").commit_count
        queued = self.successResultOf(self.house.submit(ECHO, ANY, terms=WAITING))
        self.restored(self.backup())
        self.beat(self.told + 100)
        stopped = self.house.parts.service.stop(queued.id)
        self.house.clock.advance(STOP_WAIT_MAX_SECONDS - 1)
        self.assertNoResult(stopped)
        self.house.clock.advance(1)
        self.failureResultOf(stopped, DeadlineExceeded)
        self.assertIs(self.house.job(queued.id).state, JobState.QUEUED)

    def test_a_count_that_none_has(self) -> None:
        """A count beyond all is not believed."""
        self.assertFalse(self.house.beat("w-1", commit_count=1 << 63).report_all)

    def test_set_back_while_in_use(self) -> None:
        """What is in memory is saved again, drains and all, though nothing else is to be saved."""
        backup = self.backup()
        job_id = self.run_job(KEY)
        self.successResultOf(self.house.parts.service.drain("box"))
        self.house.store.restore(backup)
        self.house.clock.advance(SILENCE_MAX_SECONDS)
        loaded = self.backup()
        self.assertEqual([job.id for job in loaded.jobs], [job_id])
        self.assertEqual(([key.key for key in loaded.keys], loaded.workers[0].draining), (["k"], True))

    def test_a_worker_that_was_away(self) -> None:
        """One that left and registers again says what this process told it: nothing was set back."""
        self.run_job()
        self.house.lose("w-1")
        self.successResultOf(self.house.parts.membership.deregister("w-1", "n"))
        registered = self.house.register(
            "w-1", "127.0.0.1:1", name="box", slots=1, boot_id="b", nonce="o", features=FEATURES, commit_count=self.told
        )
        self.assertGreaterEqual(registered.commit_count, self.told)
        self.assertFalse(self.beat().report_all or self.house.parts.set_back.found)

    def test_registers_while_it_is_asked(self) -> None:
        """A process that has heard that it is asked is not asked once more when it registers again."""
        backup = self.backup()
        self.run_job()
        self.restored(backup)
        self.assertTrue(self.beat().report_all)
        facts = {"name": "box", "slots": 1, "boot_id": "b", "features": FEATURES, "commit_count": self.told}
        self.house.register("w-1", "127.0.0.1:1", nonce="n", **facts)
        self.assertFalse(self.beat().report_all)
        self.house.parts.set_back.registered("w-1", self.told, new_process=True)
        self.assertTrue(self.beat().report_all)
        self.flushLoggedErrors()


class MadeUpTests(SetBackCase):
    """What a worker says is believed within bounds."""

    def test_counts_of_one_that_was_told(self) -> None:
        """A worker that this process told a count can't know a higher one, and has no other worker asked."""
        self.other()
        for _ in range(3):
            before = self.present
            answer = self.house.beat("w-2", commit_count=before + 1)
            self.assertEqual((answer.report_all, answer.commit_count), (False, before))
            self.assertFalse(self.beat().report_all)
        self.assertFalse(self.house.parts.set_back.found)

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
        """Whatever was made up, a store that is set back after that is noticed."""
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
        """It fits into no message any more if it is made higher."""
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
        self.other()
        for worker in ("w-1", "w-2"):
            self.successResultOf(self.house.parts.service.drain(worker))
        self.house.parts.ledger.add_job(self.queued("q"))
        self.house.restart()
        for worker in ("w-1", "w-2"):
            self.house.beat(worker)
        self.assertTrue(self.house.parts.set_back.settled)
        self.house.parts.ledger.add_job(self.queued("next", retry_of="q"))
        self.reports("w-2", "q", "next")
        self.assertEqual({self.house.job(each).state for each in ("q", "next")}, {JobState.QUEUED})

    def queued(self, job_id: str, **facts: object) -> Job:
        """A job for any worker, which waits."""
        now = self.house.parts.ledger.now()
        return Job(job_id, ECHO, JobState.QUEUED, now, target=ANY, terms=WAITING, promised=True, **facts)

    def test_one_that_is_asked(self) -> None:
        """A worker of the past that calls late tells of a job that the store has as queued."""
        self.other()
        for worker in ("w-1", "w-2"):
            self.successResultOf(self.house.parts.service.drain(worker))
        self.house.parts.ledger.add_job(self.queued("q"))
        self.house.restart()
        self.house.beat("w-2")
        self.house.clock.advance(SILENCE_MAX_SECONDS)
        self.assertTrue(self.house.parts.set_back.settled)
        self.reports("w-1", "q", count=self.told + 5)
        self.assertEqual((self.house.job("q").state, self.house.job("q").worker_id), (JobState.SUCCEEDED, "w-1"))
        self.flushLoggedErrors()

    def test_ids_without_end(self) -> None:
        """Of a worker that reports other unknown jobs each time so many are remembered, and then it is done."""
        count = self.present + 5
        self.other(commit_count=count)
        for first in range(0, 2 * UNKNOWN_SEEN_MAX, 1000):
            count = max(
                count, self.reports("w-2", *(f"x-{first + each}" for each in range(1000)), count=count).commit_count
            )
        self.assertLessEqual(self.house.parts.set_back.most_seen, UNKNOWN_SEEN_MAX)
        self.flushLoggedErrors()

    def test_workers_without_end(self) -> None:
        """Of workers that are gone no more is kept than may be."""
        set_back = self.house.parts.set_back
        for number in range(TOLD_GONE_MAX + 10):
            set_back.registered(f"gone-{number}", 0, True)
            set_back.forget(f"gone-{number}")
        self.assertEqual(set_back.gone_kept, TOLD_GONE_MAX)


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
