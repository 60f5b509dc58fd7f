"""The outcome of the start of a queued job."""

from __future__ import annotations

from attrs import evolve

from scheduler.cluster.jobs.dispatcher import SWEEP_INTERVAL_SECONDS
from scheduler.cluster.saving import STORE_RETRY_FIRST_SECONDS, UNSAVED_MAX_SECONDS
from scheduler.errors import (
    Busy,
    Conflict,
    DeadlineExceeded,
    KeyInUse,
    NoFreeSlot,
    NotFound,
    StoreFailed,
    Unavailable,
    Unreachable,
    Unsupported,
)
from scheduler.messages import Registration
from scheduler.model import JobSpec, JobState
from scheduler.terms import NO_WAITING
from tests.house import PEER
from tests.unit.cluster.case import ANY, ECHO, W1
from tests.unit.cluster.queue_case import HOUR, KEY, QueueTestCase
from tests.unit.cluster.values import a_worker


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
        """A job that comes back may be sent elsewhere before that is durable: both starts end with their answers."""
        self.add(a_worker("w-2", slots=1))
        answer = self.submit()
        self.add(a_worker("w-3", slots=1))
        self.store.held = True
        self.take("start_job").answer.errback(Busy("calls", 4))
        self.settle()
        self.assertNoResult(answer)
        self.store.commit_all()
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
        worker = self.ledger.registry.workers.get("w-1")
        registration = Registration(worker.address, "w-1", boot_id="boot", slots=1)
        self.successResultOf(self.membership.register(registration, PEER))
        self.change(a_worker(slots=1))  # it is online
        self.assertEqual(self.taken().id, job.id)

    def test_no_backoff_of_a_worker_that_has_gone(self) -> None:
        """Nothing is kept of a worker that took no job and is removed, nor of one that is removed before it answers."""
        self.queued()
        self.end(self.first)
        self.take("start_job").answer.errback(Unavailable("no space left", 60))
        gone = self.ledger.registry.workers.get("w-1")
        self.assertTrue(self.house.parts.backoff.active(gone.id))
        self.successResultOf(self.membership.deregister("w-1", "", PEER))
        self.assertFalse(self.house.parts.backoff.active(gone.id))
        self.change(a_worker("w-2"))
        call = self.take("start_job")
        gone = self.ledger.registry.workers.get("w-2")
        self.successResultOf(self.membership.deregister("w-2", "", PEER))
        call.answer.errback(Unreachable("w-2"))
        self.assertFalse(self.house.parts.backoff.active(gone.id))

    def test_another_worker(self) -> None:
        """A job that one worker refuses may go to another."""
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
        self.successResultOf(self.membership.deregister("w-1", "", PEER))
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
        self.change(a_worker(), online=False)
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
        self.failureResultOf(self.house.submit(ECHO, ANY), NoFreeSlot)
        self.clock.advance(SWEEP_INTERVAL_SECONDS)
        self.assertEqual(self.taken().id, job.id)

    def test_a_direct_start_that_can_not_be_queued(self) -> None:
        """A job that would have to wait, and can't be saved as one that does, is an error and no job, with its key."""
        self.end(self.first)
        answer = self.submit(key=KEY)
        self.store.held = True
        self.take("start_job").answer.errback(Busy("calls", 4))
        self.failureResultOf(self.submit(key=KEY), KeyInUse)
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
        self.store.fail_all()
        self.assertIs(self.state(job), JobState.STARTING)
        self.take("query_job").answer.errback(NotFound("job", job.id))  # and sealed
        self.failureResultOf(stop, StoreFailed)
        self.assertIs(self.state(job), JobState.STARTING)

    def test_a_worker_that_leaves_during_the_commit(self) -> None:
        """A worker that has gone when the job is durable is not called: another may listen at its address."""
        self.end(self.first)
        self.store.held = True
        answers = [self.submit(), self.house.submit(ECHO, W1)]
        self.membership.deregister("w-1", "", PEER)
        self.store.commit_all()
        self.assertEqual(self.held(), [])
        self.assertIs(self.successResultOf(answers[0]).state, JobState.QUEUED)
        self.failureResultOf(answers[1], Unreachable)

    def test_a_worker_that_moves_during_the_commit(self) -> None:
        """A worker that registers at another address while the job is committed is called there."""
        self.end(self.first)
        self.store.held = True
        self.submit(W1, NO_WAITING)
        self.change(a_worker(address="127.0.0.1:30999"))
        self.store.commit_all()
        self.assertEqual(self.take("start_job").address, "127.0.0.1:30999")

    def test_another_version_comes_during_the_commit(self) -> None:
        """A worker that came back as one that lacks what the job needs, when the job is durable, is not called."""
        self.change(a_worker(features={"umask"}))
        self.store.held = True
        answers = [self.submit(target, spec=JobSpec(command="a", umask=0)) for target in (ANY, W1)]
        self.change(a_worker(features=frozenset()))
        self.store.commit_all()
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
