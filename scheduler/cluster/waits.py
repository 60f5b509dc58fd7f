"""Waits for a job, until it has ended or a time is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from scheduler.cluster.changes import Change, ChangeFeed, JobChanged
from scheduler.cluster.registry import Registry
from scheduler.model import Job

T = TypeVar("T")


class Waits:
    """Deferreds for requests that wait until a job has ended, or a time is over."""

    def __init__(self, clock: IReactorTime, registry: Registry, feed: ChangeFeed) -> None:
        self._clock = clock
        self._registry = registry
        self._feed = feed

    def until_ended(self, job_id: str, seconds: float) -> Deferred[Job]:
        """Fires with the job at its end, or as it is after ``seconds``. Raises ``NotFound`` if the job is not known."""
        return self._until(job_id, lambda job: job.state.final, seconds)

    def until_over(self, job_id: str, seconds: float) -> Deferred[Job]:
        """Fires like ``until_ended``, but once the job is over (``Job.over``), which for an orphan is later."""
        return self._until(job_id, lambda job: job.over, seconds)

    async def until_attempts_ended(self, job_id: str, seconds: float) -> Job:
        """The last attempt, at its end or as it is after ``seconds``. Raises ``NotFound`` if the job is not known."""
        until = self._clock.seconds() + seconds
        while True:
            last = self._registry.jobs.last_attempt(job_id)
            ended = await self.until_ended(last.id, max(0.0, until - self._clock.seconds()))
            if not ended.state.final or ended.retried_by is None or self._registry.jobs.find(ended.retried_by) is None:
                return ended
            job_id = ended.retried_by

    def _until(self, job_id: str, holds: Callable[[Job], bool], seconds: float) -> Deferred[Job]:
        """Fires with the job once ``holds`` is true of it, or it is removed, or as it is after ``seconds``."""
        job = self._registry.jobs.get(job_id)
        if holds(job):
            return succeed(job)
        waiting: Deferred[Job] = Deferred()

        def hear(change: Change) -> None:
            if isinstance(change, JobChanged) and (change.after is None or holds(change.after)):
                waiting.callback(change.last)

        leave = self._feed.subscribe(hear, job.ref)

        def left(result: T) -> T:
            leave()
            return result

        def as_it_is(_reason: object, _seconds: float) -> Job:
            return self._registry.jobs.find(job_id) or job

        return waiting.addTimeout(seconds, self._clock, as_it_is).addBoth(left)
