"""Jobs that wait for a worker: who waits, who goes first, and when it is over."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred

from scheduler.cluster import lifecycle
from scheduler.cluster.changes import Change, JobChanged
from scheduler.cluster.jobs.choice import MAX_WORKERS_TRIED
from scheduler.cluster.jobs.dispatcher import MAX_STARTS, MAX_STARTS_PER_WORKER, SWEEP_INTERVAL_SECONDS
from scheduler.cluster.jobs.queue import RESTART_GRACE_SECONDS
from scheduler.cluster.saving import STORE_RETRY_FIRST_SECONDS, UNSAVED_MAX_SECONDS
from scheduler.cluster.settling import SILENCE_MAX_SECONDS
from scheduler.errors import (
    Busy,
    Conflict,
    DeadlineExceeded,
    Misdirected,
    NoFreeSlot,
    NotAWorker,
    NotFound,
    QueueFull,
    StoreFailed,
    Unavailable,
    Unreachable,
    Unsupported,
)
from scheduler.messages import JobStatus, Registration, RequestKey
from scheduler.model import Job, JobSpec, JobState, Stream, Worker, WorkerState
from scheduler.terms import NO_WAITING, QueueTerms, Retry, Target
from scheduler.views import JobFilter
from tests.doubles.workers import Call
from tests.unit.cluster.case import ANY, ECHO, W1, ClusterTestCase
from tests.unit.cluster.values import a_job, a_worker

HOUR = 3600.0
PATIENT = QueueTerms(queue_timeout=HOUR)
KEY = RequestKey("k", "f" * 64)
SHORT = Unavailable("no more processes", 5)


class QueueTestCase(ClusterTestCase):
    """One worker with one slot, which is taken by a job of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.add(a_worker(slots=1))
        self.first = self.run_job(W1)

    def run_job(self, target: Target = ANY) -> Job:
        """One that runs at once."""
        answer = self.cluster.submit(ECHO, target)
        self.running(self.take("start_job"))
        return self.successResultOf(answer)

    def running(self, call: Call) -> Job:
        """The worker has started it."""
        (job,) = call.args
        call.answer.callback(JobStatus(job.id, JobState.RUNNING))
        return self.cluster.job(job.id)

    def submit(self, target: Target = ANY, terms: QueueTerms = PATIENT, **more: Any) -> Deferred[Job]:
        return self.cluster.submit(more.pop("spec", ECHO), target, terms, **more)

    def queued(self, target: Target = ANY, terms: QueueTerms = PATIENT, **more: Any) -> Job:
        """One that has to wait."""
        job = self.successResultOf(self.submit(target, terms, **more))
        self.assertEqual((job.state, job.promised), (JobState.QUEUED, True))
        self.assertEqual(self.held(), [])
        return job

    def end(self, job: Job) -> None:
        """It has succeeded."""
        current = self.cluster.job(job.id)
        self.ledger.learn(evolve(current, state=JobState.SUCCEEDED, finished_at=self.wall, exit_code=0))
        self.settle()

    def change(self, worker: Worker) -> None:
        self.add(worker)
        self.settle()

    def taken(self) -> Job:
        """The job that a worker is asked to start next."""
        self.settle()
        job = self.running(self.take("start_job"))
        self.assertIs(job.state, JobState.RUNNING)
        return job

    def state(self, job: Job) -> JobState:
        return self.cluster.job(job.id).state

    def assert_ended(self, job: Job, state: JobState, reason: str) -> None:
        ended = self.cluster.job(job.id)
        self.assertEqual((ended.state, ended.reason), (state, reason))


class EnteringTests(QueueTestCase):
    def test_by_selector(self) -> None:
        """A job for which no slot is free is queued, without a worker, and durable before it is answered."""
        self.store.held = True
        answer = self.submit()
        self.assertNoResult(answer)
        self.store.commit()
        job = self.successResultOf(answer)
        self.assertEqual((job.state, job.worker_id, job.worker_name), (JobState.QUEUED, None, None))
        self.assertEqual(self.cluster.job(job.id), job)

    def test_not_by_default(self) -> None:
        """Without a ``queue_timeout`` it is now or never."""
        self.failureResultOf(self.cluster.submit(ECHO, ANY), NoFreeSlot)
        self.assertEqual(self.jobs(), [self.first])

    def test_unreachable_ones_match(self) -> None:
        """A job that only unreachable workers match is queued; one that none matches, or only draining ones, is not."""
        self.change(a_worker(state=WorkerState.UNREACHABLE))
        self.queued()
        self.failureResultOf(self.submit(Target(selector={"gpu": "yes"})), Conflict)
        for useless in (a_worker(draining=True), a_worker(slots=0)):
            self.change(useless)
            self.failureResultOf(self.submit(), Conflict)

    def test_named(self) -> None:
        """For a named worker a job waits only where that can't be reached; its slots do not bind."""
        self.assertEqual(self.run_job(W1).worker_id, "w-1")
        self.change(a_worker(state=WorkerState.UNREACHABLE))
        self.failureResultOf(self.cluster.submit(ECHO, W1), Unreachable)
        job = self.queued(W1)
        self.assertEqual((job.worker_id, job.worker_name), (None, "w-1"))
        self.change(a_worker(slots=1))
        self.assertEqual(self.taken().id, job.id)

    def test_named_and_hopeless(self) -> None:
        """Where waiting will not mend it nothing waits."""
        self.failureResultOf(self.submit(Target(worker="w-9")), NotFound)
        self.change(a_worker(draining=True))
        self.failureResultOf(self.submit(W1), Conflict)
        self.change(a_worker(boot_id="", slots=None, state=WorkerState.UNREACHABLE))
        self.failureResultOf(self.submit(W1, spec=JobSpec(command="x", args=("y",))), Unsupported)

    def test_full(self) -> None:
        """When as many are queued as may, those being committed included, one more is refused."""
        self.queued()
        self.store.held = True
        self.submit()
        self.submit()
        self.assertEqual(self.failureResultOf(self.submit(), QueueFull).value.limit, 3)

    def test_not_committed(self) -> None:
        """A job that could not be committed is not queued, and takes no place."""
        self.store.held = True
        answer = self.submit()
        self.store.fail()
        self.failureResultOf(answer, StoreFailed)
        self.store.held = False
        self.clock.advance(1)
        for _ in range(3):
            self.queued()

    def test_key(self) -> None:
        """The answer with a key is the queued job, whatever became of it, across a restart too."""
        job = self.queued(key=KEY)
        self.end(self.first)
        self.assertEqual(self.taken().id, job.id)
        for _ in range(2):
            self.assertEqual(self.successResultOf(self.submit(key=KEY)), job)
            self.begin()

    def test_newcomers_wait_their_turn(self) -> None:
        """A slot that was freed this moment is not for one who just came, unless that goes first."""
        waited = self.queued()
        self.store.held = True
        self.end(self.first)
        self.store.commit()
        self.settle()
        self.store.held = False
        self.assertIs(self.state(waited), JobState.STARTING)  # it waits for its commit
        self.change(a_worker(slots=2, state=WorkerState.UNREACHABLE))
        late = self.queued()
        self.house.know(a_worker(slots=2))  # nobody has looked at it yet
        self.assertIs(self.successResultOf(self.submit()).state, JobState.QUEUED)
        urgent = self.submit(terms=QueueTerms(HOUR, priority=1))
        self.assertEqual(self.running(self.take("start_job")), self.successResultOf(urgent))
        self.assertIs(self.state(late), JobState.QUEUED)


