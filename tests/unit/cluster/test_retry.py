"""Another job after one that did not succeed, by its terms."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from scheduler.cluster.queue import SETTLE
from scheduler.errors import Busy, DeadlineExceeded
from scheduler.model import Job, JobSpec, JobState, JobStatus, Retry, Target, Terms, WorkerState
from tests.unit.cluster.test_service import W1, ClusterTestCase
from tests.unit.cluster.values import a_worker

TWICE = Terms(retry=Retry(2, 60.0))
FULL = JobSpec(command="sh", args=("-c", "x"), stdin=b"in", labels={"a": "b"})


class RetryTests(ClusterTestCase):
    def begin_job(self, terms: Terms = TWICE, target: Target = W1) -> Job:
        """It runs."""
        answer = self.cluster.submit(FULL, target, terms)
        (job,) = self.client.calls[-1].args
        self.take(job)
        return self.successResultOf(answer)

    def take(self, job: Job) -> None:
        self.client.take("start_job").answer.callback(JobStatus(job.id, JobState.RUNNING))

    def end(self, job: Job, state: JobState = JobState.FAILED, **changes: Any) -> None:
        current = self.cluster.job(job.id)
        self.ledger.update_job(evolve(current, state=state, finished_at=self.wall, **changes))

    def following(self, job: Job) -> Job | None:
        """The next attempt."""
        found = [other for other in self.jobs() if other.retry_of == job.id]
        self.assertLessEqual(len(found), 1)
        return found[0] if found else None

    def next(self, job: Job) -> Job:
        following = self.following(job)
        assert following is not None
        return following

    def test_another_job(self) -> None:
        """After a failure, or too long a run, comes a job with the same spec and place, and one attempt fewer."""
        for state in (JobState.FAILED, JobState.TIMED_OUT):
            job = self.begin_job()
            self.wall += 5
            self.end(job, state)
            following = self.next(job)
            self.assertEqual((following.spec, following.target), (FULL, W1))
            self.assertEqual(following.terms, Terms(retry=Retry(1, 60.0)))
            self.assertEqual((following.state, following.created_at), (JobState.QUEUED, self.wall))
            self.assertEqual((following.worker_id, following.worker_name, following.promised), (None, "w-1", True))

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
        """It starts once the delay has passed, by a clock that no step of the wall clock changes."""
        job = self.begin_job()
        self.end(job)
        following = self.next(job)
        self.wall += 3600
        self.clock.advance(59)
        self.assertEqual(self.client.calls, [])
        self.clock.advance(1)
        self.clock.advance(0)
        self.take(following)
        self.assertIs(self.cluster.job(following.id).state, JobState.RUNNING)

    def test_as_often_as_said(self) -> None:
        """Each attempt is the next one of the one before it, and after the last comes none."""
        job = self.begin_job(Terms(3600.0, retry=Retry(2)), Target(selector={}))
        for _ in range(2):
            self.end(job)
            job = self.next(job)
            self.clock.advance(0)
            self.take(job)
        self.end(job)
        self.assertIsNone(self.following(job))
        self.assertEqual(len(self.jobs()), 3)

    def test_what_could_not_start(self) -> None:
        """What its worker could not start is tried again, too."""
        answer = self.cluster.submit(FULL, W1, TWICE)
        (job,) = self.client.calls[0].args
        self.client.take("start_job").answer.callback(JobStatus(job.id, JobState.FAILED, "command not found"))
        self.assertIs(self.successResultOf(answer).state, JobState.FAILED)
        self.next(job)

    def test_one_chance(self) -> None:
        """For a named worker that does not wait the next attempt has one chance when it is due, or it has failed."""
        job = self.begin_job()
        self.end(job)
        following = self.next(job)
        self.ledger.update_worker(a_worker(state=WorkerState.UNREACHABLE))
        self.clock.advance(60)
        self.clock.advance(0)
        ended = self.cluster.job(following.id)
        self.assertEqual((ended.state, ended.reason), (JobState.FAILED, "worker 'w-1' can't be reached"))
        self.assertIsNone(self.following(ended))  # it never ran

    def test_one_chance_that_never_left(self) -> None:
        """If that start never left the chance is gone; if it was not answered, it is up to the worker."""
        for error, state in ((Busy("calls", 4), JobState.FAILED), (DeadlineExceeded("x", 9), JobState.UNKNOWN)):
            job = self.begin_job()
            self.end(job)
            self.clock.advance(60)
            self.clock.advance(0)
            self.client.take("start_job").answer.errback(error)
            self.clock.advance(0)
            following = self.cluster.job(self.next(job).id)
            self.assertIs(following.state, state)
        self.assertFalse(following.promised)

    def test_its_time_counts_from_when_it_is_due(self) -> None:
        """``queue_timeout`` does not pass during the delay."""
        job = self.begin_job(Terms(100.0, retry=Retry(1, 60.0)))
        self.end(job)
        self.ledger.update_worker(a_worker(state=WorkerState.UNREACHABLE))
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
        self.store.held = False
        self.end(job)
        self.begin()
        self.assertEqual(self.next(job), following)

    def test_a_later_change(self) -> None:
        """An end that is known has had what follows from it, even if that is kept no more."""
        job = self.begin_job()
        self.end(job)
        self.ledger.drop_job(self.next(job))
        self.end(job, stdout_bytes=3)
        self.assertIsNone(self.following(job))

    def test_across_a_restart(self) -> None:
        """Of the delay is left what was left; one chance waits until workers had time to show that they live."""
        for terms, wait in ((Terms(3600.0, retry=Retry(1, 60.0)), 20.0), (Terms(retry=Retry(1, 60.0)), SETTLE)):
            job = self.begin_job(terms)
            self.end(job)
            self.wall += 40
            self.begin()
            self.add(a_worker())
            self.clock.advance(wait - 1)
            self.assertEqual(self.client.calls, [])
            self.clock.advance(1)
            self.clock.advance(0)
            self.take(self.next(job))

    def test_stopped_in_the_delay(self) -> None:
        """An attempt that waits can be stopped, and then nothing follows."""
        job = self.begin_job()
        self.end(job)
        following = self.next(job)
        self.assertIs(self.successResultOf(self.cluster.stop(following.id)).state, JobState.STOPPED)
        self.clock.advance(3600)
        self.assertEqual((self.client.calls, self.following(following)), ([], None))
