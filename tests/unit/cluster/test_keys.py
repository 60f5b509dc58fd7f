"""A request with a key is carried out once, and answered as often as it is sent."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred

from scheduler.cluster.saving import UNSAVED_MAX_SECONDS
from scheduler.cluster.settling import SILENCE_MAX_SECONDS
from scheduler.errors import Conflict, KeyInUse, KeyReused, NotFound, StartUnanswered, StoreFailed, Unreachable
from scheduler.messages import JobStatus
from scheduler.model import Job, JobState
from scheduler.request_keys import RequestKey
from scheduler.terms import NO_WAITING
from tests.unit.cluster.case import ECHO, W1, ClusterTestCase
from tests.unit.cluster.values import a_worker

KEY = RequestKey("k", "f" * 64)
OTHER = RequestKey("k", "0" * 64)
#: The same text as a key of two principals.
OF_A, OF_B = evolve(KEY, principal="token:a"), evolve(KEY, principal="token:b")


class KeyTests(ClusterTestCase):
    def submit(self, key: RequestKey = KEY) -> Deferred[Job]:
        return self.house.submit(ECHO, W1, NO_WAITING, key)

    def started(self) -> Job:
        """The first request, answered."""
        answer = self.submit()
        self.take("start_job").answer.callback(JobStatus(self.only_job().id, JobState.RUNNING))
        return self.successResultOf(answer)

    def test_again(self) -> None:
        """The same request is answered with the job as it is now, and calls nobody."""
        job = self.started()
        self.assertEqual(self.successResultOf(self.submit()), job)
        self.ledger.learn(evolve(job, state=JobState.FAILED, finished_at=1001.0))
        self.assertTrue(self.cluster.replays(KEY))
        self.assertIs(self.successResultOf(self.submit()).state, JobState.FAILED)
        self.assertEqual((self.held(), len(self.jobs())), ([], 1))

    def test_keys_are_apart(self) -> None:
        """Another key is another request, though it asks for the same."""
        self.started()
        self.submit(RequestKey("other", KEY.fingerprint))
        self.assertNotEqual(self.take("start_job").job_id, self.workers.calls[0].job_id)

    def test_keys_of_two_principals(self) -> None:
        """The same text of another principal is another key: while the first is under way, answered, or removed."""
        self.store.held = True
        answers = [self.submit(OF_A), self.submit(OF_B), self.submit(evolve(OTHER, principal="token:c"))]
        self.failureResultOf(self.submit(OF_A), KeyInUse)
        self.assertFalse(self.cluster.replays(OF_B))
        self.store.commit_all()
        self.store.held = False
        for _ in answers:
            call = self.take("start_job")
            call.answer.callback(JobStatus(call.job_id, JobState.RUNNING))
        ids = [self.successResultOf(answer).id for answer in answers]
        self.assertEqual(len(set(ids)), 3)
        for key, job_id in zip((OF_A, OF_B), ids, strict=False):
            self.assertTrue(self.cluster.replays(key))
            self.assertEqual(self.successResultOf(self.submit(key)).id, job_id)
        self.failureResultOf(self.submit(evolve(OTHER, principal="token:a")), KeyReused)
        self.assertFalse(self.cluster.replays(evolve(OF_A, principal="token:d")))
        self.assertEqual(self.held(), [])

    def test_key_of_an_earlier_version(self) -> None:
        """A key that an earlier version kept answers the same request of any principal, and nothing runs again."""
        job = self.started()
        self.clock.advance(UNSAVED_MAX_SECONDS)
        self.begin()
        for key in (OF_A, OF_B):
            self.assertTrue(self.cluster.replays(key))
            self.assertEqual(self.successResultOf(self.submit(key)).id, job.id)
        self.failureResultOf(self.submit(evolve(OTHER, principal="token:a")), KeyReused)
        self.assertEqual((self.held(), len(self.jobs())), ([], 1))

    def test_another_request(self) -> None:
        """A key that was used for another request is refused, answered or not, and so is that."""
        self.submit()
        self.failureResultOf(self.submit(OTHER), KeyReused)
        self.take("start_job").answer.callback(JobStatus(self.only_job().id, JobState.RUNNING))
        self.failureResultOf(self.submit(OTHER), KeyReused)
        self.assertFalse(self.cluster.replays(OTHER))

    def test_under_way(self) -> None:
        """While the first is under way, before and after its commit, the same again is refused for the moment."""
        self.store.held = True
        self.submit()
        self.failureResultOf(self.submit(), KeyInUse)
        self.store.commit()
        self.take("start_job")
        self.failureResultOf(self.submit(), KeyInUse)
        self.assertFalse(self.cluster.replays(KEY))

    def test_the_client_hangs_up(self) -> None:
        """A client that hung up, and asks again, is answered with the job once its start is over."""
        self.submit().addErrback(lambda _: None).cancel()
        self.failureResultOf(self.submit(), KeyInUse)
        self.take("start_job").answer.callback(JobStatus(self.only_job().id, JobState.RUNNING))
        self.assertEqual(self.successResultOf(self.submit()), self.only_job())

    def test_the_client_hangs_up_during_the_commit(self) -> None:
        """If a client hangs up before its job is durable, a start that fails is not logged as a bug."""
        self.store.held = True
        self.submit().addErrback(lambda _: None).cancel()
        self.store.commit()
        self.store.held = False
        self.take("start_job").answer.errback(Unreachable("w-1", sent=True))
        self.failureResultOf(self.submit(), StartUnanswered)

    def test_nothing_came_of_it(self) -> None:
        """A request that made no job leaves no key: not found, not committed, never sent."""
        self.failureResultOf(self.house.submit(ECHO, evolve(W1, worker="w-9"), NO_WAITING, KEY), NotFound)
        answer = self.submit()
        self.take("start_job").answer.errback(Unreachable("w-1"))
        self.failureResultOf(answer, Unreachable)
        self.store.held = True
        answer = self.submit()
        self.store.fail()
        self.failureResultOf(answer, StoreFailed)
        self.store.held = False
        self.begin()
        self.add(a_worker())
        self.clock.advance(SILENCE_MAX_SECONDS)
        self.assertFalse(self.cluster.replays(KEY))
        self.started()

    def test_unanswered(self) -> None:
        """A start that was not answered is that again while nobody knows more, and then the job."""
        answer = self.submit()
        self.take("start_job").answer.errback(Unreachable("w-1", sent=True))
        job_id = self.failureResultOf(answer, StartUnanswered).value.job_id
        self.assertTrue(self.cluster.replays(KEY))
        self.assertEqual(self.failureResultOf(self.submit(), StartUnanswered).value.job_id, job_id)
        self.ledger.learn(evolve(self.only_job(), state=JobState.RUNNING, unknown_since=None, started_at=1000.0))
        self.assertEqual(self.successResultOf(self.submit()), self.only_job())
        self.ledger.learn(evolve(self.only_job(), state=JobState.UNKNOWN, unknown_since=1001.0))
        self.assertIs(self.successResultOf(self.submit()).state, JobState.UNKNOWN)

    def test_an_end_that_could_not_be_saved(self) -> None:
        """An answer that could not be decided on is none: the same again is told what there is to say of the job."""
        answer = self.submit()
        self.store.held = True
        self.take("start_job").answer.errback(Conflict("the id was used before"))
        self.store.fail()
        for each in (answer, self.submit()):
            self.assertEqual(self.failureResultOf(each, StartUnanswered).value.job_id, self.only_job().id)

    def test_across_a_restart(self) -> None:
        """The key is as durable as the job."""
        job = self.started()
        self.clock.advance(UNSAVED_MAX_SECONDS)
        self.begin()
        again = self.successResultOf(self.submit())
        self.assertEqual((again.id, again.state), (job.id, JobState.UNKNOWN))
        self.failureResultOf(self.submit(OTHER), KeyReused)

    def test_killed_before_the_answer(self) -> None:
        """After a crash between commit and answer the same request is answered with the job, once it is known."""
        self.submit()
        self.begin()
        self.failureResultOf(self.submit(), StartUnanswered)
        self.ledger.learn(evolve(self.only_job(), state=JobState.RUNNING))
        self.assertEqual(self.successResultOf(self.submit()), self.only_job())
        self.assertEqual((self.held(), len(self.jobs())), ([], 1))

    def test_as_long_as_the_job(self) -> None:
        """With its job the key is gone, and the request is a new one."""
        self.ledger.learn(self.started().ref)
        self.assertFalse(self.cluster.replays(KEY))
        self.started()
