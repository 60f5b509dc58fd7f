"""Starts that a core worker did not answer in time, and may answer yet.

Theory of operation. A core worker tells its own id of a job only in the answer to the start. Without this id nobody can
ask it about the job. So the scheduler still waits for the answer after the job has become ``unknown``, for as long as
the client of the worker does (``IWorkerClient.start_job``). Until then the job is not asked about, and not stopped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.cluster.registry import Registry
from scheduler.errors import AnswerUnreadable, DeadlineExceeded, SchedulerError, Unreachable
from scheduler.messages import JobStatus
from scheduler.model import Job, Worker


@define(eq=False, slots=False)
class LateAnswers:
    """Listens for late answers; there is one for each scheduler."""

    _log = Logger()

    _registry: Registry
    #: These two record what the answer says of a job.
    _started: Callable[[Worker, Job, JobStatus], Awaitable[Any]]
    _failed: Callable[[Job, SchedulerError], Awaitable[Any]]
    #: Ids of the jobs.
    _listened_for: set[str] = field(init=False, factory=set)

    def __contains__(self, job_id: str) -> bool:
        """Whether the start of that job may be answered yet."""
        return job_id in self._listened_for

    @property
    def idle(self) -> bool:
        """Whether no answer is listened for."""
        return not self._listened_for

    def listen(self, worker: Worker, job: Job, answer: Deferred[JobStatus]) -> None:
        """Record what the answer says when it comes."""
        self._listened_for.add(job.id)
        Deferred.fromCoroutine(self._answered(worker, job, answer)).addBoth(partial(self._over, job.id))

    async def _answered(self, worker: Worker, job: Job, answer: Deferred[JobStatus]) -> None:
        """Record the answer. An error is raised if the start may have arrived all the same; else the job has failed."""
        try:
            status = await answer
        except SchedulerError as error:
            sent = isinstance(error, Unreachable) and error.sent
            if sent or isinstance(error, DeadlineExceeded | AnswerUnreadable):
                raise
            await self._failed(self._registry.jobs.get(job.id), error)
            return
        if not self._registry.jobs.get(job.id).state.final:
            await self._started(worker, job, status)

    def _over(self, job_id: str, result: object) -> None:
        self._listened_for.discard(job_id)
        if not isinstance(result, Failure):
            self._log.info("the start of job {job_id} was answered late", job_id=job_id)
        elif not result.check(SchedulerError):
            self._log.failure("the late answer to the start of job {job_id} went wrong", result, job_id=job_id)
