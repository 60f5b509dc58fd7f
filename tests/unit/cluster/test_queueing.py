"""Jobs that wait, and the attempts that follow a job that did not succeed, as clients see them."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from scheduler.errors import LeftRunning, NotFound
from scheduler.model import Job, JobSpec, JobState
from scheduler.terms import QueueTerms, Retry, Target
from scheduler.views import JobFilter
from tests.fleet import W1, FleetTestCase
from tests.house import ECHO

HOUR = 3600.0
PATIENT = QueueTerms(queue_timeout=HOUR)
SLOT = Target(selector={"name": "slot"})


class QueueingTests(FleetTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.fleet.add_worker("slot", slots=1)

    def wanted(self, target: Target = SLOT, terms: QueueTerms = PATIENT, spec: JobSpec = ECHO) -> Job:
        """Submit such a job a second later than all before; returns the job of the answer."""
        self.clock.advance(1.0)
        job: Job = self.successResultOf(self.house.submit(spec, target, terms))
        self.house.settle()
        return job

    def queued(self, target: Target = SLOT, terms: QueueTerms = PATIENT, spec: JobSpec = ECHO) -> Job:
        """A job that waits."""
        job = self.wanted(target, terms, spec)
        self.assertEqual((job.state, job.worker_id, job.started_at), (JobState.QUEUED, None, None))
        self.assertEqual((job.target, job.terms, job.promised), (target, terms, True))
        return job

    def test_shortage(self) -> None:
        """A job that its worker can't start for lack of something waits, by name or selector, and runs when it can."""
        why = "Too many open files"
        self.fleet.runner("slot").shortage = why
        jobs = [self.wanted(target, terms=PATIENT) for target in (Target(worker="slot"), SLOT)]
        self.flow()
        self.assertEqual([self.state(job) for job in jobs], [JobState.QUEUED] * 2)
        self.assertEqual(self.scheduler.worker("slot").reason, why)
        self.fleet.runner("slot").shortage = ""
        self.clock.advance(60)
        self.fleet.find("slot")
        self.flow()
        states = [self.scheduler.job(job.id) for job in jobs]
        self.assertEqual([job.state for job in states], [JobState.RUNNING, JobState.QUEUED])
        self.fleet.end(states[0].id)
        self.flow()
        self.assertIs(self.state(jobs[1]), JobState.RUNNING)
        self.assertIsNone(self.scheduler.worker("slot").reason)

    def test_refusing(self) -> None:
        """A job by selector waits while its worker says that it takes none; one that names it does not."""
        self.fleet.says("slot", refusing="no room on its disk")
        waiting = self.queued()
        named = self.wanted(Target(worker="slot"))
        self.assertIs(named.state, JobState.RUNNING)
        self.fleet.end(named.id)
        self.flow()
        self.assertIs(self.state(waiting), JobState.QUEUED)
        self.fleet.says("slot", refusing="")
        self.flow()
        self.assertIs(self.state(waiting), JobState.RUNNING)

    def test_another_version(self) -> None:
        """A job that waits is not given to a worker that came back as one that can't run it; others pass."""
        for target in (SLOT, Target(worker="slot")):
            first = self.wanted()
            self.fleet.lose("slot")
            job = self.queued(target, spec=JobSpec(command="echo", umask=0))
            self.fleet.add_worker("slot", slots=1, features=())
            self.fleet.find("slot")
            self.fleet.end(first.id)
            other = self.wanted()
            self.flow()
            self.assertEqual((self.state(job), self.state(other)), (JobState.QUEUED, JobState.RUNNING))
            self.fleet.end(other.id)
            self.fleet.add_worker("slot", slots=1)
            self.fleet.find("slot")
            self.flow()
            self.assertIs(self.state(job), JobState.RUNNING)
            self.fleet.end(self.scheduler.job(job.id).id)


class RetryingTests(FleetTestCase):
    def begin(self, terms: QueueTerms, target: Target = W1, spec: JobSpec = ECHO) -> Job:
        self.clock.advance(1.0)
        job: Job = self.successResultOf(self.house.submit(spec, target, terms))
        self.house.settle()
        return job

    def retried(self) -> tuple[Job, Job]:
        """A job that failed, and its next attempt, which waits for a minute and has others to follow it."""
        job = self.begin(QueueTerms(HOUR, retry=Retry(3, 60.0)))
        self.clock.advance(1)
        self.fleet.end(job.id, 1)
        following = self.following(job)
        assert following is not None
        return self.scheduler.job(job.id), following

    def started(self, following: Job) -> Job:
        """The next attempt, when the delay has passed."""
        self.clock.advance(60)
        self.fleet.find("w1")
        self.flow()
        running = self.scheduler.job(following.id)
        self.assertIs(running.state, JobState.RUNNING)
        return running

    def nothing_follows(self, *attempts: Job) -> None:
        """There are no other jobs than these, nor will there be."""
        self.clock.advance(HOUR)
        self.flow()
        self.assertEqual(self.ids(), [job.id for job in reversed(attempts)])

    def following(self, job: Job) -> Job | None:
        jobs = [self.scheduler.job(job_id) for job_id in self.ids()]
        return next((other for other in jobs if other.retry_of == job.id), None)

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

    def test_wait_for_one(self) -> None:
        """A job that is not run again is the last of its attempts."""
        job = self.submit()
        waiting = self.scheduler.wait_for_attempts(job.id, 300)
        gone = self.scheduler.wait_for_attempts(job.id, 300)
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.fleet.end(job.id, 3)
        self.assertEqual(self.successResultOf(waiting).exit_code, 3)
        self.assertEqual(self.house.timers(), 0)
        self.refusal(NotFound, self.scheduler.wait_for_attempts, "nothing", 300)

    def test_wait_and_stop(self) -> None:
        """A stop is an end of them."""
        job, following = self.retried()
        waiting = self.scheduler.wait_for_attempts(job.id, 300)
        self.successResultOf(self.scheduler.stop(job.id))
        self.fleet.house.settle()
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
        self.fleet.lose("w1")
        self.assertEqual(self.successResultOf(self.scheduler.stop(job.id)), job)
        last = self.scheduler.last_attempt(job.id)
        self.assertEqual((last.id, last.over), (following.id, False))
        self.assertIsNotNone(last.stop_requested_at)
        self.fleet.find("w1")
        self.assertIs(self.state(following), JobState.STOPPED)
        self.nothing_follows(job, following)

    def test_stop_leaves_processes(self) -> None:
        """Processes that any of the attempts from then on left behind are told of."""
        job, following = self.retried()
        self.fleet.leave(self.started(following).id, 7)
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

    def test_not_again(self) -> None:
        """Not after success, a stop or a loss, nor when it was never given to a worker."""
        terms = QueueTerms(HOUR, retry=Retry(3))
        self.fleet.add_worker("other", slots=1)
        target = Target(selector={"name": "other"})
        job = self.begin(terms, target)
        late = self.begin(terms, target)
        self.clock.advance(HOUR)
        self.assertIs(self.state(late), JobState.FAILED)
        self.fleet.end(job.id)
        stopped = self.begin(terms, target)
        self.successResultOf(self.scheduler.stop(stopped.id))
        lost = self.begin(terms, target)
        self.fleet.lose("other")
        self.successResultOf(self.scheduler.forget("other"))
        for other in (job, late, stopped, lost):
            self.assertTrue(self.state(other).final)
            self.assertIsNone(self.following(other))