class OrderTests(QueueTestCase):
    queue_max = 100

    def test_priority_then_age(self) -> None:
        """The slot goes to the highest priority, and of those to who came first."""
        jobs = [self.queued(terms=QueueTerms(HOUR, priority=priority)) for priority in (0, -1, 5, 0, 5)]
        last = self.first
        for number in (2, 4, 0, 3, 1):
            self.end(last)
            last = self.taken()
            self.assertEqual(last.id, jobs[number].id)
        self.assertEqual(self.held(), [])

    def test_nobody_is_held_up(self) -> None:
        """A job that no worker can take now lets those behind it pass, whatever its priority."""
        self.add(a_worker("w-2", labels={"gpu": "yes"}, state=WorkerState.UNREACHABLE))
        urgent = self.queued(Target(selector={"gpu": "yes"}), QueueTerms(HOUR, priority=1000))
        waits = self.queued()
        self.end(self.first)
        self.assertEqual(self.taken().id, waits.id)
        self.assertIs(self.state(urgent), JobState.QUEUED)

    def test_least_loaded(self) -> None:
        """Workers that come at the same moment share the work."""
        self.change(a_worker(state=WorkerState.UNREACHABLE))
        for _ in range(4):
            self.queued()
        self.add(*(a_worker(name, slots=2) for name in ("w-2", "w-3")))
        self.assertEqual([call.worker_id for call in self.held()], ["w-2", "w-3", "w-2", "w-3"])

    def test_no_more_than_slots(self) -> None:
        """A worker gets as many as it has slots, a core worker as many as there are."""
        for _ in range(5):
            self.queued()
        self.change(a_worker("w-2", slots=2))
        self.assertEqual(len(self.held()), 2)
        self.workers.held.clear()
        self.change(a_worker("w-3", slots=None, boot_id=""))
        self.assertEqual(len(self.held()), 3)

    def test_few_at_a_time(self) -> None:
        """No worker is flooded with those that waited for it, and nothing is by all workers together."""
        self.change(a_worker(state=WorkerState.UNREACHABLE))
        waiting = [self.queued(W1) for _ in range(MAX_STARTS_PER_WORKER + 2)]
        self.change(a_worker())
        self.assertEqual(len(self.held()), MAX_STARTS_PER_WORKER)
        for _ in waiting:
            self.taken()
        self.change(a_worker(state=WorkerState.UNREACHABLE))
        for _ in range(MAX_STARTS + 5):
            self.queued()
        for number in range(MAX_STARTS + 5):
            self.add(a_worker(f"x-{number}", slots=1))
        self.settle()
        self.assertEqual(len(self.held()), MAX_STARTS)
        for _ in range(MAX_STARTS + 5):
            self.taken()
        self.assertEqual(self.held(), [])


class FindingTests(QueueTestCase):
    """Workers are found for lines, without looking at all workers."""

    queue_max = 100

    def all_in_backoff(self, *names: str, slots: int = 2) -> None:
        """These workers can take jobs again in a while, of which nobody is told."""
        self.add(*(a_worker(name, slots=slots) for name in names))
        for name in names:
            self.house.parts.backoff.refused(name, SHORT)

    def turns(self) -> list[str]:
        """Of the workers that were looked at, as the calls that find a job for one of them."""
        looked_at: list[str] = []
        first = self.waiting.first

        def counted(worker: Worker, free: bool) -> str | None:
            looked_at.append(worker.id)
            return first(worker, free)

        self.patch(self.waiting, "first", counted)
        return looked_at

    def starts_sent(self) -> list[str]:
        return [call.worker_id for call in self.held() if call.method == "start_job"]

    def test_a_line_has_as_many_workers_as_it_needs(self) -> None:
        """When the workers of a line can take jobs again they get all that wait, the least loaded one each time."""
        self.all_in_backoff("w-2", "w-3", "w-4")
        self.run_job(Target(worker="w-3"))  # which ends its backoff
        self.house.parts.backoff.refused("w-3", SHORT)
        for _ in range(4):
            self.queued()
        self.clock.pump([1.0] * 8)
        self.assertEqual(self.starts_sent(), ["w-2", "w-4", "w-2", "w-3"])

    def test_several_lines(self) -> None:
        """Each line has its turn, and a worker that serves several has the oldest job first."""
        self.add(a_worker("w-2", labels={"gpu": "yes"}, slots=2), a_worker("w-3", labels={"gpu": "yes"}, slots=1))
        for name in ("w-2", "w-3"):
            self.house.parts.backoff.refused(name, SHORT)
        jobs = [self.queued(Target(selector=selector)) for selector in ({}, {"gpu": "yes"}, {})]
        self.clock.pump([1.0] * 8)
        sent = [(call.args[0].id, call.worker_id) for call in self.held()]
        self.assertEqual(sent, [(jobs[0].id, "w-2"), (jobs[1].id, "w-3"), (jobs[2].id, "w-2")])

    def test_one_that_has_enough_to_start(self) -> None:
        """Where the least loaded worker may not be sent more at present, the next one is found."""
        self.add(a_worker("w-3", slots=20))
        for _ in range(MAX_STARTS_PER_WORKER + 1):
            self.run_job(Target(worker="w-3"))
        self.house.parts.backoff.refused("w-3", SHORT)
        self.all_in_backoff("w-2", slots=20)
        for _ in range(MAX_STARTS_PER_WORKER + 2):
            self.queued()
        self.clock.pump([1.0] * 8)
        self.assertEqual(self.starts_sent(), ["w-2"] * MAX_STARTS_PER_WORKER + ["w-3"] * 2)

    def test_loads_change_meanwhile(self) -> None:
        """It is the load at a worker's turn that counts, not that of when it was found worth a look."""
        self.queued()
        self.house.know(a_worker("w-2"), a_worker("w-3"))
        self.cluster.submit(ECHO, Target(worker="w-2"))
        self.settle()
        self.assertEqual(self.starts_sent(), ["w-2", "w-3"])

    def test_worth_a_look_twice(self) -> None:
        """Two slots of one worker that become free in one turn are both taken in the next."""
        self.add(a_worker("w-2", slots=2))
        ended = [evolve(self.run_job(), state=JobState.SUCCEEDED, finished_at=self.wall) for _ in range(2)]
        jobs = [self.queued() for _ in range(3)]
        self.add(*ended)
        self.settle()
        self.assertEqual([call.args[0].id for call in self.held()], [job.id for job in jobs[:2]])

    def test_few_are_looked_at(self) -> None:
        """Of many workers that are free, those are looked at that get a job, whatever else waits in vain."""
        self.change(a_worker(labels={"gpu": "yes"}, slots=1))
        for _ in range(3):
            self.queued(Target(selector={"gpu": "yes"}))
        self.all_in_backoff(*(f"x-{number:03}" for number in range(300)))
        self.queued()
        looked_at = self.turns()
        self.clock.pump([1.0] * 8)
        self.assertEqual(self.starts_sent(), ["x-000"])
        self.assertLessEqual(len(looked_at), 3)

    def test_a_full_worker_is_not_looked_at(self) -> None:
        """A sign of life of a worker without a slot starts nothing, while only selectors wait."""
        self.queued()
        looked_at = self.turns()
        self.settle()
        self.change(a_worker(slots=1, last_seen=9.0))
        self.assertEqual(looked_at, [])

    def test_newcomers_behind_a_line(self) -> None:
        """A newcomer that has to wait behind the line of all workers is told so without a look at each of them."""
        self.queued()
        self.house.know(*(a_worker(f"x-{number:03}") for number in range(300)))  # the line gets one in the next turn
        asked: list[Worker] = []

        def before(worker: Worker, priority: int) -> bool:
            asked.append(worker)
            return True

        self.patch(self.waiting, "before", before)
        self.assertIs(self.successResultOf(self.submit()).state, JobState.QUEUED)
        self.failureResultOf(self.submit(Target(selector={"name": "x-001"}), NO_WAITING), NoFreeSlot)
        self.assertEqual(asked, [])
        self.failureResultOf(self.submit(terms=evolve(NO_WAITING, priority=1)), NoFreeSlot)  # goes first, were it not
        self.assertEqual(len(asked), 300)


