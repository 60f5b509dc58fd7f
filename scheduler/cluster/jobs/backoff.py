"""Backoff: a worker that could not take a job is not offered another for a while.

A worker that answers that it lacks something (processes, memory, room on its disk) will lack it a moment later, too. So
each such answer in a row doubles the backoff, from the answer's ``retry_after`` (1 s at least) up to 60 s, until the
worker runs a job. Answers to starts that were sent together count as one. A call that did not reach the worker says
nothing of what it lacks, and never makes the backoff longer.

The registry is told when a backoff begins and ends, so placement leaves these workers out at once. There is no timer:
``candidates`` first ends the backoffs that are over.
"""

from __future__ import annotations

import heapq

from attrs import define
from twisted.internet.interfaces import IReactorTime

from scheduler.cluster.candidates import Candidates
from scheduler.cluster.registry import Registry
from scheduler.errors import Unavailable

#: Seconds of a backoff, at least and at most.
BACKOFF_MIN_SECONDS, BACKOFF_MAX_SECONDS = 1.0, 60.0


@define
class _Refusal:
    #: When the backoff is over, by the clock.
    until: float = 0.0
    #: Shortages since it last ran a job.
    shortages: int = 0
    reason: str = ""


class Backoff:
    """The backoffs of all workers; ``clock`` tells the time."""

    def __init__(self, clock: IReactorTime, registry: Registry) -> None:
        self._clock = clock
        self._registry = registry
        # worker id -> how it last took no job
        self._refusals: dict[str, _Refusal] = {}
        # a heap of (end, worker id): every end that was to be, the last of a worker counts
        self._ends: list[tuple[float, str]] = []

    @property
    def candidates(self) -> Candidates:
        """The workers as placement sees them now."""
        self._end_those_over()
        return self._registry.candidates

    @property
    def next_end(self) -> float | None:
        """A time by the clock before which no backoff ends; ``None``: no worker is in backoff."""
        self._end_those_over()
        return self._ends[0][0] if self._ends else None

    @property
    def idle(self) -> bool:
        """Whether no worker is in backoff."""
        return not any(map(self.active, self._refusals))

    def refused(self, worker_id: str, error: Unavailable) -> None:
        """Note that a start failed with ``error``, and nothing runs for it: the worker is in backoff, or longer."""
        now = self._clock.seconds()
        refusal = self._refusals.setdefault(worker_id, _Refusal())
        shortage = is_shortage(error)
        if shortage and (now >= refusal.until or not refusal.shortages):
            refusal.shortages += 1
        refusal.until = max(refusal.until, now + seconds(error.retry_after, refusal.shortages if shortage else 1))
        refusal.reason = str(error)
        heapq.heappush(self._ends, (refusal.until, worker_id))
        self._registry.set_backoff(worker_id, True)

    def forget(self, worker_id: str) -> None:
        """End the backoff of a worker that runs a job, is a new process, or is no longer known."""
        if self._refusals.pop(worker_id, None) is not None:
            self._registry.set_backoff(worker_id, False)

    def active(self, worker_id: str) -> bool:
        """Whether the worker is in backoff now."""
        refusal = self._refusals.get(worker_id)
        return refusal is not None and self._clock.seconds() < refusal.until

    def ends(self, worker_id: str) -> float | None:
        """The end of the worker's backoff, by the clock; ``None``: the worker is not in backoff."""
        return self._refusals[worker_id].until if self.active(worker_id) else None

    def reason(self, worker_id: str) -> str | None:
        """The reason of the worker's backoff; ``None``: the worker is not in backoff."""
        return self._refusals[worker_id].reason if self.active(worker_id) else None

    def _end_those_over(self) -> None:
        now = self._clock.seconds()
        while self._ends and self._ends[0][0] <= now:
            _, worker_id = heapq.heappop(self._ends)
            if not self.active(worker_id):
                self._registry.set_backoff(worker_id, False)


def is_shortage(error: Unavailable) -> bool:
    """Whether the worker itself answered that it can't take the job now; any other kind says that it was not asked."""
    return type(error) is Unavailable


def seconds(retry_after: float, shortages: int) -> float:
    """Seconds of a backoff after ``shortages`` in a row, the last of which asked for ``retry_after`` seconds."""
    return min(max(retry_after, BACKOFF_MIN_SECONDS) * 2.0 ** min(shortages - 1, 10), BACKOFF_MAX_SECONDS)
