"""Requests that wait for workers which may be online at any moment."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred

from scheduler.cluster.expected import EXPECTED_WAIT_MAX_SECONDS, MAX_WAITING_REQUESTS
from scheduler.cluster.requirement import Requirement
from scheduler.errors import KeyInUse, Misdirected, NoFreeSlot, NotFound, QueueFull, ShuttingDown, Unreachable
from scheduler.messages import Heartbeat, JobStatus, Registration
from scheduler.model import Job, JobState
from scheduler.request_keys import RequestKey
from scheduler.terms import NO_WAITING, QueueTerms, Retry, Target
from tests.house import PEER
from tests.unit.cluster.case import ANY, ECHO, W1, ClusterTestCase
from tests.unit.cluster.values import a_job, a_worker

PATIENT = QueueTerms(queue_timeout=3600.0)


class ExpectedTestCase(ClusterTestCase):
    """All calls wait for the test, probes too."""

    def setUp(self) -> None:
        super().setUp()
        self.workers.hold("probe")

    def submit(self, target: Target = W1, terms: QueueTerms = NO_WAITING) -> Deferred[Job]:
        """A request that waits."""
        answer = self.house.submit(ECHO, target, terms)
        self.assertNoResult(answer)
        return answer

    def register(self, name: str = "w-1", **facts: object) -> None:
        """A worker registers, under its id, and its probe is under way."""
        if self.ledger.registry.workers.find(name) is None:
            self.add(a_worker(name), online=False)
        address = a_worker(name).address
        registration = Registration(address, name, name, boot_id="boot", **facts)  # type: ignore[arg-type]
        self.successResultOf(self.membership.register(registration, PEER))

    def beat(self, name: str = "w-1") -> None:
        """A heartbeat of a worker arrives."""
        self.successResultOf(self.membership.heartbeat(Heartbeat(name, "boot"), PEER))

    def probe(self, error: Exception | None = None) -> None:
        """The oldest call is a probe; it is answered, or fails."""
        answer = self.take("probe").answer
        if error is None:
            answer.callback(None)
        else:
            answer.errback(error)
        self.settle()

    def started(self, answer: Deferred[Job]) -> Job:
        """The start is called now, and answered."""
        call = next(call for call in self.held() if call.method == "start_job")
        self.workers.held.remove(call)
        call.answer.callback(JobStatus(call.job_id, JobState.RUNNING))
        job = self.successResultOf(answer)
        self.assertIs(job.state, JobState.RUNNING)
        return job

    def calls(self) -> list[tuple[str, str]]:
        """The calls under way: methods and workers."""
        return [(call.method, call.worker_id) for call in self.held()]


class RegisteredTests(ExpectedTestCase):
    """The worker has just registered: the first probe of it is under way."""

    def setUp(self) -> None:
        super().setUp()
        self.register(slots=1)

    def test_named(self) -> None:
        """A start for a worker that has just registered waits for its first probe."""
        answer = self.submit()
        self.assertEqual((self.calls(), self.jobs()), ([("probe", "w-1")], []))
        self.probe()
        self.started(answer)

    def test_selector(self) -> None:
        """A start whose selector only this worker matches waits, too; later ones wait for its only slot in vain."""
        first, second = self.submit(ANY), self.submit(ANY)
        self.probe()
        self.assertEqual(self.failureResultOf(second, NoFreeSlot).value.retry_after, 5)
        self.started(first)

    def test_a_selector_that_it_does_not_match(self) -> None:
        """A request that this worker could not take is refused at once."""
        self.add(a_worker("w-2"), online=False)
        self.failureResultOf(self.house.submit(ECHO, Target(selector={"name": "w-2"})), NoFreeSlot)

    def test_answered_by_another(self) -> None:
        """A request by selector does not wait while another worker can take it."""
        self.add(a_worker("w-2"))
        self.probe()
        self.register("w-3")
        answer = self.submit(Target(selector={"name": "w-2"}))
        self.assertEqual(self.calls()[-1], ("start_job", "w-2"))
        self.assertNoResult(answer)

    def test_in_the_queue(self) -> None:
        """A job that may be queued is queued at once, and starts when the probe is answered."""
        job = self.successResultOf(self.house.submit(ECHO, W1, PATIENT))
        self.assertIs(job.state, JobState.QUEUED)
        self.probe()
        self.assertEqual(self.take("start_job").job_id, job.id)

    def test_full_queue(self) -> None:
        """A job that can't be queued for want of room waits like a job that must not be queued."""
        self.add(*[a_job(f"j-{n}", JobState.QUEUED, None, terms=PATIENT) for n in range(self.queue_max)])
        self.add(a_worker("w-2", slots=0), online=False)
        self.failureResultOf(self.house.submit(ECHO, Target(worker="w-2"), PATIENT), QueueFull)
        answer = self.submit(W1, PATIENT)
        for n in range(self.queue_max):
            self.ledger.decide(a_job(f"j-{n}", JobState.STOPPED, None, terms=PATIENT))
        self.probe()
        self.started(answer)

    def test_the_probe_fails(self) -> None:
        """If the probe fails the request is refused at once, with the reason."""
        answer = self.submit()
        self.probe(Unreachable("w-1", reason="connection refused"))
        error = self.failureResultOf(answer, Unreachable).value
        self.assertEqual(str(error), "worker 'w-1' can't be reached: calls to it fail: connection refused")
        self.failureResultOf(self.house.submit(ECHO, W1), Unreachable)

    def test_too_long(self) -> None:
        """No request waits for longer than a few seconds."""
        answer, other = self.submit(), self.submit(ANY)
        self.clock.advance(EXPECTED_WAIT_MAX_SECONDS - 0.1)
        self.assertNoResult(answer)
        self.clock.advance(0.1)
        self.failureResultOf(answer, Unreachable)
        self.failureResultOf(other, NoFreeSlot)
        self.assertTrue(self.house.parts.expected.idle)

    def test_each_has_its_time(self) -> None:
        """A request that waits again, as others were faster, waits no longer than that in all."""
        self.register("w-2", slots=1)
        answers = [self.submit(ANY), self.submit(ANY)]
        self.clock.advance(EXPECTED_WAIT_MAX_SECONDS - 0.1)
        self.probe()
        self.assertEqual(self.calls()[-1], ("start_job", "w-1"))
        self.assertNoResult(answers[1])
        self.clock.advance(0.1)
        self.failureResultOf(answers[1], NoFreeSlot)

    def test_as_many_as_it_has_slots(self) -> None:
        """A worker that comes online takes the first requests, and the others wait for the next one."""
        self.register("w-2", slots=2)
        answers = [self.submit(ANY) for _ in range(4)]
        self.probe()
        self.started(answers[0])
        self.probe()
        self.started(answers[1])
        self.started(answers[2])
        self.failureResultOf(answers[3], NoFreeSlot)

    def test_no_more_than_it_has_slots(self) -> None:
        """No request is woken in vain: a worker that comes online wakes as many as it has free slots."""
        self.register("w-2", slots=3)
        self.add(a_job(worker_id="w-2"))
        requirement = Requirement.of(ECHO, ANY)
        waiters = [self.house.parts.expected.wait(requirement, 5.0) for _ in range(4)]
        self.assertEqual([call.worker_id for call in self.held()], ["w-1", "w-2"])
        self.workers.held.pop().answer.callback(None)
        self.settle()
        self.assertEqual([waiter is not None and waiter.called for waiter in waiters], [True, True, False, False])
        self.clock.advance(5.0)

    def test_an_error_of_the_process_before(self) -> None:
        """A call to the process before, answered by another program, settles nothing of the one that registers."""
        self.liveness.observe("w-1", call := Deferred[None]()).addErrback(lambda _: None)
        self.register(slots=1)
        answer = self.submit()
        call.errback(Misdirected("w-1"))
        self.settle()
        self.assertNoResult(answer)
        self.workers.held.pop().answer.callback(None)
        self.started(answer)

    def test_one_comes_later(self) -> None:
        """A worker that registers while a request waits for others can take it."""
        self.add(a_job())
        answer = self.submit(ANY)
        self.register("w-2")
        self.assertEqual(self.calls(), [("probe", "w-1"), ("probe", "w-2")])
        self.workers.held.pop().answer.callback(None)
        self.settle()
        self.assertEqual(self.calls()[-1], ("start_job", "w-2"))
        self.assertNoResult(answer)

    def test_it_is_gone(self) -> None:
        """A worker that deregisters, or leaves, is not waited for any more."""
        answer = self.submit()
        self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", "boot", leaving=True), PEER))
        self.settle()
        self.failureResultOf(answer, Unreachable)
        self.register()
        answer = self.submit()
        self.successResultOf(self.membership.deregister("w-1", "", PEER))
        self.settle()
        self.failureResultOf(answer, NotFound, Unreachable)

    def test_key(self) -> None:
        """The key of a request that waits is in use."""
        key = RequestKey("k", "f" * 64)
        answer = self.house.submit(ECHO, W1, NO_WAITING, key)
        self.failureResultOf(self.house.submit(ECHO, W1, NO_WAITING, key), KeyInUse)
        self.probe()
        job = self.started(answer)
        self.assertEqual(self.successResultOf(self.house.submit(ECHO, W1, NO_WAITING, key)).id, job.id)

    def test_a_client_that_leaves(self) -> None:
        """A request whose client has gone is carried out all the same."""
        answer = self.submit()
        answer.addErrback(lambda _: None)
        answer.cancel()
        self.probe()
        self.assertEqual(self.calls(), [("start_job", "w-1")])

    def test_shutting_down(self) -> None:
        """The end of the scheduler ends every wait, and nothing is started."""
        answers = [self.submit(), self.submit(ANY)]
        self.assertFalse(self.house.parts.expected.idle)
        self.successResultOf(self.cluster.shut_down())
        self.settle()
        for answer in answers:
            self.failureResultOf(answer, ShuttingDown)
        self.assertEqual((self.house.parts.expected.idle, self.jobs(), self.calls()), (True, [], [("probe", "w-1")]))

    def test_woken_and_shutting_down(self) -> None:
        """A job that could start at the moment of the shutdown is not started."""
        answer = self.submit()
        self.workers.take("probe").answer.callback(None)
        self.cluster.shut_down()
        self.settle()
        self.failureResultOf(answer, ShuttingDown)
        self.assertEqual((self.jobs(), self.calls()), ([], []))

    def test_only_chance_and_shutting_down(self) -> None:
        """A job with a single placement attempt keeps it for the next start of the scheduler."""
        job = a_job(state=JobState.QUEUED, worker_id=None, target=W1, terms=QueueTerms(retry=Retry(1, 0.0)))
        self.add(evolve(job, promised=True, retry_of="j-0"))
        self.clock.advance(1.0)
        self.cluster.shut_down()
        self.settle()
        self.assertIs(self.only_job().state, JobState.QUEUED)

    def test_many(self) -> None:
        """When too many requests wait, further ones are refused at once."""
        for _ in range(MAX_WAITING_REQUESTS):
            self.house.submit(ECHO, W1).addErrback(lambda _: None)
        self.failureResultOf(self.house.submit(ECHO, W1), Unreachable)

    def test_only_chance(self) -> None:
        """A next attempt that may not wait for its worker waits for the probe of one that has just registered."""
        job = a_job(state=JobState.QUEUED, worker_id=None, target=W1, terms=QueueTerms(retry=Retry(1, 0.0)))
        self.add(evolve(job, promised=True, retry_of="j-0"))
        self.clock.advance(1.0)
        self.ledger.learn(evolve(self.only_job(), reason="it changes meanwhile"), lazily=True)
        self.settle()
        self.assertIs(self.only_job().state, JobState.QUEUED)
        self.probe()
        self.assertEqual(self.calls(), [("start_job", "w-1")])

    def test_only_chance_is_stopped(self) -> None:
        """A job that is stopped meanwhile is not started."""
        job = a_job(state=JobState.QUEUED, worker_id=None, target=W1, terms=QueueTerms(retry=Retry(1, 0.0)))
        self.add(evolve(job, promised=True, retry_of="j-0"))
        self.clock.advance(1.0)
        self.successResultOf(self.cluster.stop("j-1"))
        self.probe()
        self.assertEqual((self.calls(), self.only_job().state), ([], JobState.STOPPED))