class StartingTests(QueueTestCase):
    def test_commit_then_call(self) -> None:
        """A job that leaves the queue is starting on its worker, and that is durable, before the worker is called."""
        job = self.queued()
        self.store.held = True
        self.end(self.first)
        self.store.commit()
        self.settle()
        starting = self.cluster.job(job.id)
        self.assertEqual((starting.state, starting.worker_id, starting.worker_name), (JobState.STARTING, "w-1", "w-1"))
        self.assertEqual(self.held(), [])
        self.store.commit()
        self.assertEqual(self.taken().id, job.id)

    def test_not_committed(self) -> None:
        """If that could not be committed the job waits again, and is started when the store is well."""
        job = self.queued()
        self.store.held = True
        self.end(self.first)
        self.store.commit()
        self.settle()
        self.store.fail()
        self.assertEqual((self.state(job), self.held()), (JobState.QUEUED, []))
        self.assertFalse(self.house.parts.backoff.active("w-1"))  # it was not even called
        self.store.held = False
        self.clock.advance(STORE_RETRY_FIRST_SECONDS)
        self.clock.advance(SWEEP_INTERVAL_SECONDS - STORE_RETRY_FIRST_SECONDS)
        self.assertEqual(self.taken().id, job.id)

    def test_while_the_store_fails(self) -> None:
        """No start is tried: each would fail at once, and wait again, and be tried again."""
        job = self.queued()
        self.store.problem = "disk full"
        self.ledger.learn(evolve(self.cluster.job(self.first.id), started_at=1.0), lazily=True)
        self.clock.advance(UNSAVED_MAX_SECONDS)
        self.assertEqual(self.ledger.store_problem, "disk full")
        states: list[JobState] = []
        self.cluster.watch(job.id, lambda job: states.append(job.state))
        self.add(a_worker(slots=2), a_worker("w-2"))
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 10)
        self.assertEqual((states, self.held(), self.state(job)), ([], [], JobState.QUEUED))
        self.store.problem = ""
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 6)
        self.assertEqual(self.taken().id, job.id)

    def test_what_frees_a_worker(self) -> None:
        """The end of a job, a worker that comes, a new one, more slots, a drain that is over: each starts one."""
        for free in (
            lambda: self.end(self.first),
            lambda: self.change(a_worker(slots=9)),
            lambda: self.change(a_worker("w-2")),
            lambda: self.ledger.learn(self.cluster.job(self.first.id).ref),
        ):
            self.setUp()
            job = self.queued()
            free()
            self.assertEqual(self.taken().id, job.id)
        self.setUp()
        job = self.queued()
        self.successResultOf(self.cluster.drain("w-1"))
        self.end(self.first)
        self.clock.advance(SWEEP_INTERVAL_SECONDS)
        self.assertEqual(self.held(), [])
        self.successResultOf(self.cluster.resume("w-1"))
        self.assertEqual(self.taken().id, job.id)

    def test_safety_net(self) -> None:
        """A slot that was freed without a word is found within seconds, and an empty queue has no timer."""
        self.ledger.registry.reserve("w-1")
        job = self.queued()
        self.end(self.first)
        self.assertEqual(self.held(), [])
        self.ledger.registry.release("w-1")
        self.clock.advance(SWEEP_INTERVAL_SECONDS)
        self.assertEqual(self.taken().id, job.id)
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 2)
        self.assertEqual(self.house.timers(), 0)

    def test_it_never_left(self) -> None:
        """A start that never left puts the job back where it was, and the worker is in backoff."""
        for error in (Unreachable("w-1"), Busy("calls", 4), Unavailable("no space left", 5)):
            self.setUp()
            job, behind = self.queued(), self.queued()
            self.end(self.first)
            self.take("start_job").answer.errback(error)
            current = self.cluster.job(job.id)
            self.assertEqual((current.state, current.worker_id), (JobState.QUEUED, None))
            self.assertEqual(current.reason, str(error))
            self.settle()
            self.assertEqual(self.held(), [])
            self.clock.pump([SWEEP_INTERVAL_SECONDS] * 4)
            self.assertEqual(self.taken().id, job.id)
            self.assertIsNone(self.cluster.job(job.id).reason)
            self.assertIs(self.state(behind), JobState.QUEUED)

    def test_on_its_way_before_it_waits(self) -> None:
        """One that comes back may be sent elsewhere before that is durable: both starts end, each with its answer."""
        self.add(a_worker("w-2", slots=1))
        answer = self.submit()
        self.add(a_worker("w-3", slots=1))
        self.store.held = True
        self.take("start_job").answer.errback(Busy("calls", 4))
        self.settle()
        self.assertNoResult(answer)
        while len(self.store.saves):
            self.store.commit()
        self.store.held = False
        job = self.successResultOf(answer)
        self.assertIs(job.state, JobState.QUEUED)
        again = self.house.parts.flights.over(job.id)
        self.assertEqual(self.taken().worker_id, "w-3")
        self.successResultOf(again)
        self.assertNotIn(job.id, self.house.parts.flights)

    def test_backoff_until_it_registers(self) -> None:
        """A worker that took no job and registers again is sent one at once: it is a new process."""
        job = self.queued()
        self.end(self.first)
        self.take("start_job").answer.errback(Unavailable("no space left", 60))
        self.settle()
        self.assertEqual(self.held(), [])
        worker = self.ledger.registry.worker("w-1")
        registration = Registration(worker.address, "w-1", boot_id="boot", slots=1)
        self.successResultOf(self.membership.register(registration, "127.0.0.1"))
        self.change(a_worker(slots=1))  # it is online
        self.assertEqual(self.taken().id, job.id)

    def test_no_backoff_of_a_worker_that_has_gone(self) -> None:
        """Nothing is kept of a worker that took no job and is removed, nor of one that is removed before it answers."""
        self.queued()
        self.end(self.first)
        self.take("start_job").answer.errback(Unavailable("no space left", 60))
        gone = self.ledger.registry.worker("w-1")
        self.assertTrue(self.house.parts.backoff.active(gone.id))
        self.successResultOf(self.membership.deregister("w-1", ""))
        self.assertFalse(self.house.parts.backoff.active(gone.id))
        self.change(a_worker("w-2"))
        call = self.take("start_job")
        gone = self.ledger.registry.worker("w-2")
        self.successResultOf(self.membership.deregister("w-2", ""))
        call.answer.errback(Unreachable("w-2"))
        self.assertFalse(self.house.parts.backoff.active(gone.id))

    def test_another_worker(self) -> None:
        """What one worker would not take another may."""
        job = self.queued()
        self.end(self.first)
        call = self.take("start_job")
        self.change(a_worker("w-2"))
        call.answer.errback(Unavailable("no space left"))
        self.settle()
        self.assertEqual(self.held()[0].worker_id, "w-2")
        self.assertEqual(self.taken().id, job.id)

    def test_a_worker_that_leaves_meanwhile(self) -> None:
        """A start that never left because its worker deregistered makes the job wait, and fails nothing."""
        self.end(self.first)
        answer = self.submit()
        first = self.take("start_job")
        self.change(a_worker())
        queued = self.submit(W1)
        second = self.take("start_job")
        self.successResultOf(self.membership.deregister("w-1", ""))
        for call in (first, second):
            call.answer.errback(Unreachable("w-1"))
        for job in (self.successResultOf(answer), self.successResultOf(queued)):
            self.assertEqual((job.state, self.state(job)), (JobState.QUEUED, JobState.QUEUED))
        self.change(a_worker())
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 4)
        self.assertEqual(len(self.held()), 2)

    def test_a_worker_that_is_forgotten_meanwhile(self) -> None:
        """With a worker go the jobs whose starts may have arrived there, and none whose start never left."""
        arrived, never_left = self.queued(), self.queued()
        self.change(a_worker(slots=3))
        calls = [self.take("start_job") for _ in range(2)]
        self.change(a_worker(state=WorkerState.UNREACHABLE))
        forgotten = self.cluster.forget("w-1")
        self.assertNoResult(forgotten)
        self.assertIn("w-1", self.workers.forgotten)  # which ends the calls
        calls[0].answer.errback(Unreachable("w-1", sent=True))
        calls[1].answer.errback(Unreachable("w-1"))
        self.successResultOf(forgotten)
        self.assert_ended(arrived, JobState.LOST, "forgotten")
        self.assertIs(self.state(never_left), JobState.QUEUED)
        self.change(a_worker("w-2"))
        self.assertEqual(self.taken().id, never_left.id)

    def test_a_direct_start_that_never_left(self) -> None:
        """A job that may wait does so then, and is no error; where it may not it is one, and no job."""
        self.end(self.first)
        answer = self.submit(key=KEY)
        self.take("start_job").answer.errback(Busy("calls", 4))
        job = self.successResultOf(answer)
        self.assertEqual((job.state, job.worker_id, job.promised), (JobState.QUEUED, None, True))
        self.assertEqual(self.successResultOf(self.submit(key=KEY)), job)
        self.failureResultOf(self.cluster.submit(ECHO, ANY), NoFreeSlot)
        self.clock.advance(SWEEP_INTERVAL_SECONDS)
        self.assertEqual(self.taken().id, job.id)

    def test_a_direct_start_that_can_not_be_queued(self) -> None:
        """A job that would have to wait, and can't be saved as one that does, is an error and no job, with its key."""
        self.end(self.first)
        answer = self.submit(key=KEY)
        self.store.held = True
        self.take("start_job").answer.errback(Busy("calls", 4))
        self.store.fail()
        self.failureResultOf(answer, StoreFailed)
        self.assertEqual(([job.id for job in self.jobs()], self.cluster.replays(KEY)), ([self.first.id], False))
        self.store.held = False
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 4)
        self.assertEqual(self.held(), [])

    def test_a_stop_that_can_not_be_saved(self) -> None:
        """A stop of a start that never left is no end before that is durable."""
        job = self.queued()
        self.end(self.first)
        call = self.take("start_job")
        self.store.held = True
        stop = self.cluster.stop(job.id)
        call.answer.errback(Busy("calls", 4))
        while len(self.store.saves):
            self.store.fail()
        self.assertIs(self.state(job), JobState.STARTING)
        self.take("query_job").answer.errback(NotFound("job", job.id))  # and sealed
        self.failureResultOf(stop, StoreFailed)
        self.assertIs(self.state(job), JobState.STARTING)

    def test_a_worker_that_leaves_during_the_commit(self) -> None:
        """A worker that has gone when the job is durable is not called: another may listen at its address."""
        self.end(self.first)
        self.store.held = True
        answers = [self.submit(), self.cluster.submit(ECHO, W1)]
        self.membership.deregister("w-1", "")
        while len(self.store.saves):
            self.store.commit()
        self.assertEqual(self.held(), [])
        self.assertIs(self.successResultOf(answers[0]).state, JobState.QUEUED)
        self.failureResultOf(answers[1], Unreachable)

    def test_a_worker_that_moves_during_the_commit(self) -> None:
        """A worker that registers at another address while the job is committed is called there."""
        self.end(self.first)
        self.store.held = True
        self.submit(W1, NO_WAITING)
        self.change(a_worker(address="127.0.0.1:30999"))
        while len(self.store.saves):
            self.store.commit()
        self.assertEqual(self.take("start_job").address, "127.0.0.1:30999")

    def test_another_version_comes_during_the_commit(self) -> None:
        """A worker that came back as one that lacks what the job needs, when the job is durable, is not called."""
        self.change(a_worker(features={"umask"}))
        self.store.held = True
        answers = [self.submit(target, spec=JobSpec(command="a", umask=0)) for target in (ANY, W1)]
        self.change(a_worker(features=frozenset()))
        while len(self.store.saves):
            self.store.commit()
        self.assertEqual(self.held(), [])
        for answer in answers:
            self.assertIs(self.successResultOf(answer).state, JobState.QUEUED)
        self.store.held = False
        self.clock.advance(60)
        self.assertEqual(self.held(), [])
        self.change(a_worker(features={"umask"}))
        self.assertEqual(self.taken().spec.umask, 0)

    def test_sent_and_not_answered(self) -> None:
        """A start that may have arrived is unknown, and stays promised until its time is over."""
        job = self.queued()
        self.end(self.first)
        self.clock.advance(100)
        self.take("start_job").answer.errback(DeadlineExceeded("start", 10))
        self.assertIs(self.state(job), JobState.UNKNOWN)
        self.clock.advance(HOUR - 101)
        self.assertTrue(self.queue.still_wanted(self.cluster.job(job.id)))
        self.clock.advance(1)
        self.assertFalse(self.queue.still_wanted(self.cluster.job(job.id)))

    def test_used_up(self) -> None:
        """An id that its worker refuses for good ends the job."""
        job = self.queued()
        self.end(self.first)
        self.take("start_job").answer.errback(Conflict("the id was used before"))
        self.assert_ended(job, JobState.FAILED, "the id was used before")

    def test_the_worker_can_not(self) -> None:
        """A worker that knows no starts ends it too."""
        job = self.queued()
        self.end(self.first)
        self.take("start_job").answer.errback(Unsupported("w-1", "StartJob"))
        self.assert_ended(job, JobState.FAILED, "worker 'w-1' does not support StartJob")

    def test_shutting_down(self) -> None:
        """Nothing more is started then; those under way are waited for."""
        job, behind = self.queued(), self.queued()
        self.end(self.first)
        down = self.cluster.shut_down()
        self.assertNoResult(down)
        self.end(self.running(self.take("start_job")))
        self.successResultOf(down)
        self.assertEqual((self.state(job), self.state(behind)), (JobState.SUCCEEDED, JobState.QUEUED))
        self.queue.stopService()
        self.assertEqual(self.house.timers(), 0)


