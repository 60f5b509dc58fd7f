"""Those who wait for the end of a job."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from scheduler.cluster.registry import Registry
from scheduler.model import Job

T = TypeVar("T")

_Waiting = dict[str, list[Deferred[Job]]]


class Waits:
    """One for each ledger, which tells it of every change."""

    def __init__(self, clock: IReactorTime, registry: Registry) -> None:
        self._clock = clock
        self._registry = registry
        # job id -> those who wait for its end, and those who wait until it is over
        self._ends: _Waiting = {}
        self._overs: _Waiting = {}

    @property
    def idle(self) -> bool:
        """Whether nobody waits."""
        return not self._ends and not self._overs

    def until_ended(self, job_id: str, seconds: float) -> Deferred[Job]:
        """The job at its end, or as it is after ``seconds``; ``NotFound`` is raised."""
        job = self._registry.job(job_id)
        return succeed(job) if job.state.final else self._wait(self._ends, job, seconds)

    def until_over(self, job_id: str, seconds: float) -> Deferred[Job]:
        """The same of the time when nothing of the job is known to run, which for an orphan comes later."""
        job = self._registry.job(job_id)
        return succeed(job) if job.over else self._wait(self._overs, job, seconds)

    async def until_attempts_ended(self, job_id: str, seconds: float) -> Job:
        """The last attempt at its end, when no other follows it, or as it is after ``seconds``; ``NotFound``."""
        until = self._clock.seconds() + seconds
        while True:
            last = self._registry.last_attempt(job_id)
            ended = await self.until_ended(last.id, max(0.0, until - self._clock.seconds()))
            if not ended.state.final or ended.retried_by is None or self._registry.find_job(ended.retried_by) is None:
                return ended
            job_id = ended.retried_by

    def changed(self, job: Job) -> None:
        """Answer those who have waited for what the job is now."""
        if job.state.final:
            _wake(self._ends, job)
        if job.over:
            _wake(self._overs, job)

    def dropped(self, job: Job) -> None:
        """There is no such job: answer all who wait for it with what it was last."""
        _wake(self._ends, job)
        _wake(self._overs, job)

    def _wait(self, who: _Waiting, job: Job, seconds: float) -> Deferred[Job]:
        job_id = job.id
        ended: Deferred[Job] = Deferred()
        who.setdefault(job_id, []).append(ended)

        def as_it_is(_reason: object, _seconds: float) -> Job:
            return self._registry.find_job(job_id) or job

        def leave(result: T) -> T:
            waiting = who.get(job_id, [])
            if ended in waiting:
                waiting.remove(ended)
            if not waiting:
                who.pop(job_id, None)
            return result

        return ended.addTimeout(seconds, self._clock, as_it_is).addBoth(leave)


def _wake(who: _Waiting, job: Job) -> None:
    for waiting in who.pop(job.id, []):
        waiting.callback(job)
