"""Jobs that wait for a worker: who waits, who goes first, and when it is over."""

from __future__ import annotations

from scheduler.cluster import lifecycle
from scheduler.cluster.changes import Change, JobChanged
from scheduler.cluster.jobs.dispatcher import MAX_STARTS, MAX_STARTS_PER_WORKER, SWEEP_INTERVAL_SECONDS
from scheduler.errors import (
    Busy,
    Conflict,
    NoFreeSlot,
    NotFound,
    QueueFull,
    StartUnanswered,
    StoreFailed,
    Unavailable,
    Unreachable,
    Unsupported,
)
from scheduler.model import Job, JobSpec, JobState
from scheduler.terms import QueueTerms, Target
from scheduler.views import JobFilter
from tests.house import PEER
from tests.unit.cluster.case import ANY, ECHO, W1
from tests.unit.cluster.queue_case import HOUR, KEY, QueueTestCase
from tests.unit.cluster.values import a_worker


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
        self.failureResultOf(self.house.submit(ECHO, ANY), NoFreeSlot)
        self.assertEqual(self.jobs(), [self.first])

    def test_unreachable_ones_match(self) -> None:
        """A job that only unreachable workers match is queued; one that none matches, or only draining ones, is not."""
        self.change(a_worker(), online=False)
        self.queued()
        self.failureResultOf(self.submit(Target(selector={"gpu": "yes"})), Conflict)
        for useless in (a_worker(draining=True), a_worker(slots=0)):
            self.change(useless)
            self.failureResultOf(self.submit(), Conflict)

    def test_named(self) -> None:
        """For a named worker a job waits only where that can't be reached; its slots do not bind."""
        self.assertEqual(self.run_job(W1).worker_id, "w-1")
        self.change(a_worker(), online=False)
        self.failureResultOf(self.house.submit(ECHO, W1), Unreachable)
        job = self.queued(W1)
        self.assertEqual((job.worker_id, job.worker_name), (None, "w-1"))
        self.change(a_worker(slots=1))
        self.assertEqual(self.taken().id, job.id)

    def test_named_and_hopeless(self) -> None:
        """Where waiting will not mend it nothing waits."""
        self.failureResultOf(self.submit(Target(worker="w-9")), NotFound)
        self.change(a_worker(draining=True))
        self.failureResultOf(self.submit(W1), Conflict)
        self.change(a_worker(boot_id="", slots=None), online=False)
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
        """A request with a key that is sent again is answered with the job, queued or not, across a restart too."""
        job = self.queued(key=KEY)
        self.assertEqual(self.successResultOf(self.submit(key=KEY)), job)
        self.begin()
        self.assertEqual(self.successResultOf(self.submit(key=KEY)), job)

    def test_key_while_it_starts(self) -> None:
        """While its queued job is being started, such a request waits for how that comes out."""
        job = self.queued(key=KEY)
        for error in (Unavailable("no more processes", 5), Unreachable("w-1", sent=True)):
            self.end(self.first)
            start = self.take("start_job")
            again = self.submit(key=KEY)
            self.assertNoResult(again)
            start.answer.errback(error)
            if not isinstance(error, Unreachable):
                self.assertIs(self.successResultOf(again).state, JobState.QUEUED)
                self.clock.pump([1.0] * 10)
        self.assertEqual(self.failureResultOf(again, StartUnanswered).value.job_id, job.id)

    def test_newcomers_wait_their_turn(self) -> None:
        """A slot that was freed this moment is not for one who just came, unless that goes first."""
        waited = self.queued()
        self.store.held = True
        self.end(self.first)
        self.store.commit()
        self.settle()
        self.store.held = False
        self.assertIs(self.state(waited), JobState.STARTING)  # it waits for its commit
        self.change(a_worker(slots=2), online=False)
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
        self.add(a_worker("w-2", labels={"gpu": "yes"}), online=False)
        urgent = self.queued(Target(selector={"gpu": "yes"}), QueueTerms(HOUR, priority=1000))
        waits = self.queued()
        self.end(self.first)
        self.assertEqual(self.taken().id, waits.id)
        self.assertIs(self.state(urgent), JobState.QUEUED)

    def test_least_loaded(self) -> None:
        """Workers that come at the same moment share the work."""
        self.change(a_worker(), online=False)
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
        self.change(a_worker(), online=False)
        waiting = [self.queued(W1) for _ in range(MAX_STARTS_PER_WORKER + 2)]
        self.change(a_worker())
        self.assertEqual(len(self.held()), MAX_STARTS_PER_WORKER)
        for _ in waiting:
            self.taken()
        self.change(a_worker(), online=False)
        for _ in range(MAX_STARTS + 5):
            self.queued()
        for number in range(MAX_STARTS + 5):
            self.add(a_worker(f"x-{number}", slots=1))
        self.settle()
        self.assertEqual(len(self.held()), MAX_STARTS)
        for _ in range(MAX_STARTS + 5):
            self.taken()
        self.assertEqual(self.held(), [])


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
        """A job that no worker took in time has failed, and its reason has the words of the last worker."""
        job = self.queued()
        self.end(self.first)
        self.take("start_job").answer.errback(Unavailable("no space left"))
        self.change(a_worker(), online=False)
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
        """A queued job that was stopped is not started, and no worker is asked."""
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
            self.house.know(a_worker(slots=9))
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
            self.change(a_worker(), online=False)
            more = [self.queued(W1).id for _ in range(3)]
            self.change(a_worker(slots=9))
            self.assertEqual([call.args[0].id for call in self.held()], more)

    def test_forgotten_worker(self) -> None:
        """A job for a worker that is forgotten has failed; one for another of that name goes on waiting."""
        self.end(self.first)
        self.change(a_worker(), online=False)
        by_id, by_selector = self.queued(W1), self.queued()
        self.successResultOf(self.cluster.forget("w-1"))
        self.assert_ended(by_id, JobState.FAILED, "worker 'w-1' was forgotten")
        self.assertIs(self.state(by_selector), JobState.QUEUED)
        for worker_id in ("old", "new"):
            self.change(a_worker(worker_id, name="twin"), online=False)
        by_id, by_name = self.queued(Target(worker="old")), self.queued(Target(worker="twin"))
        self.successResultOf(self.cluster.forget("old"))
        self.assertEqual((self.state(by_id), self.state(by_name)), (JobState.FAILED, JobState.QUEUED))

    def test_deregistered_worker(self) -> None:
        """A job for a worker that went away waits for it, until that is forgotten."""
        self.change(a_worker(), online=False)
        job, other = self.queued(W1), self.queued(W1)
        self.successResultOf(self.membership.deregister("w-1", "", PEER))
        self.assertIs(self.state(job), JobState.QUEUED)
        self.successResultOf(self.cluster.stop(other.id))
        self.change(a_worker())
        self.assertEqual(self.taken().id, job.id)

    def test_query_and_listing(self) -> None:
        """A query about a queued job asks no worker, and the job can be listed."""
        self.change(a_worker(), online=False)
        job = self.queued(W1)
        self.assertEqual(self.successResultOf(self.cluster.query("w-1", job.id)), job)
        for which in (JobFilter(states=frozenset({JobState.QUEUED})), JobFilter(worker="w-1")):
            self.assertIn(job, self.cluster.jobs(which, 10, None).jobs)
        self.assertEqual(self.cluster.readiness().reasons, ())

    def test_query_of_a_start_that_never_left(self) -> None:
        """A query during a start that was not sent answers that the job waits again; its worker is not asked."""
        job = self.queued()
        self.end(self.first)
        answer = self.cluster.query("w-1", job.id)
        self.take("start_job").answer.errback(Busy("calls", 4))
        self.assertIs(self.successResultOf(answer).state, JobState.QUEUED)
        self.assertEqual(self.held(), [])