class ShortageTests(QueueTestCase):
    """Workers that are there, and lack something to start a job."""

    queue_max = 100

    def setUp(self) -> None:
        super().setUp()
        self.end(self.first)
        for name in ("w-2", "w-3"):
            self.add(a_worker(name, slots=2))

    def lacks(self, worker_id: str) -> Job:
        """The start that is under way there comes to nothing."""
        call = self.take("start_job")
        self.assertEqual(call.worker_id, worker_id)
        call.answer.errback(SHORT)
        (job,) = call.args
        return job

    def test_goes_elsewhere(self) -> None:
        """A job by selector goes to the next worker, once that is durable; its client hears of the one that took it."""
        told: list[Job] = []
        answer = self.submit(starting=told.append)
        self.store.held = True
        job = self.lacks("w-1")
        self.assertEqual(self.held(), [])
        self.assertEqual((self.state(job), self.cluster.job(job.id).worker_id), (JobState.STARTING, "w-2"))
        self.assertEqual([self.ledger.registry.load(name) for name in ("w-1", "w-2")], [0, 1])
        self.store.commit()
        self.store.held = False
        self.running(self.take("start_job"))
        running = self.successResultOf(answer)
        self.assertEqual((running.state, running.worker_name), (JobState.RUNNING, "w-2"))
        self.assertEqual([each.id for each in told], [job.id])
        self.begin()
        self.assertEqual(self.cluster.job(job.id).worker_id, "w-2")

    def test_all_lack_it(self) -> None:
        """A job that no worker could take waits if it may; else it is refused, and was never made."""
        answer = self.submit(terms=NO_WAITING, key=KEY)
        for name in ("w-1", "w-2", "w-3"):
            self.lacks(name)
        self.assertIs(self.failureResultOf(answer, Unavailable).value, SHORT)
        self.assertEqual(([job.id for job in self.jobs()], self.cluster.replays(KEY)), ([self.first.id], False))
        self.clock.advance(5)
        self.add(*(a_worker(name, slots=2) for name in ("w-1", "w-2", "w-3")))
        answer = self.submit()
        for name in ("w-1", "w-2", "w-3"):
            self.lacks(name)
        job = self.successResultOf(answer)
        self.assertEqual((job.state, job.reason), (JobState.QUEUED, str(SHORT)))
        self.clock.advance(9)
        self.assertEqual(self.held(), [])
        self.clock.pump([1.0, 1.0])
        self.taken()

    def test_not_to_all(self) -> None:
        """Where very many lack the same, some of them are answer enough."""
        self.add(*(a_worker(f"x-{number:02}") for number in range(20)))
        answer = self.submit()
        asked = []
        while self.workers.held:
            asked.append(self.workers.held[0].worker_id)
            self.lacks(asked[-1])
        self.assertEqual(len(set(asked)), MAX_WORKERS_TRIED)
        self.assertIs(self.successResultOf(answer).state, JobState.QUEUED)

    def test_named(self) -> None:
        """A job for that very worker goes nowhere else."""
        self.failureResultOf(self._refused(self.submit(W1, NO_WAITING)), Unavailable)
        self.assertIs(self.successResultOf(self.submit(W1)).state, JobState.QUEUED)
        self.assertEqual(self.held(), [])
        self.failureResultOf(self._refused(self.submit(W1, NO_WAITING)), Unavailable)

    def test_once_to_each(self) -> None:
        """However long they take to answer, none is asked twice."""
        answer = self.submit(terms=NO_WAITING)
        for seconds, name in (3, "w-1"), (6, "w-2"), (0, "w-3"):  # a backoff lasts 5
            self.clock.advance(seconds)
            self.lacks(name)
        self.failureResultOf(answer, Unavailable)
        self.assertEqual(self.held(), [])

    def _refused(self, answer: Deferred[Job]) -> Deferred[Job]:
        self.lacks("w-1")
        return answer

    def test_out_of_reach(self) -> None:
        """Nor does one whose start did not leave: only a worker's own word shows at once that nothing runs."""
        answer = self.submit(terms=NO_WAITING)
        self.take("start_job").answer.errback(Unreachable("w-1"))
        self.failureResultOf(answer, Unreachable)
        self.assertEqual(self.held(), [])

    def test_another_program(self) -> None:
        """A start that another program, or another process, answered goes to the next worker: nothing runs there."""
        for error in (NotAWorker("w-1", "StartJob"), Misdirected("w-1")):
            answer = self.submit(terms=NO_WAITING)
            call = self.take("start_job")
            call.answer.errback(error)
            other = self.running(self.take("start_job"))
            self.assertEqual(self.successResultOf(answer).id, other.id)
            self.assertIs(self.ledger.registry.worker(call.worker_id).state, WorkerState.UNREACHABLE)

    def test_stopped_meanwhile(self) -> None:
        """One that was asked to stop meanwhile goes nowhere any more."""
        answer = self.submit()
        (job,) = self.held()[0].args
        stop = self.cluster.stop(job.id)
        self.lacks("w-1")
        for stopped in (self.successResultOf(answer), self.successResultOf(stop)):
            self.assertIs(stopped.state, JobState.STOPPED)
        self.assertEqual(self.held(), [])

    def test_stopped_during_the_commit(self) -> None:
        """Nor one that is asked to stop while its way to another is committed."""
        answer = self.submit(terms=NO_WAITING)
        self.store.held = True
        job = self.lacks("w-1")
        stop = self.cluster.stop(job.id)
        while len(self.store.saves):
            self.store.commit()
        for stopped in (self.successResultOf(answer), self.successResultOf(stop)):
            self.assertIs(stopped.state, JobState.STOPPED)
        self.assertEqual(self.held(), [])

    def test_not_saved(self) -> None:
        """One whose way to another can't be saved is not sent there."""
        answer = self.submit(terms=NO_WAITING)
        self.store.held = True
        self.lacks("w-1")
        self.store.fail()
        self.failureResultOf(answer, StoreFailed)
        self.assertEqual(self.held(), [])
        self.assertIsNone(self.cluster.worker("w-2").reason)

    def test_one_chance(self) -> None:
        """A next attempt that may not wait has its one chance with each of the workers."""
        answer = self.submit(terms=QueueTerms(retry=Retry(1)))
        job = self.running(self.take("start_job"))
        self.successResultOf(answer)
        failed = evolve(self.cluster.job(job.id), state=JobState.FAILED, finished_at=self.wall)
        self.ledger.learn(failed)
        self.settle()
        following = self.lacks("w-1")
        self.assertEqual((following.retry_of, self.taken().worker_id), (job.id, "w-2"))

    def test_those_who_waited_go_first(self) -> None:
        """A newcomer that one could not take does not overtake others at the next."""
        for name in ("w-2", "w-3"):
            self.add(a_worker(name, slots=0))
        answer = self.submit(terms=NO_WAITING)
        self.add(a_worker(slots=1))
        waiting = self.successResultOf(self.submit())
        self.add(a_worker("w-2", slots=1))
        self.lacks("w-1")
        self.failureResultOf(answer, Unavailable)
        self.assertEqual(self.taken().id, waiting.id)

    def test_back_to_its_place(self) -> None:
        """Nor does one from the queue, which goes back there."""
        for name in ("w-1", "w-2", "w-3"):
            self.add(a_worker(name, state=WorkerState.UNREACHABLE))
        job = self.successResultOf(self.submit())
        self.change(a_worker(slots=1))
        self.assertIs(self.state(job), JobState.STARTING)
        urgent = self.successResultOf(self.submit(terms=QueueTerms(HOUR, priority=9)))
        self.add(a_worker("w-2", slots=1))
        self.assertEqual(self.lacks("w-1").id, job.id)
        self.assertEqual(self.taken().id, urgent.id)
        self.assertIs(self.state(job), JobState.QUEUED)

    def test_many(self) -> None:
        """A worker that can start nothing, and so is the least loaded, fails no job while another is well."""
        for worker in ("w-1", "w-3"):
            self.add(a_worker(worker, slots=0))
        self.add(a_worker("w-2", slots=0))
        self.add(a_worker("short", slots=8), a_worker("well", slots=2))
        answers = [self.submit() for _ in range(40)]
        refused = 0
        for _ in range(1000):
            self.clock.advance(0.1)
            for call in [self.take("start_job") for _ in list(self.held())]:
                if call.worker_id == "short":
                    refused += 1
                    call.answer.errback(SHORT)
                else:
                    self.end(self.running(call))
        states = {self.state(self.successResultOf(answer)) for answer in answers}
        self.assertEqual((states, len(self.jobs())), ({JobState.SUCCEEDED}, 41))
        self.assertGreater(refused, 0)

    def test_within_the_deadline(self) -> None:
        """One that took long to be refused goes to no other: who asked for it is to be answered."""
        answer = self.submit(terms=NO_WAITING)
        self.clock.advance(6)
        self.lacks("w-1")
        self.clock.advance(6)
        self.lacks("w-2")
        self.failureResultOf(answer, Unavailable)
        self.assertEqual(self.held(), [])

    def test_followed_meanwhile(self) -> None:
        """Who follows a job on its way from one to another gets what it writes there, whatever the first still says."""
        answer = self.submit()
        (job,) = self.held()[0].args
        start = self.take("start_job")
        reading = self.cluster.open_output(job.id, Stream.STDOUT, 0).read()
        self.take("stream_output")  # never answered
        start.answer.errback(SHORT)
        self.running(self.take("start_job"))
        self.successResultOf(answer)
        self.assertEqual(self.take("stream_output").worker_id, "w-2")
        reading.addErrback(lambda _: None).cancel()

    def test_asked_about_meanwhile(self) -> None:
        """Who asks about a job on its way from one to another is told what the last one says, not that it is lost."""
        answer = self.submit()
        (job,) = self.held()[0].args
        query = self.cluster.query("w-1", job.id)
        self.lacks("w-1")
        self.running(self.take("start_job"))
        self.successResultOf(answer)
        asked = self.take("query_job")
        self.assertEqual(asked.worker_id, "w-2")
        asked.answer.callback(JobStatus(job.id, JobState.RUNNING))
        self.assertIs(self.successResultOf(query).state, JobState.RUNNING)

    def test_what_tells_of_it(self) -> None:
        """The worker tells why while it is in backoff, and no more when it runs a job."""
        self.failureResultOf(self._refused(self.submit(W1, NO_WAITING)), Unavailable)
        self.assertEqual(self.cluster.worker("w-1").reason, str(SHORT))
        answer = self.submit(W1, NO_WAITING)  # tried all the same
        self.running(self.take("start_job"))
        self.successResultOf(answer)
        self.assertIsNone(self.cluster.worker("w-1").reason)

    def test_what_may_not_run(self) -> None:
        """A command that may not run there neither begins nor ends a backoff."""
        for reason in (None, str(SHORT)):
            self.assertEqual(self.cluster.worker("w-1").reason, reason)
            answer = self.submit(W1, NO_WAITING)
            call = self.take("start_job")
            call.answer.callback(JobStatus(call.args[0].id, JobState.FAILED, "command not found"))
            self.assertIs(self.successResultOf(answer).state, JobState.FAILED)
            self.assertEqual(self.cluster.worker("w-1").reason, reason)
            if reason is None:
                self.failureResultOf(self._refused(self.submit(W1, NO_WAITING)), Unavailable)


