"""What every scheduler does with jobs that wait, and with what follows a job that did not succeed."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from scheduler.errors import Conflict, LeftRunning, NoFreeSlot, NotFound, QueueFull, Unreachable
from scheduler.interfaces import JobFilter
from scheduler.model import Job, JobSpec, JobState, QueueTerms, Retry, Stream, Target
from tests.contract.scheduler_worlds import QUEUE_MAX, W1, Contract, for_every_provider
from tests.house import ANY, ECHO

HOUR = 3600.0
PATIENT = QueueTerms(queue_timeout=HOUR)
SLOT = Target(selector={"name": "slot"})


class Queueing(Contract):
    def setUp(self) -> None:
        super().setUp()
        self.world.add_worker("slot", slots=1)

    def wanted(self, target: Target = SLOT, terms: QueueTerms = PATIENT, spec: JobSpec = ECHO) -> Job:
        """What such a submission is answered with, a second later than all before."""
        self.world.clock.advance(1.0)
        job: Job = self.successResultOf(self.scheduler.submit(spec, target, terms))
        self.world.settle()
        return job

    def queued(self, target: Target = SLOT, terms: QueueTerms = PATIENT, spec: JobSpec = ECHO) -> Job:
        """One that waits."""
        job = self.wanted(target, terms, spec)
        self.assertEqual((job.state, job.worker_id, job.started_at), (JobState.QUEUED, None, None))
        self.assertEqual((job.target, job.terms, job.promised), (target, terms, True))
        return job

    def ended_in_the_queue(self, job: Job, state: JobState, reason: str) -> None:
        ended = self.scheduler.job(job.id)
        self.assertEqual((ended.state, ended.reason, ended.worker_id, ended.started_at), (state, reason, None, None))
        self.assertIsNotNone(ended.finished_at)

    def test_a_slot_gets_free(self) -> None:
        """A job that finds no free slot waits, and runs when there is one."""
        first, job = self.wanted(), self.queued()
        self.world.end(first)
        self.world.flow()
        running = self.scheduler.job(job.id)
        self.assertEqual((running.state, running.worker_name), (JobState.RUNNING, "slot"))
        self.assertEqual(running.created_at, job.created_at)

    def test_a_worker_comes(self) -> None:
        """A job whose workers can't be reached waits for one, by selector or by name."""
        self.world.lose("slot")
        jobs = [self.queued(), self.queued(Target(worker="id-slot"))]
        self.assertEqual([job.worker_name for job in jobs], [None, "slot"])
        self.world.find("slot")
        self.world.flow()
        self.assertEqual([self.state(job) for job in jobs], [JobState.RUNNING] * 2)

    def test_not_waiting(self) -> None:
        """Without patience nothing waits, and nothing waits for what no worker is."""
        self.wanted()
        self.refusal(NoFreeSlot, self.scheduler.submit, ECHO, SLOT)
        self.refusal(Conflict, self.scheduler.submit, ECHO, Target(selector={"gpu": "yes"}), PATIENT)
        self.successResultOf(self.scheduler.drain("w1"))
        self.refusal(Conflict, self.scheduler.submit, ECHO, W1, PATIENT)
        self.world.lose("slot")
        self.refusal(Unreachable, self.scheduler.submit, ECHO, Target(worker="slot"))

    def test_order(self) -> None:
        """Of those that wait the highest priority goes first, and of the same who came first."""
        last = self.wanted()
        jobs = [self.queued(terms=QueueTerms(HOUR, priority=priority)) for priority in (0, 5, -5, 5)]
        for number in (1, 3, 0, 2):
            self.world.end(last)
            self.world.flow()
            last = self.scheduler.job(jobs[number].id)
            self.assertIs(last.state, JobState.RUNNING)

    def test_shortage(self) -> None:
        """A job that its worker can't start for lack of something waits, by name or selector, and runs when it can."""
        why = "Too many open files"
        self.world.lacks("slot", why)
        jobs = [self.wanted(target, terms=PATIENT) for target in (Target(worker="slot"), SLOT)]
        self.world.flow()
        self.assertEqual([self.state(job) for job in jobs], [JobState.QUEUED] * 2)
        self.assertEqual(self.scheduler.worker("slot").reason, why)
        self.world.lacks("slot", "")
        self.world.clock.advance(60)
        self.world.find("slot")
        self.world.flow()
        states = [self.scheduler.job(job.id) for job in jobs]
        self.assertEqual([job.state for job in states], [JobState.RUNNING, JobState.QUEUED])
        self.world.end(states[0])
        self.world.flow()
        self.assertIs(self.state(jobs[1]), JobState.RUNNING)
        self.assertIsNone(self.scheduler.worker("slot").reason)

    def test_refusing(self) -> None:
        """A job by selector waits while its worker says that it takes none; one that names it does not."""
        self.world.says("slot", "no room on its disk")
        waiting = self.queued()
        named = self.wanted(Target(worker="slot"))
        self.assertIs(named.state, JobState.RUNNING)
        self.world.end(named)
        self.world.flow()
        self.assertIs(self.state(waiting), JobState.QUEUED)
        self.world.says("slot", "")
        self.world.flow()
        self.assertIs(self.state(waiting), JobState.RUNNING)

    def test_another_version(self) -> None:
        """A job that waits is not given to a worker that came back as one that can't run it; others pass."""
        for target in (SLOT, Target(worker="slot")):
            first = self.wanted()
            self.world.lose("slot")
            job = self.queued(target, spec=JobSpec(command="echo", umask=0))
            self.world.add_worker("slot", slots=1, features=())
            self.world.find("slot")
            self.world.end(first)
            other = self.wanted()
            self.world.flow()
            self.assertEqual((self.state(job), self.state(other)), (JobState.QUEUED, JobState.RUNNING))
            self.world.end(other)
            self.world.add_worker("slot", slots=1)
            self.world.find("slot")
            self.world.flow()
            self.assertIs(self.state(job), JobState.RUNNING)
            self.world.end(self.scheduler.job(job.id))

    def test_nobody_is_held_up(self) -> None:
        """A job that nobody can take lets others pass."""
        self.world.add_worker("other", slots=1)
        self.world.lose("other")
        first, stuck = self.wanted(), self.queued(Target(selector={"name": "other"}), QueueTerms(HOUR, priority=9))
        job = self.queued()
        self.world.end(first)
        self.world.flow()
        self.assertEqual((self.state(stuck), self.state(job)), (JobState.QUEUED, JobState.RUNNING))

    def test_full(self) -> None:
        """No more wait than may."""
        self.wanted()
        for _ in range(QUEUE_MAX):
            self.queued()
        error = self.refusal(QueueFull, self.scheduler.submit, ECHO, SLOT, PATIENT)
        self.assertEqual(error.limit, QUEUE_MAX)

    def test_too_late(self) -> None:
        """A job that nobody took in its time has failed."""
        self.wanted()
        job = self.queued()
        self.world.clock.advance(HOUR - 1)
        self.assertIs(self.state(job), JobState.QUEUED)
        self.world.clock.advance(1)
        self.ended_in_the_queue(job, JobState.FAILED, "queue_timeout of 1h passed before a worker was free")

    def test_stop(self) -> None:
        """A job that waits is stopped at once, and never runs."""
        first, job = self.wanted(), self.queued()
        stopped = self.successResultOf(self.scheduler.stop(job.id))
        self.assertEqual(stopped, self.scheduler.job(job.id))
        self.ended_in_the_queue(job, JobState.STOPPED, "stopped before it was started")
        self.world.end(first)
        self.world.flow()
        self.assertIs(self.state(job), JobState.STOPPED)

    def test_drain(self) -> None:
        """A job goes on waiting while its worker is drained."""
        first, job = self.wanted(), self.queued()
        self.successResultOf(self.scheduler.drain("slot"))
        self.world.end(first)
        self.world.flow()
        self.assertIs(self.state(job), JobState.QUEUED)
        self.successResultOf(self.scheduler.resume("slot"))
        self.world.flow()
        self.assertIs(self.state(job), JobState.RUNNING)

    def test_forget(self) -> None:
        """A job for a worker that is forgotten has failed."""
        self.world.lose("slot")
        job = self.queued(Target(worker="slot"))
        self.successResultOf(self.scheduler.forget("slot"))
        self.ended_in_the_queue(job, JobState.FAILED, "worker 'slot' was forgotten")

    def test_looking(self) -> None:
        """It is found by its state, by the worker it names, and nobody is asked about it."""
        self.world.lose("slot")
        job = self.queued(Target(worker="slot"))
        for which in (JobFilter(states=frozenset({JobState.QUEUED})), JobFilter(worker="slot")):
            self.assertEqual(self.ids(which), [job.id])
        self.assertEqual(self.successResultOf(self.scheduler.query("slot", job.id)), job)

    def test_wait(self) -> None:
        """Who waits for its end gets its end."""
        first, job = self.wanted(), self.queued()
        waiting = self.scheduler.wait(job.id, 300)
        self.world.end(first)
        self.world.flow()
        self.assertNoResult(waiting)
        self.world.end(self.scheduler.job(job.id), 3)
        self.assertEqual(self.successResultOf(waiting).exit_code, 3)

    def test_follow(self) -> None:
        """Who follows it reads what it writes when it runs."""
        first, job = self.wanted(), self.queued()
        reader = self.scheduler.open_output(job.id, Stream.STDOUT, 0)
        reading = reader.read()
        self.assertNoResult(reading)
        snapshot = self.successResultOf(self.scheduler.read_output(job.id, Stream.STDOUT, 0, 9))
        self.assertEqual((snapshot.data, snapshot.end), (b"", False))
        self.world.end(first)
        self.world.flow()
        self.world.write(self.scheduler.job(job.id), b"hello")
        self.world.flow()
        self.assertEqual(self.successResultOf(reading).data, b"hello")
        reader.close()

    def test_follow_one_that_never_starts(self) -> None:
        """Its output is empty, and ends properly."""
        self.wanted()
        job = self.queued()
        reading = self.scheduler.open_output(job.id, Stream.STDOUT, 0).read()
        self.successResultOf(self.scheduler.stop(job.id))
        self.world.flow()
        for chunk in (reading, self.scheduler.open_output(job.id, Stream.STDERR, 0).read()):
            self.assertEqual([(c.data, c.end) for c in [self.successResultOf(chunk)]], [(b"", True)])


