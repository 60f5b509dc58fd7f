"""The jobs that wait in the scheduler in memory."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from scheduler.model import Job, JobState


@define
class _Waiting:
    job: Job
    due: float
    timers: tuple[IDelayedCall, ...]


class FakeQueue:
    """Each from when it is due until it is taken, or its time is over."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: dict[str, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, job: Job, delay: float, due: Callable[[], None], over: Callable[[str], None]) -> None:
        """Call ``due`` after ``delay`` seconds, and ``over`` with the job's id when it was not taken in time."""
        timers = (
            self._clock.callLater(delay, due),
            self._clock.callLater(delay + job.terms.queue_timeout, over, job.id),
        )
        self._waiting[job.id] = _Waiting(job, self._clock.seconds() + delay, timers)

    def take(self, job_id: str) -> None:
        """It waits no more."""
        waiting = self._waiting.pop(job_id, None)
        for timer in waiting.timers if waiting is not None else ():
            if timer.active():
                timer.cancel()

    def delayed(self, job_id: str) -> bool:
        """Whether it is not due yet."""
        return self._clock.seconds() < self._waiting[job_id].due

    def before(self, job_id: str) -> list[Job]:
        """Those that go before it, if it was due now."""
        due, job = self.due(), self._waiting[job_id].job
        if job in due:
            return due[: due.index(job)]
        return [other for other in due if other.terms.priority >= job.terms.priority]

    def due(self) -> list[Job]:
        """Those that could be started now, in order."""
        now = self._clock.seconds()
        return sorted(
            (waiting.job for waiting in self._waiting.values() if waiting.due <= now),
            key=lambda job: -job.terms.priority,
        )


def next_attempt(job: Job, job_id: str, now: float) -> Job | None:
    """The job that follows one that has just ended, if one does."""
    retry = job.terms.retry
    if job.state not in {JobState.FAILED, JobState.TIMED_OUT} or retry is None or not retry.attempts:
        return None
    if job.stop_requested_at is not None or job.worker_id is None:
        return None
    return Job(
        job_id,
        job.spec,
        JobState.QUEUED,
        now,
        worker_name=job.worker_name if job.target is not None and job.target.worker is not None else None,
        group_id=job.group_id,
        retry_of=job.id,
        target=job.target,
        terms=evolve(job.terms, retry=evolve(retry, attempts=retry.attempts - 1)),
        promised=True,
    )
