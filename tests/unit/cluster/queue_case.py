"""The tests of the queue share this: one worker with one slot, which is taken."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from scheduler.errors import Unavailable
from scheduler.messages import JobStatus
from scheduler.model import Job, JobState, Worker
from scheduler.request_keys import RequestKey
from scheduler.terms import QueueTerms, Target
from tests.doubles.workers import Call
from tests.unit.cluster.case import ANY, ECHO, W1, ClusterTestCase
from tests.unit.cluster.values import a_worker

HOUR = 3600.0
PATIENT = QueueTerms(queue_timeout=HOUR)
KEY = RequestKey("k", "f" * 64)
SHORT = Unavailable("no more processes", 5)


class QueueTestCase(ClusterTestCase):
    """A cluster of one worker with one slot, which is taken by a job of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.add(a_worker(slots=1))
        self.first = self.run_job(W1)

    def run_job(self, target: Target = ANY) -> Job:
        """A job that runs at once."""
        answer = self.house.submit(ECHO, target)
        self.running(self.take("start_job"))
        return self.successResultOf(answer)

    def running(self, call: Call) -> Job:
        """The worker has started it."""
        (job,) = call.args
        call.answer.callback(JobStatus(job.id, JobState.RUNNING))
        return self.cluster.job(job.id)

    def submit(self, target: Target = ANY, terms: QueueTerms = PATIENT, **more: Any) -> Deferred[Job]:
        return self.house.submit(more.pop("spec", ECHO), target, terms, **more)

    def queued(self, target: Target = ANY, terms: QueueTerms = PATIENT, **more: Any) -> Job:
        """A job that has to wait."""
        job = self.successResultOf(self.submit(target, terms, **more))
        self.assertEqual((job.state, job.promised), (JobState.QUEUED, True))
        self.assertEqual(self.held(), [])
        return job

    def end(self, job: Job) -> None:
        """The job has succeeded."""
        current = self.cluster.job(job.id)
        self.ledger.learn(evolve(current, state=JobState.SUCCEEDED, finished_at=self.wall, exit_code=0))
        self.settle()

    def change(self, worker: Worker, online: bool = True) -> None:
        self.add(worker, online=online)
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
