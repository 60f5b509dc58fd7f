"""Another job after one that did not succeed, by its terms."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from scheduler.cluster.jobs.queue import SWEEP_INTERVAL_SECONDS
from scheduler.cluster.jobs.stops import STOP_MARGIN_SECONDS
from scheduler.cluster.settling import SILENCE_MAX_SECONDS
from scheduler.errors import Busy, DeadlineExceeded, StoreFailed, Unavailable
from scheduler.messages import JobStatus
from scheduler.model import Job, JobSpec, JobState, Ref, RequestKey
from scheduler.terms import QueueTerms, Retry, Target
from scheduler.views import JobFilter
from tests.unit.cluster.case import W1, ClusterTestCase
from tests.unit.cluster.values import a_worker

TWICE = QueueTerms(retry=Retry(2, 60.0))
KEY = RequestKey("k", "f" * 64)
FULL = JobSpec(command="sh", args=("-c", "x"), stdin=b"in", labels={"a": "b"})


class RetryTestCase(ClusterTestCase):
    def begin_job(self, terms: QueueTerms = TWICE, target: Target = W1) -> Job:
        """A job that runs."""
        answer = self.house.submit(FULL, target, terms)
        (job,) = self.held()[-1].args
        self.run_it(job)
        return self.successResultOf(answer)

    def run_it(self, job: Job) -> None:
        self.take("start_job").answer.callback(JobStatus(job.id, JobState.RUNNING))

    def end(self, job: Job, state: JobState = JobState.FAILED, **changes: Any) -> None:
        current = self.cluster.job(job.id)
        ended = self.ledger.learn(evolve(current, state=state, finished_at=self.wall, **changes))
        ended.addErrback(lambda reason: reason.trap(StoreFailed))
        self.settle()

    def following(self, job: Job) -> Job | None:
        """The next attempt."""
        found = [other for other in self.jobs() if other.retry_of == job.id]
        self.assertLessEqual(len(found), 1)
        return found[0] if found else None

    def next(self, job: Job) -> Job:
        following = self.following(job)
        assert following is not None
        return following


class RetryTests(RetryTestCase):
    def test_another_job(self) -> None:
        """After a failure, or too long a run, comes a job with the same spec and place, and one attempt fewer."""
        for state in (JobState.FAILED, JobState.TIMED_OUT):
            job = self.begin_job()
            self.wall += 5
            self.end(job, state)
            following = self.next(job)
            self.assertEqual((following.spec, following.target), (FULL, W1))
            self.assertEqual(following.terms, QueueTerms(retry=Retry(1, 60.0)))
            self.assertEqual((following.state, following.created_at), (JobState.QUEUED, self.wall))
            self.assertEqual((following.worker_id, following.worker_name, following.promised), (None, "w-1", True))
            self.assertEqual(self.cluster.job(job.id).retried_by, following.id)
            self.assertEqual((job.group_id, following.group_id), (job.id, job.id))

    def test_store_fails_at_its_only_chance(self) -> None:
        """An attempt that must start at once, and whose start can't be committed, does when the store works."""
        following = self.due_while_the_store_fails()
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 10)
        self.assertEqual((self.cluster.job(following.id).state, self.held()), (JobState.QUEUED, []))
        self.store.problem = ""
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 6)
        self.assertEqual(self.take("start_job").args[0].id, following.id)

    def test_store_fails_as_it_becomes_due(self) -> None:
        """So it does where the failure of the store is not known before that commit."""
        following = self.due_while_the_store_fails(known=False)
        self.assertEqual((self.cluster.job(following.id).state, self.held()), (JobState.QUEUED, []))
        self.store.problem = ""
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 6)
        self.assertEqual(self.take("start_job").args[0].id, following.id)

    def test_refused_while_the_store_fails(self) -> None:
        """The end of one that its worker refused is decided when that can be saved; until then it is queued."""
        job = self.begin_job()
        self.end(job)
        following = self.next(job)
        self.clock.advance(60)
        self.store.problem = "disk full"
        self.take("start_job").answer.errback(Unavailable("no more processes"))
        self.settle()
        self.assertIs(self.cluster.job(following.id).state, JobState.QUEUED)
        self.store.problem = ""
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 6)
        self.take("start_job").answer.errback(Unavailable("no more processes"))
        self.settle()
        self.assertEqual(self.cluster.job(following.id).reason, "no more processes")

    def due_while_the_store_fails(self, known: bool = True) -> Job:
        """The next attempt, whose time has come; whether it is ``known`` by then that nothing can be saved."""
        job = self.begin_job()
        self.end(job)
        following = self.next(job)
        self.clock.advance(50)
        self.store.problem = "disk full"
        if known:
            self.ledger.learn(evolve(following, reason="x")).addErrback(lambda reason: reason.trap(StoreFailed))
        self.clock.advance(10)
        self.settle()
        return following

    def test_after_nothing_else(self) -> None:
        """Success, a stop and a loss are not mended by another run; nor is a failure of one that was to stop."""
        for state in (JobState.SUCCEEDED, JobState.STOPPED, JobState.LOST):
            job = self.begin_job()
            self.end(job, state)
            self.assertIsNone(self.following(job))
        job = self.begin_job()
        self.end(job, stop_requested_at=self.wall)
        self.assertIsNone(self.following(job))

    def test_after_the_delay(self) -> None:
        """The attempt starts once the delay has passed, by a clock that no step of the wall clock changes."""
        job = self.begin_job()
        self.end(job)
        following = self.next(job)
        self.wall += 3600
        self.clock.advance(59)
        self.assertEqual(self.held(), [])
        self.clock.advance(1)
        self.settle()
        self.run_it(following)
        self.assertIs(self.cluster.job(following.id).state, JobState.RUNNING)

    def test_as_often_as_said(self) -> None:
        """Each attempt is the next one of the one before it, and after the last comes none."""
        job = self.begin_job(QueueTerms(3600.0, retry=Retry(2)), Target(selector={}))
        for _ in range(2):
            self.end(job)
            job = self.next(job)
            self.settle()
            self.run_it(job)
        self.end(job)
        self.assertIsNone(self.following(job))
        self.assertEqual(len(self.jobs()), 3)

    def test_what_could_not_start(self) -> None:
        """A job that its worker could not start is tried again, too."""
        answer = self.house.submit(FULL, W1, TWICE, KEY)
        (job,) = self.held()[0].args
        self.take("start_job").answer.callback(JobStatus(job.id, JobState.FAILED, "command not found"))
        failed = self.successResultOf(answer)
        self.assertIs(failed.state, JobState.FAILED)
        self.assertEqual(failed.retried_by, self.next(job).id)
        self.assertEqual(self.successResultOf(self.house.submit(FULL, W1, TWICE, KEY)), failed.trimmed())

    def test_one_chance(self) -> None:
        """For a named worker that does not wait the next attempt has one chance when it is due, or it has failed."""
        job = self.begin_job()
        self.end(job)
        following = self.next(job)
        self.add(a_worker(), online=False)
        self.clock.advance(60)
        self.settle()
        ended = self.cluster.job(following.id)
        why = "worker 'w-1' can't be reached: it has not called since the scheduler was started"
        self.assertEqual((ended.state, ended.reason), (JobState.FAILED, why))
        self.assertIsNone(self.following(ended))  # it never ran

    def test_one_chance_that_never_left(self) -> None:
        """If that start never left the chance is gone; if it was not answered, it is up to the worker."""
        for error, state in ((Busy("calls", 4), JobState.FAILED), (DeadlineExceeded("x", 9), JobState.UNKNOWN)):
            job = self.begin_job()
            self.end(job)
            self.clock.advance(60)
            self.settle()
            self.take("start_job").answer.errback(error)
            self.settle()
            following = self.cluster.job(self.next(job).id)
            self.assertIs(following.state, state)
        self.assertFalse(self.queue.still_wanted(following))

    def test_its_time_counts_from_when_it_is_due(self) -> None:
        """``queue_timeout`` does not pass during the delay."""
        job = self.begin_job(QueueTerms(100.0, retry=Retry(1, 60.0)))
        self.end(job)
        self.add(a_worker(), online=False)
        self.clock.advance(159)
        self.assertIs(self.cluster.job(self.next(job).id).state, JobState.QUEUED)
        self.clock.advance(1)
        ended = self.cluster.job(self.next(job).id)
        self.assertEqual(ended.reason, "queue_timeout of 100s passed before a worker was free")

    def test_one_commit(self) -> None:
        """The end of a job and its next attempt are durable together or not at all, and never twice."""
        job = self.begin_job()
        self.store.held = True
        self.end(job)
        self.wall += 1
        self.begin()  # killed before the commit
        self.assertIsNone(self.following(job))
        self.end(job)
        self.store.commit()
        self.begin()  # killed right after
        following = self.next(job)
        self.assertEqual(self.cluster.job(job.id).retried_by, following.id)
        self.store.held = False
        self.end(job)
        self.begin()
        self.assertEqual(self.next(job), following)

    def test_who_sees_the_end(self) -> None:
        """Whoever is told of the end of a job finds its next attempt."""
        job = self.begin_job()
        found: list[Job] = []
        self.cluster.wait(job.id, 60).addCallback(lambda job: found.append(self.cluster.job(job.retried_by or "")))
        self.end(job)
        self.assertEqual([each.retry_of for each in found], [job.id])

    def test_who_waits_for_all(self) -> None:
        """Whoever waits for all attempts is not answered between two, and waits no longer in all for that."""
        job = self.begin_job()
        waiting, short = self.cluster.wait_for_attempts(job.id, 100.0), self.cluster.wait_for_attempts(job.id, 70.0)
        self.store.held = True
        self.end(job)
        self.clock.advance(5)
        self.store.commit()
        self.store.held = False
        self.assertNoResult(waiting)
        self.clock.advance(60)
        self.settle()
        following = self.next(job)
        self.run_it(following)
        self.clock.advance(5)
        self.assertEqual(self.successResultOf(short), self.cluster.job(following.id))
        self.end(following, JobState.SUCCEEDED)
        self.assertEqual(self.successResultOf(waiting), self.cluster.job(following.id))

    def test_of_an_earlier_version(self) -> None:
        """Attempts that a store of an earlier version holds are linked, and stopped, like others."""
        job = self.begin_job()
        self.end(job)
        first, following = self.cluster.job(job.id), self.next(job)
        self.store.save([evolve(first, group_id=None, retried_by=None), evolve(following, group_id=None)])
        self.begin()
        self.add(a_worker())
        self.assertEqual((self.cluster.job(job.id), self.next(job)), (first, following))
        stopped = self.cluster.stop(job.id)
        self.clock.advance(SILENCE_MAX_SECONDS)
        self.assertEqual(self.successResultOf(stopped), first)
        self.assertIs(self.cluster.job(following.id).state, JobState.STOPPED)

    def test_a_later_change(self) -> None:
        """An end that is known has had what follows from it, even if that is kept no more."""
        job = self.begin_job()
        self.end(job)
        self.ledger.learn(self.next(job).ref)
        self.end(job, stdout_bytes=3)
        self.assertIsNone(self.following(job))

    def test_across_a_restart(self) -> None:
        """The rest of the delay is as long as before."""
        for terms in (QueueTerms(3600.0, retry=Retry(1, 60.0)), QueueTerms(retry=Retry(1, 60.0))):
            job = self.begin_job(terms)
            self.end(job)
            self.wall += 40
            self.begin()
            self.add(a_worker())
            self.clock.advance(19)
            self.assertEqual(self.held(), [])
            self.clock.advance(1)
            self.settle()
            self.run_it(self.next(job))

    def test_stopped_in_the_delay(self) -> None:
        """An attempt that waits can be stopped, and then nothing follows."""
        job = self.begin_job()
        self.end(job)
        following = self.next(job)
        self.assertIs(self.successResultOf(self.cluster.stop(following.id)).state, JobState.STOPPED)
        self.clock.advance(3600)
        self.assertEqual((self.held(), self.following(following)), ([], None))