class LeavingTests(QueueTestCase):
    def test_as_its_turn_comes(self) -> None:
        """A job that is stopped in the moment in which its turn comes is not started, and the next one is."""
        job, following = self.queued(), self.queued()

        def stop(change: Change) -> None:
            if isinstance(change, JobChanged) and change.last.id == self.first.id:
                self.cluster.stop(job.id)  # the worker is to be looked at already, and the queue has not heard of this

        self.ledger.feed.subscribe(stop)
        self.end(self.first)
        self.assertEqual((self.taken().id, self.held()), (following.id, []))
        self.assertIs(self.state(job), JobState.STOPPED)
        self.end(following)
        self.clock.advance(SWEEP_INTERVAL_SECONDS)
        self.assertTrue(self.queue.idle)

    def test_as_its_time_ends(self) -> None:
        """A job that its worker turns out to run in the moment in which its time is over goes on running."""
        self.clock.callLater(HOUR, lambda: self.ledger.learn(self.told(job)))
        job = self.queued()
        self.clock.advance(HOUR)
        self.settle()
        self.assertIs(self.state(job), JobState.RUNNING)
        self.assertEqual(self.queue.due_in(job.id), 0)

    def told(self, job: Job) -> Job:
        """The job as its worker tells of it where the store was set back."""
        return lifecycle.running(lifecycle.taken_over(job, a_worker()), self.wall)

    def test_too_late(self) -> None:
        """A job that nobody took in its time has failed, and says how long that was."""
        for seconds, text in ((HOUR, "1h"), (90.0, "90s"), (0.5, "500ms")):
            job = self.queued(terms=QueueTerms(seconds))
            self.clock.advance(seconds * 0.99)
            self.assertIs(self.state(job), JobState.QUEUED)
            self.clock.advance(seconds * 0.01)
            self.assert_ended(job, JobState.FAILED, f"queue_timeout of {text} passed before a worker was free")
        self.end(self.first)
        self.assertEqual(self.held(), [])

    def test_refused_until_too_late(self) -> None:
        """One that workers would not take has failed with what the last of them said, too."""
        job = self.queued()
        self.end(self.first)
        self.take("start_job").answer.errback(Unavailable("no space left"))
        self.change(a_worker(state=WorkerState.UNREACHABLE))
        self.clock.advance(HOUR)
        passed = "queue_timeout of 1h passed before a worker was free"
        self.assert_ended(job, JobState.FAILED, f"{passed}; the last one asked: no space left")

    def test_clock_steps(self) -> None:
        """A step of the wall clock, either way, makes nobody's time longer or shorter."""
        for step in (HOUR, -HOUR):
            job = self.queued()
            self.wall += step
            self.clock.advance(HOUR - 1)
            self.assertIs(self.state(job), JobState.QUEUED)
            self.clock.advance(1)
            self.assertIs(self.state(job), JobState.FAILED)

    def test_time_goes_on(self) -> None:
        """A start that came to nothing does not begin the time anew."""
        job = self.queued()
        self.clock.advance(HOUR - 1)
        self.end(self.first)
        call = self.take("start_job")
        self.clock.advance(2)
        self.assertIs(self.state(job), JobState.STARTING)
        call.answer.errback(Unreachable("w-1"))
        self.settle()
        self.assertIs(self.state(job), JobState.FAILED)

    def test_stopped(self) -> None:
        """One that was stopped is not started, and asks nobody."""
        job = self.queued()
        stopped = self.successResultOf(self.cluster.stop(job.id))
        self.assertEqual((stopped.state, stopped.reason), (JobState.STOPPED, "stopped before it was started"))
        self.end(self.first)
        self.clock.advance(HOUR)
        self.assertEqual((self.held(), self.house.timers()), ([], 0))

    def test_stopped_while_starting(self) -> None:
        """A stop of one that is leaving the queue ends it where its start never left, or was not made yet."""
        job = self.queued()
        self.end(self.first)
        answer = self.cluster.stop(job.id)
        self.take("start_job").answer.errback(Unreachable("w-1"))
        self.assertIs(self.successResultOf(answer).state, JobState.STOPPED)
        self.change(a_worker())
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 4)
        self.assertEqual(self.held(), [])

    def test_stopped_while_committing(self) -> None:
        """A stop that comes before the worker was called is in time."""
        job = self.queued()
        self.store.held = True
        self.end(self.first)
        self.store.commit()
        self.settle()
        answer = self.cluster.stop(job.id)
        for _ in range(3):
            self.store.commit()
        self.assertIs(self.successResultOf(answer).state, JobState.STOPPED)
        self.assertEqual(self.held(), [])

    def test_ends_while_a_slot_frees(self) -> None:
        """A job whose end is being saved is not started any more."""
        job = self.queued()
        self.store.held = True
        self.clock.advance(HOUR)
        self.change(a_worker(slots=2))
        for _ in range(3):
            self.store.commit()
        self.assertIs(self.state(job), JobState.FAILED)
        self.assertEqual(self.held(), [])

    def test_stopped_while_a_slot_frees(self) -> None:
        """A stop that is being saved when a worker is free takes no start from those behind, saved or not."""
        for saved in (True, False):
            self.setUp()
            job, behind = self.queued(), self.queued()
            self.store.held = True
            answer = self.cluster.stop(job.id)
            self.ledger.see(a_worker(slots=9))
            self.settle()
            while len(self.store.saves):
                self.store.commit() if saved else self.store.fail()
            self.store.held = False
            self.clock.pump([SWEEP_INTERVAL_SECONDS] * 5)
            if saved:
                self.assertIs(self.successResultOf(answer).state, JobState.STOPPED)
            else:
                self.failureResultOf(answer, StoreFailed)
                self.assertEqual(self.taken().id, job.id)
            self.assertEqual(self.taken().id, behind.id)
            self.change(a_worker(state=WorkerState.UNREACHABLE))
            more = [self.queued(W1).id for _ in range(3)]
            self.change(a_worker(slots=9))
            self.assertEqual([call.args[0].id for call in self.held()], more)

    def test_forgotten_worker(self) -> None:
        """A job for a worker that is forgotten has failed; one for another of that name goes on waiting."""
        self.end(self.first)
        self.change(a_worker(state=WorkerState.UNREACHABLE))
        by_id, by_selector = self.queued(W1), self.queued()
        self.successResultOf(self.cluster.forget("w-1"))
        self.assert_ended(by_id, JobState.FAILED, "worker 'w-1' was forgotten")
        self.assertIs(self.state(by_selector), JobState.QUEUED)
        for worker_id in ("old", "new"):
            self.change(a_worker(worker_id, name="twin", state=WorkerState.UNREACHABLE))
        by_id, by_name = self.queued(Target(worker="old")), self.queued(Target(worker="twin"))
        self.successResultOf(self.cluster.forget("old"))
        self.assertEqual((self.state(by_id), self.state(by_name)), (JobState.FAILED, JobState.QUEUED))

    def test_deregistered_worker(self) -> None:
        """A job for a worker that went away waits for it, until that is forgotten."""
        self.change(a_worker(state=WorkerState.UNREACHABLE))
        job, other = self.queued(W1), self.queued(W1)
        self.successResultOf(self.membership.deregister("w-1", ""))
        self.assertIs(self.state(job), JobState.QUEUED)
        self.successResultOf(self.cluster.stop(other.id))
        self.change(a_worker())
        self.assertEqual(self.taken().id, job.id)

    def test_query_and_listing(self) -> None:
        """Of a queued job nobody is asked, and it can be listed."""
        self.change(a_worker(state=WorkerState.UNREACHABLE))
        job = self.queued(W1)
        self.assertEqual(self.successResultOf(self.cluster.query("w-1", job.id)), job)
        for which in (JobFilter(states=frozenset({JobState.QUEUED})), JobFilter(worker="w-1")):
            self.assertIn(job, self.cluster.jobs(which, 10, None).jobs)
        self.assertEqual(self.cluster.readiness().reasons, ())

    def test_query_of_a_start_that_never_left(self) -> None:
        """Who asks while a job is starting, which then waits again, is told so; its worker is asked nothing."""
        job = self.queued()
        self.end(self.first)
        answer = self.cluster.query("w-1", job.id)
        self.take("start_job").answer.errback(Busy("calls", 4))
        self.assertIs(self.successResultOf(answer).state, JobState.QUEUED)
        self.assertEqual(self.held(), [])


