"""Jobs with terms of retry, on worker ``w-1``, for the tests of their attempts."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from scheduler.errors import StoreFailed
from scheduler.messages import JobStatus
from scheduler.model import Job, JobSpec, JobState
from scheduler.terms import QueueTerms, Retry, Target
from tests.unit.cluster.case import W1, ClusterTestCase

TWICE = QueueTerms(retry=Retry(2, 60.0))
FULL = JobSpec(command="sh", args=("-c", "x"), stdin=b"in", labels={"a": "b"})


class RetryTestCase(ClusterTestCase):
    def begin_job(self, terms: QueueTerms = TWICE, target: Target = W1) -> Job:
        """A job that runs."""
        answer = self.house.submit(FULL, target, terms)
        (job,) = self.held()[-1].args
        self.run_it(job)
        return self.successResultOf(answer)

    def next_attempt(self) -> Job:
        """The attempt that follows a job which failed."""
        job = self.begin_job()
        self.end(job)
        return self.next(job)

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
