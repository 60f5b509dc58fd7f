"""Another job after one that did not succeed, by its terms."""

from __future__ import annotations

from attrs import evolve

from scheduler.cluster.settling import SILENCE_MAX_SECONDS
from scheduler.errors import Busy, DeadlineExceeded
from scheduler.messages import JobStatus
from scheduler.model import Job, JobState
from scheduler.request_keys import RequestKey
from scheduler.terms import QueueTerms, Retry, Target
from tests.unit.cluster.case import W1
from tests.unit.cluster.retry_case import FULL, TWICE, RetryTestCase
from tests.unit.cluster.values import a_worker

KEY = RequestKey("k", "f" * 64)


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
        following = self.next_attempt()
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
        following = self.next_attempt()
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
        following = self.next_attempt()
        self.assertIs(self.successResultOf(self.cluster.stop(following.id)).state, JobState.STOPPED)
        self.clock.advance(3600)
        self.assertEqual((self.held(), self.following(following)), ([], None))