class RestartTests(QueueTestCase):
    def restart(self, after: float) -> None:
        """The scheduler was killed, and is back so many seconds later, and its worker has called."""
        self.wall += after
        self.begin()
        self.add(a_worker(slots=1))

    def test_the_queue_is_made_again(self) -> None:
        """Who waited waits, in the same order, and is started when a worker is free."""
        behind, ahead = self.queued(), self.queued(terms=QueueTerms(HOUR, priority=1))
        self.wall += 1
        last = self.queued()
        self.restart(10)
        self.clock.advance(SILENCE_MAX_SECONDS)
        self.assertEqual([self.state(job) for job in (behind, ahead, last)], [JobState.QUEUED] * 3)
        current = self.first
        for job in (ahead, behind, last):
            self.end(current)
            current = self.taken()
            self.assertEqual(current.id, job.id)

    def test_what_is_left(self) -> None:
        """Of its time is left what was left, never more than all of it."""
        job = self.queued()
        self.restart(HOUR - 60)
        self.clock.advance(59)
        self.assertIs(self.state(job), JobState.QUEUED)
        self.clock.advance(1)
        self.assertIs(self.state(job), JobState.FAILED)
        job = self.queued()
        self.restart(-10 * HOUR)
        self.clock.advance(HOUR)
        self.assertIs(self.state(job), JobState.FAILED)

    def test_days_later(self) -> None:
        """Nothing starts whose time ran out while nobody was there, though a worker is free."""
        job = self.queued()
        self.ledger.learn(evolve(self.first, state=JobState.SUCCEEDED, finished_at=self.wall))
        self.restart(3 * 86400)
        self.clock.pump([SILENCE_MAX_SECONDS, SWEEP_INTERVAL_SECONDS])
        self.assertEqual((self.state(job), self.held()), (JobState.FAILED, []))

    def test_killed_before_the_call(self) -> None:
        """One that was to be started when the process died is still promised, or, days later, is not any more."""
        for after, promised in ((10.0, True), (3 * 86400.0, False)):
            self.setUp()
            job = self.queued()
            self.end(self.first)
            self.assertIs(self.state(job), JobState.STARTING)
            self.restart(after)
            self.clock.advance(SILENCE_MAX_SECONDS)
            self.settle()
            self.assertEqual(self.queue.still_wanted(self.cluster.job(job.id)), promised)

    def with_one_chance(self) -> Job:
        """The next attempt of a job, which has but one chance, when the scheduler was killed."""
        self.house.know(a_job("q", JobState.QUEUED, None, target=W1, promised=True))
        return self.cluster.job("q")

    def test_one_chance(self) -> None:
        """What has but one chance is started when its worker is back and free, as others are."""
        job = self.with_one_chance()
        self.begin()
        self.clock.advance(SILENCE_MAX_SECONDS)
        self.assertEqual((self.state(job), self.held()), (JobState.QUEUED, []))
        self.add(a_worker(slots=2))
        self.assertEqual(self.taken().id, job.id)
        self.clock.advance(2 * RESTART_GRACE_SECONDS)
        self.assertEqual((self.state(job), self.held()), (JobState.RUNNING, []))

    def test_one_chance_that_comes_to_nothing(self) -> None:
        """Where its worker is not back in time, that was it."""
        job = self.with_one_chance()
        self.begin()
        self.clock.advance(RESTART_GRACE_SECONDS - 1)
        self.assertIs(self.state(job), JobState.QUEUED)
        self.clock.pump([1.0, 10.0])
        why = "worker 'w-1' can't be reached: it has not called since the scheduler was started"
        self.assert_ended(job, JobState.FAILED, why)