class StopTests(RetryTestCase):
    """A stop of any attempt ends the chain, whatever goes on meanwhile."""

    def setUp(self) -> None:
        super().setUp()
        self.job = self.begin_job()

    def assert_over(self) -> None:
        """Nothing runs, and nothing more will."""
        self.clock.pump([60.0] * 10)
        self.assertEqual(self.held(), [])
        self.assertEqual([job for job in self.jobs() if not job.over], [])
        self.assertLessEqual(len(self.jobs()), 2)

    def test_while_the_end_is_saved(self) -> None:
        """A stop that comes while the end, and the next attempt with it, are being saved stops that one."""
        self.store.held = True
        self.end(self.job)
        answer = self.cluster.stop(self.job.id)
        self.assertNoResult(answer)
        self.assertIs(self.cluster.job(self.job.id).state, JobState.RUNNING)
        while len(self.store.saves):
            self.store.commit()
        self.assertIs(self.successResultOf(answer).state, JobState.FAILED)
        self.assertIs(self.cluster.job(self.next(self.job).id).state, JobState.STOPPED)
        self.assert_over()

    def test_while_the_end_can_not_be_saved(self) -> None:
        """A stop waits for an end that could not be saved, and then stops the next attempt."""
        self.store.held = True
        self.end(self.job)
        answer = self.cluster.stop(self.job.id)
        while len(self.store.saves):
            self.store.fail()
        self.assertNoResult(answer)
        self.assertIsNone(self.following(self.job))
        self.store.held = False
        self.clock.advance(1)
        self.assertIs(self.successResultOf(answer).state, JobState.FAILED)
        self.assertIs(self.cluster.job(self.next(self.job).id).state, JobState.STOPPED)

    def test_while_the_end_can_not_be_saved_for_long(self) -> None:
        """Then the stop is not promised, and the next attempt comes when the store works."""
        self.store.held = True
        self.end(self.job)
        answer = self.cluster.stop(self.job.id)
        while len(self.store.saves):
            self.store.fail()
        self.clock.pump([1.0] * int(FULL.stop_grace + STOP_MARGIN_SECONDS - 1))
        self.assertNoResult(answer)
        self.clock.advance(1)
        self.failureResultOf(answer, StoreFailed)
        self.store.held = False
        while self.store.saves:
            self.store.commit()
        self.assertIs(self.cluster.job(self.next(self.job).id).state, JobState.QUEUED)

    def test_before_the_end(self) -> None:
        """A job that was asked to stop and then fails by itself has no next attempt, even after a restart."""
        self.add(a_worker(), online=False)
        self.assertFalse(self.successResultOf(self.cluster.stop(self.job.id)).over)
        self.begin()
        self.end(self.job)
        self.assert_over()

    def test_while_the_next_one_starts(self) -> None:
        """A starting attempt is stopped once its start is answered; if it could not start, none follows it."""
        for status, stops in ((JobState.FAILED, 0), (JobState.RUNNING, 1)):
            self.end(self.job)
            self.clock.advance(60)
            self.settle()
            following = self.next(self.job)
            self.assertIs(self.cluster.job(following.id).state, JobState.STARTING)
            answer = self.cluster.stop(self.job.id)
            self.assertIsNotNone(self.cluster.job(following.id).stop_requested_at)
            self.take("start_job").answer.callback(JobStatus(following.id, status, started_at=1000.0))
            for _ in range(stops):
                call = self.take("stop_job")
                self.assertEqual(call.args, (following.id,))
                call.answer.callback(None)
                self.end(following)
            self.assertEqual(self.successResultOf(answer).retried_by, following.id)
            self.assertIsNone(self.following(following))
            self.job = self.begin_job()

    def test_while_the_next_one_is_committed(self) -> None:
        """An attempt whose start is being committed is not started."""
        self.end(self.job)
        self.store.held = True
        self.clock.advance(60)
        self.settle()
        answer = self.cluster.stop(self.job.id)
        while len(self.store.saves):
            self.store.commit()
        self.successResultOf(answer)
        self.assertIs(self.cluster.job(self.next(self.job).id).state, JobState.STOPPED)
        self.store.held = False
        self.assert_over()

    def test_of_the_last(self) -> None:
        """The last one of a chain that is over is answered as it is, and so is one whose next is kept no more."""
        self.end(self.job, stop_requested_at=1000.0)
        ended = self.cluster.job(self.job.id)
        self.assertEqual(self.successResultOf(self.cluster.stop(self.job.id)), ended)
        job = self.begin_job()
        self.end(job)
        following = self.next(job)
        self.successResultOf(self.cluster.stop(following.id))
        self.ledger.learn(Ref("job", following.id))
        self.assertEqual(self.successResultOf(self.cluster.stop(job.id)), self.cluster.job(job.id))
        self.assertEqual(self.cluster.last_attempt(job.id), self.cluster.job(job.id))

    def test_not_in_time(self) -> None:
        """An error about the last attempt, which did not stop in time, names that attempt."""
        self.end(self.job)
        self.clock.advance(60)
        self.settle()
        following = self.next(self.job)
        self.run_it(following)
        answer = self.cluster.stop(self.job.id)
        self.take("stop_job").answer.callback(None)
        self.clock.advance(FULL.stop_grace + STOP_MARGIN_SECONDS)
        self.assertEqual(self.failureResultOf(answer, DeadlineExceeded).value.job_id, following.id)

    def test_matching_while_the_end_is_saved(self) -> None:
        """To stop all that match is answered with what was stopped."""
        self.store.held = True
        self.end(self.job)
        answer = self.cluster.stop_matching(JobFilter(states=frozenset({JobState.RUNNING})))
        while len(self.store.saves):
            self.store.commit()
        (stopped,) = self.successResultOf(answer)
        self.assertEqual((stopped.retry_of, stopped.state), (self.job.id, JobState.STOPPED))
