"""A store that was set back: found out, made up for by what workers tell, and not acted on before."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.jobs.choice import REQUEST_WAIT_MAX_SECONDS
from scheduler.cluster.jobs.keys import KEY_WAIT_MAX_SECONDS
from scheduler.cluster.jobs.stops import STOP_WAIT_MAX_SECONDS
from scheduler.cluster.settling import REGISTRATION_MAX_SECONDS, SILENCE_MAX_SECONDS
from scheduler.commits import next_timeline
from scheduler.errors import DeadlineExceeded, KeyUnsettled, NoFreeSlot, Unreachable
from scheduler.interfaces import Loaded
from scheduler.messages import Heartbeat, HeartbeatAnswer, JobReport, JobStatus, Registered, Registration
from scheduler.model import FEATURES, JobState
from scheduler.request_keys import RequestKey
from scheduler.terms import QueueTerms, Retry, Target
from tests.house import ANY, ECHO, PEER, House
from tests.unit.cluster.values import a_job

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
        described = self.successResultOf(self.house.runners["w-1"].describe(answer.describe))
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
        return self.successResultOf(self.house.parts.membership.heartbeat(heartbeat, PEER))

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

    def test_keys_come_back_with_their_principals(self) -> None:
        """A key that a worker reports is that of the principal whose request it was of, and of nobody else."""
        backup = self.backup()
        of_a, of_b = evolve(KEY, principal="token:a"), evolve(KEY, principal="token:b")
        ids = [self.run_job(key) for key in (of_a, of_b)]
        self.restored(backup)
        self.beat()
        self.describe(self.beat())
        self.house.clock.advance(LEASE)
        self.assertEqual([self.successResultOf(self.house.submit(ECHO, ANY, key=key)).id for key in (of_a, of_b)], ids)
        self.assertNotIn(
            self.successResultOf(self.house.submit(ECHO, ANY, key=evolve(KEY, principal="token:c"))).id, ids
        )
        self.assertEqual({self.house.job(job_id).created_by for job_id in ids}, {"worker:box"})
        self.flushLoggedErrors()

    def test_keys_of_a_worker_of_an_earlier_version(self) -> None:
        """A key that a worker reports without a principal answers every principal, so that nothing runs again."""
        backup = self.backup()
        job_id = self.run_job(KEY)
        self.restored(backup)
        self.beat()
        self.describe(self.beat())
        self.house.clock.advance(LEASE)
        again = self.house.submit(ECHO, ANY, key=evolve(KEY, principal="token:a"))
        self.assertEqual(self.successResultOf(again).id, job_id)
        self.flushLoggedErrors()

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

    def test_key_of_another_job(self) -> None:
        """A job whose key is that of a job that is known comes back without it."""
        backup = self.backup()
        job_id = self.run_job(KEY)
        self.restored(backup)
        self.beat()
        answer = self.beat()
        self.house.parts.ledger.learn(a_job("j-1", JobState.FAILED, key=KEY))
        self.describe(answer)
        self.assertIsNone(self.house.job(job_id).key)
        self.flushLoggedErrors()

    def test_asked_again_after_a_restart(self) -> None:
        """The worker is asked until it has told everything, even if it or the scheduler is killed meanwhile."""
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
        """A queued job is not placed, and does not expire, before its worker has told of it; it runs once."""
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
        self.assertIs(self.successResultOf(self.house.submit(ECHO, ANY, key=KEY)).state, JobState.RUNNING)
        self.flushLoggedErrors()

    def test_the_last_one_leaves(self) -> None:
        """A request whose key waited is answered when it is known that its worker has left."""
        self.house.restart()
        answer = self.house.submit(ECHO, Target(worker="w-1"), key=KEY)
        self.successResultOf(self.house.parts.membership.deregister("w-1", "n", PEER))
        self.house.settle()
        self.assertIn("deregistered", str(self.failureResultOf(answer, Unreachable).value))

    def test_waits_in_all(self) -> None:
        """The time that a request waited for its key counts when it waits for a worker."""
        self.other()
        self.house.restart()
        answer = self.house.submit(ECHO, ANY, key=KEY)
        self.house.clock.advance(REQUEST_WAIT_MAX_SECONDS)
        self.failureResultOf(answer, NoFreeSlot)

    def test_next_attempts(self) -> None:
        """A next attempt that a worker tells of is linked with its job, and is not created a second time."""
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
        attempts = list(self.house.parts.ledger.registry.jobs.attempts(job.id))
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
        """The registry is saved again, with drains, even if nothing else has to be saved."""
        backup = self.backup()
        job_id = self.run_job(KEY)
        self.successResultOf(self.house.parts.service.drain("box"))
        self.house.store.restore(backup)
        self.house.clock.advance(SILENCE_MAX_SECONDS)
        loaded = self.backup()
        self.assertEqual([job.id for job in loaded.jobs], [job_id])
        self.assertEqual((loaded.jobs[0].key, loaded.workers[0].draining), (KEY, True))

    def test_a_worker_that_was_away(self) -> None:
        """A worker that left and registers again says the count that this process told it: nothing was set back."""
        self.run_job()
        self.house.lose("w-1")
        self.successResultOf(self.house.parts.membership.deregister("w-1", "n", PEER))
        registered = self.house.register(
            "w-1", "127.0.0.1:1", name="box", slots=1, boot_id="b", nonce="o", features=FEATURES, commit_count=self.told
        )
        self.assertGreaterEqual(registered.commit_count, self.told)
        self.assertFalse(self.beat().report_all or self.house.parts.set_back.settling.is_set_back)

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

    def test_one_that_registers_meanwhile(self) -> None:
        """A worker that the backup lacks is heard of first, where its registration waits when the time is over."""
        self.restored(self.backup())
        waiting = self.registering(self.told + 1)
        self.house.clock.advance(SILENCE_MAX_SECONDS)
        self.assertFalse(self.house.parts.set_back.settled)
        self.house.workers.take("answers").answer.callback(False)
        self.successResultOf(waiting)
        self.assertTrue(self.house.parts.set_back.settling.is_set_back)
        self.house.clock.advance(REGISTRATION_MAX_SECONDS)
        self.assertFalse(self.house.parts.set_back.settled)
        self.house.clock.advance(LEASE)
        self.assertTrue(self.house.parts.set_back.settled)
        self.flushLoggedErrors()

    def test_one_that_registers_for_ever(self) -> None:
        """A registration that does not end holds the queue up for a few seconds more and no longer."""
        self.restored(self.backup())
        self.registering(self.told + 1)
        self.house.clock.advance(SILENCE_MAX_SECONDS)
        self.house.clock.advance(REGISTRATION_MAX_SECONDS)
        self.assertTrue(self.house.parts.set_back.settled)

    def test_one_that_knows_no_more(self) -> None:
        """A registration that names no later commit holds nothing up."""
        self.restored(self.backup())
        self.registering(self.told)
        self.house.clock.advance(SILENCE_MAX_SECONDS)
        self.assertTrue(self.house.parts.set_back.settled)

    def registering(self, count: int) -> Deferred[Registered]:
        """Another folder wants the name of the worker that the backup has, which is asked whether it answers."""
        self.house.workers.hold("answers")
        facts = {"name": "box", "boot_id": "b", "nonce": "z", "folder_id": "new", "commit_count": count}
        return self.house.parts.membership.register(Registration("127.0.0.1:9", **facts), PEER)
