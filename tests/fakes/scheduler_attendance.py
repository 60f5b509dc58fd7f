"""Who attends the jobs of the scheduler in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from scheduler.model import Job


class FakeAttendance:
    """Of jobs with ``unattended_timeout``: who follows or waits, and when nobody has for too long."""

    def __init__(self, clock: IReactorTime, unattended: Callable[[str], None]) -> None:
        """``unattended`` is called with the id of the first attempt."""
        self._clock = clock
        self._unattended = unattended
        self._clients: Counter[str] = Counter()
        self._timers: dict[str, IDelayedCall] = {}

    def begin(self, job: Job) -> None:
        """It is new, or another attempt of one that was there."""
        timeout, first = job.terms.unattended_timeout, job.group_id or job.id
        if timeout is not None and not self._clients[first] and first not in self._timers:
            self._timers[first] = self._clock.callLater(timeout, self._over, first)

    def end(self, job: Job) -> None:
        """It has ended, and nothing follows."""
        timer = self._timers.pop(job.group_id or job.id, None)
        if timer is not None:
            timer.cancel()

    def enter(self, job: Job, still_there: Callable[[], Job | None]) -> Callable[[], None]:
        """A client attends it, until what is returned is called; ``still_there`` is the attempt that has not ended."""
        if job.terms.unattended_timeout is None or still_there() is None:
            return lambda: None
        first = job.group_id or job.id
        self._clients[first] += 1
        self.end(job)
        left: list[None] = []

        def leave() -> None:
            if left:
                return
            left.append(None)
            self._clients[first] -= 1
            last = still_there()
            if last is not None:
                self.begin(last)

        return leave

    def _over(self, first: str) -> None:
        del self._timers[first]
        self._unattended(first)