class Retrying(Contract):
    def begin(self, terms: QueueTerms, target: Target = W1, spec: JobSpec = ECHO) -> Job:
        self.world.clock.advance(1.0)
        job: Job = self.successResultOf(self.scheduler.submit(spec, target, terms))
        self.world.settle()
        return job

    def retried(self) -> tuple[Job, Job]:
        """A job that failed, and its next attempt, which waits for a minute and has others to follow it."""
        job = self.begin(QueueTerms(HOUR, retry=Retry(3, 60.0)))
        self.world.clock.advance(1)
        self.world.end(job, 1)
        following = self.following(job)
        assert following is not None
        return self.scheduler.job(job.id), following

    def started(self, following: Job) -> Job:
        """The next attempt, when the delay has passed."""
        self.world.clock.advance(60)
        self.world.find("w1")
        self.world.flow()
        running = self.scheduler.job(following.id)
        self.assertIs(running.state, JobState.RUNNING)
        return running

    def nothing_follows(self, *attempts: Job) -> None:
        """There are no other jobs than these, nor will there be."""
        self.world.clock.advance(HOUR)
        self.world.flow()
        self.assertEqual(self.ids(), [job.id for job in reversed(attempts)])

    def following(self, job: Job) -> Job | None:
        jobs = [self.scheduler.job(job_id) for job_id in self.ids()]
        return next((other for other in jobs if other.retry_of == job.id), None)

    def test_again(self) -> None:
        """A job that failed is run again after the delay, as a job of its own, until the attempts are used up."""
        spec = JobSpec("sh", ("-c", "x"), stdin=b"in")
        job = self.begin(QueueTerms(HOUR, 3, Retry(2, 60.0)), ANY, spec)
        for left in (1, 0):
            self.world.end(job, 3)
            following = self.following(job)
            assert following is not None
            self.assertEqual((following.spec, following.target, following.state), (spec, ANY, JobState.QUEUED))
            self.assertEqual(following.terms, QueueTerms(HOUR, 3, Retry(left, 60.0)))
            self.world.clock.advance(59)
            self.assertIs(self.state(following), JobState.QUEUED)
            self.world.clock.advance(1)
            self.world.flow()
            job = self.scheduler.job(following.id)
            self.assertIs(job.state, JobState.RUNNING)
        self.world.end(job, 3)
        self.assertIsNone(self.following(job))

    def test_linked(self) -> None:
        """Each attempt names the one before and the one after, and all of them their group, that of the first."""
        job, following = self.retried()
        self.assertEqual((job.group_id, job.retry_of, job.retried_by), (job.id, None, following.id))
        self.assertEqual((following.group_id, following.retry_of, following.retried_by), (job.id, job.id, None))
        self.submit()
        self.assertEqual(self.ids(JobFilter(group_id=job.id)), [following.id, job.id])
        for attempt in (job, following):
            self.assertEqual(self.scheduler.last_attempt(attempt.id), following)
        self.refusal(NotFound, self.scheduler.last_attempt, "nothing")

    def test_no_group(self) -> None:
        """A job without attempts to come is in no group."""
        self.assertIsNone(self.submit().group_id)

    def test_wait(self) -> None:
        """Who waits for the attempts gets the last one at its end; who waits for one job gets that."""
        job = self.begin(QueueTerms(HOUR, retry=Retry(2, 60.0)))
        one, last, short = (
            self.scheduler.wait(job.id, 300),
            self.scheduler.wait_for_attempts(job.id, 300),
            self.scheduler.wait_for_attempts(job.id, 20),
        )
        self.world.end(job, 1)
        self.assertEqual(self.successResultOf(one).id, job.id)
        following = self.following(job)
        assert following is not None
        for waiting in (short, last):
            self.assertNoResult(waiting)
        self.world.clock.advance(20)
        self.assertEqual(self.successResultOf(short), self.scheduler.job(following.id))
        self.world.clock.advance(20)
        self.assertNoResult(last)
        self.world.end(self.started(following))
        succeeded = self.successResultOf(last)
        self.assertEqual((succeeded.id, succeeded.state), (following.id, JobState.SUCCEEDED))
        for attempt in (job, following):
            self.assertEqual(self.successResultOf(self.scheduler.wait_for_attempts(attempt.id, 0)), succeeded)
        self.assertEqual(self.successResultOf(self.scheduler.wait(job.id, 300)).id, job.id)

    def test_wait_for_one(self) -> None:
        """A job that is not run again is the last of its attempts."""
        job = self.submit()
        waiting = self.scheduler.wait_for_attempts(job.id, 300)
        gone = self.scheduler.wait_for_attempts(job.id, 300)
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.world.end(job, 3)
        self.assertEqual(self.successResultOf(waiting).exit_code, 3)
        self.assertEqual(self.world.timers(), 0)
        self.refusal(NotFound, self.scheduler.wait_for_attempts, "nothing", 300)

    def test_wait_and_stop(self) -> None:
        """A stop is an end of them."""
        job, following = self.retried()
        waiting = self.scheduler.wait_for_attempts(job.id, 300)
        self.successResultOf(self.scheduler.stop(job.id))
        self.world.settle()
        ended = self.successResultOf(waiting)
        self.assertEqual((ended.id, ended.state), (following.id, JobState.STOPPED))

    def test_stop_waiting(self) -> None:
        """A stop of one that failed stops its next attempt in the delay: nothing more runs."""
        job, following = self.retried()
        self.assertEqual(self.successResultOf(self.scheduler.stop(job.id)), job)
        stopped = self.scheduler.job(following.id)
        self.assertEqual((stopped.state, stopped.reason), (JobState.STOPPED, "stopped before it was started"))
        self.nothing_follows(job, following)
        self.assertEqual(self.successResultOf(self.scheduler.stop(job.id)), job)

    def test_stop_running(self) -> None:
        """So it stops one that runs; to name the worker of the first is enough."""
        job, following = self.retried()
        self.started(following)
        self.assertEqual(self.successResultOf(self.scheduler.stop(job.id, "w1")), job)
        self.assertIs(self.state(following), JobState.STOPPED)
        self.nothing_follows(job, following)

    def test_stop_later(self) -> None:
        """Where the worker of the last attempt can't be told, the stop is recorded with that one, which is the last."""
        job, following = self.retried()
        self.started(following)
        self.world.lose("w1")
        self.assertEqual(self.successResultOf(self.scheduler.stop(job.id)), job)
        last = self.scheduler.last_attempt(job.id)
        self.assertEqual((last.id, last.over), (following.id, False))
        self.assertIsNotNone(last.stop_requested_at)
        self.world.find("w1")
        self.assertIs(self.state(following), JobState.STOPPED)
        self.nothing_follows(job, following)

    def test_stop_leaves_processes(self) -> None:
        """Processes that any of the attempts from then on left behind are told of."""
        job, following = self.retried()
        self.world.leave(self.started(following), 7)
        error = self.refusal(LeftRunning, self.scheduler.stop, job.id)
        self.assertEqual((error.job_id, error.leftover), (following.id, (7,)))
        self.nothing_follows(job, following)

    def test_stop_matching(self) -> None:
        """To stop all that match ends the chains of those that have ended; the answer is what was stopped."""
        job, following = self.retried()
        which = JobFilter(states=frozenset({JobState.FAILED}))
        (stopped,) = self.successResultOf(self.scheduler.stop_matching(which))
        self.assertEqual((stopped.id, stopped.state), (following.id, JobState.STOPPED))
        self.nothing_follows(job, following)
        job, following = self.retried()
        (stopped,) = self.successResultOf(self.scheduler.stop_matching(JobFilter(group_id=job.id)))
        self.assertEqual((stopped.id, stopped.state), (following.id, JobState.STOPPED))

    def test_what_can_not_start(self) -> None:
        """So is one that its worker could not start."""
        self.world.refuse("echo", "command not found")
        job = self.begin(QueueTerms(HOUR, retry=Retry(1)), ANY)
        self.world.flow()
        following = self.following(job)
        assert following is not None
        self.assertIs(self.state(following), JobState.FAILED)

    def test_not_again(self) -> None:
        """Not after success, a stop or a loss, nor when it was never given to a worker."""
        terms = QueueTerms(HOUR, retry=Retry(3))
        self.world.add_worker("other", slots=1)
        target = Target(selector={"name": "other"})
        job = self.begin(terms, target)
        late = self.begin(terms, target)
        self.world.clock.advance(HOUR)
        self.assertIs(self.state(late), JobState.FAILED)
        self.world.end(job)
        stopped = self.begin(terms, target)
        self.successResultOf(self.scheduler.stop(stopped.id))
        lost = self.begin(terms, target)
        self.world.lose("other")
        self.successResultOf(self.scheduler.forget("other"))
        for other in (job, late, stopped, lost):
            self.assertTrue(self.state(other).final)
            self.assertIsNone(self.following(other))


globals().update(for_every_provider(Queueing, Retrying))