class LoadedTests(ExpectedTestCase):
    """The scheduler was started again: it knows the worker, and has not heard from it."""

    def setUp(self) -> None:
        super().setUp()
        self.add(a_worker("core", boot_id=""))
        self.begin()

    def test_called_at_once(self) -> None:
        """Every worker is called when the scheduler starts, though it was not heard."""
        self.assertEqual(self.calls(), [("probe", "core"), ("probe", "w-1")])

    def test_heard_and_answered(self) -> None:
        """A start waits until the worker has called and has answered, in either order."""
        answer = self.submit()
        self.workers.held.pop().answer.callback(None)
        self.settle()
        self.assertNoResult(answer)
        self.beat()
        self.started(answer)

    def test_heard_first(self) -> None:
        """The same where the heartbeat is faster than the answer."""
        answer = self.submit()
        self.beat()
        self.assertEqual(self.calls(), [("probe", "core"), ("probe", "w-1")])
        self.workers.held.pop().answer.callback(None)
        self.started(answer)

    def test_core(self) -> None:
        """A core worker has to answer, and no more."""
        answer = self.submit(Target(worker="core"))
        self.probe()
        self.workers.held.pop().answer.callback(JobStatus("own", JobState.RUNNING))
        self.successResultOf(answer)

    def test_it_can_not_be_called(self) -> None:
        """A worker that can't be called is not waited for, unless it calls: then it is called again."""
        answer = self.submit()
        self.workers.held.pop().answer.errback(Unreachable("w-1", reason="connection refused"))
        self.settle()
        never = "it has not called since the scheduler was started; calls to it fail: connection refused"
        self.assertEqual(self.failureResultOf(answer, Unreachable).value.reason, never)
        self.beat()
        answer = self.submit()
        self.workers.held.pop().answer.callback(None)
        self.started(answer)

    def test_never_heard(self) -> None:
        """A request does not wait for a worker that answers, but has not called for a lease."""
        self.workers.release("probe")
        self.house.limits["lease"] = 30.0
        self.begin()
        answer = self.submit()
        self.clock.advance(EXPECTED_WAIT_MAX_SECONDS)
        self.failureResultOf(answer, Unreachable)
        answer = self.submit()
        self.clock.pump([5.0] * 7)
        self.failureResultOf(answer, Unreachable)
        self.failureResultOf(self.house.submit(ECHO, W1), Unreachable)

    def test_deregistered(self) -> None:
        """A worker that has deregistered is not called, and requests do not wait for it."""
        self.workers.held.clear()
        self.ledger.learn(a_worker(deregistered_at=900.0))
        self.begin()
        self.assertEqual(self.calls(), [("probe", "core")])
        self.failureResultOf(self.house.submit(ECHO, W1), Unreachable)

    def test_selector(self) -> None:
        """A start by selector waits for any of the workers that match, and no longer when none is expected."""
        answer = self.submit(ANY)
        self.probe(Unreachable("core"))
        self.assertNoResult(answer)
        self.probe(Unreachable("w-1"))
        self.failureResultOf(answer, NoFreeSlot)

    def test_the_queue(self) -> None:
        """Queued jobs are placed on each worker when it comes online."""
        self.workers.held.clear()
        self.ledger.learn(a_job(state=JobState.QUEUED, worker_id=None, terms=PATIENT, promised=True))
        self.begin()
        self.beat()
        self.assertEqual(self.calls(), [("probe", "core"), ("probe", "w-1")])
        self.workers.held.pop().answer.callback(None)
        self.assertEqual(self.calls()[-1], ("start_job", "w-1"))

    def test_one_that_is_waited_for_goes_first(self) -> None:
        """Workers are called a few at a time, one that a request waits for at once, and one that was heard next."""
        self.workers.held.clear()
        for number in range(100):
            self.ledger.learn(a_worker(f"w-{number:03}"))
        self.begin()
        first = len(self.held())
        self.assertLess(first, 32)
        self.submit(Target(worker="w-099"))
        self.beat("w-098")
        self.assertEqual(self.calls()[first:], [("probe", "w-099")])
        self.probe()
        self.assertEqual(self.calls()[first:], [("probe", "w-098")])
        called = ["core"]
        while self.workers.held:
            called.append(self.workers.held[0].worker_id)
            self.probe()
        self.assertEqual(sorted(called), sorted(self.ledger.registry.workers.ids()))
