"""Times at which something is due for a job: one for each job, and one timer for all of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

#: Outdated deadlines that are kept beyond the number of valid ones, before all outdated ones are dropped.
OUTDATED_MAX = 100


class Deadlines:
    """The deadlines of one queue. All times are by the clock."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # job id -> the number of its deadline, and what is due
        self._due: dict[str, tuple[int, Callable[[], None]]] = {}
        # a heap of (time, number, job id): of a job, the one with its present number counts
        self._heap: list[tuple[float, int, str]] = []
        self._numbers = count()
        self._timer: IDelayedCall | None = None
        # the deadline that it runs until
        self._until = 0.0

    @property
    def idle(self) -> bool:
        """Whether there is no deadline."""
        return not (self._due or self._timer)

    def set(self, job_id: str, when: float, call: Callable[[], None]) -> None:
        """Make the call at that time, in a later turn at the earliest; replaces the job's deadline, if it has one."""
        number = next(self._numbers)
        self._due[job_id] = number, call
        heapq.heappush(self._heap, (when, number, job_id))
        if len(self._heap) > 2 * len(self._due) + OUTDATED_MAX:
            self._heap = list(filter(self._counts, self._heap))
            heapq.heapify(self._heap)
        self._wait()

    def clear(self, job_id: str) -> None:
        """Remove the job's deadline, if it has one."""
        if self._due.pop(job_id, None) is not None:
            self._wait()

    def _counts(self, entry: tuple[float, int, str]) -> bool:
        _, number, job_id = entry
        return job_id in self._due and self._due[job_id][0] == number

    def _wait(self) -> None:
        """Have the timer run until the first deadline that counts."""
        while self._heap and not self._counts(self._heap[0]):
            heapq.heappop(self._heap)
        first = self._heap[0][0] if self._heap else None
        if self._timer is not None:
            if self._until == first:
                return
            self._timer.cancel()
            self._timer = None
        if first is not None:
            self._until = first
            self._timer = self._clock.callLater(max(0.0, first - self._clock.seconds()), self._pass)

    def _pass(self) -> None:
        """Make the calls that are due."""
        self._timer = None
        now, passed = self._clock.seconds(), []
        while self._heap and self._heap[0][0] <= now:
            passed.append(heapq.heappop(self._heap))
        for entry in passed:
            if self._counts(entry):
                _, call = self._due.pop(entry[2])
                try:
                    call()
                except Exception:  # the others are due all the same
                    self._log.failure("what was due for job {job_id} went wrong", job_id=entry[2])
        self._wait()