class FollowingTests(QueueTestCase):
    def test_follow(self) -> None:
        """Who follows a queued job reads nothing until it runs, and then its output; nothing is polled meanwhile."""
        job = self.queued()
        reader = self.cluster.open_output(job.id, Stream.STDOUT, 0)
        reading = reader.read()
        self.settle()
        self.assertEqual(self.house.timers(), 2)  # its time, and a look at the workers
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 10)
        self.assertNoResult(reading)
        self.assertEqual(self.house.timers(), 2)
        self.end(self.first)
        self.taken()
        self.assertEqual(self.take("stream_output").args, (job.id, Stream.STDOUT, 0))
        reader.close()
        self.failureResultOf(reading, CancelledError)

    def test_never_started(self) -> None:
        """The output of a job that ended in the queue is empty, and ends properly, whoever asks for it when."""
        job = self.queued()
        reading = self.cluster.open_output(job.id, Stream.STDOUT, 0).read()
        self.successResultOf(self.cluster.stop(job.id))
        self.settle()
        for chunk in (
            self.successResultOf(reading),
            self.successResultOf(self.cluster.open_output(job.id, Stream.STDERR, 0).read()),
            self.successResultOf(self.cluster.read_output(job.id, Stream.STDOUT, 0, 10)),
        ):
            self.assertEqual((chunk.data, chunk.offset, chunk.end), (b"", 0, True))

    def test_snapshot(self) -> None:
        """What is there of it now is nothing, and not the end."""
        job = self.queued()
        chunk = self.successResultOf(self.cluster.read_output(job.id, Stream.STDOUT, 0, 10))
        self.assertEqual((chunk.data, chunk.end), (b"", False))

    def test_wait(self) -> None:
        """Who waits for the end of a queued job waits for its end."""
        job = self.queued()
        waiting = self.cluster.wait(job.id, 300)
        self.end(self.first)
        self.end(self.taken())
        self.assertIs(self.successResultOf(waiting).state, JobState.SUCCEEDED)
