"""The queue of a scheduler that starts again."""

from __future__ import annotations

from attrs import evolve

from scheduler.cluster.jobs.dispatcher import SWEEP_INTERVAL_SECONDS
from scheduler.cluster.jobs.queue import RESTART_GRACE_SECONDS
from scheduler.cluster.settling import SILENCE_MAX_SECONDS
from scheduler.model import Job, JobState
from scheduler.terms import QueueTerms
from tests.unit.cluster.case import W1
from tests.unit.cluster.queue_case import HOUR, QueueTestCase
from tests.unit.cluster.values import a_job, a_worker


class RestartTests(QueueTestCase):
    def restart(self, after: float) -> None:
        """The scheduler was killed, and is back so many seconds later, and its worker has called."""
        self.wall += after
        self.begin()
        self.add(a_worker(slots=1))

    def test_the_queue_is_made_again(self) -> None:
        """Jobs that waited still wait, in the same order, and are started when a worker is free."""
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
        """The rest of its time is as long as before, and never longer than all of it."""
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
        """A job that was about to start when the process died is still promised, unless days have passed."""
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
        """A job with only one chance is started when its worker is back and free, like others."""
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
