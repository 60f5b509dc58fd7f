"""Failures of reading output: which of them end a follower, and when the others are tried again.

| failure | while the job runs | once the job has ended |
| --- | --- | --- |
| ``Busy``, and nothing was read yet | ends it: the client can ask again | ends it |
| ``WorkerFault`` | ends it after ``FAULTS_MAX_SECONDS`` | ends it after ``FAULTS_MAX_SECONDS`` |
| ``NotFound`` | is retried: the start may be on its way | ends it |
| ``Unavailable``, ``DeadlineExceeded`` | is retried without limit | ends it if nothing was read yet, |
| | | else after ``FAILING_MAX_SECONDS`` |
| anything else | ends it | ends it |
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from scheduler.errors import Busy, DeadlineExceeded, NotFound, Unavailable, WorkerFault

#: Seconds without a byte after which a follower that has read something gives up an ended job.
FAILING_MAX_SECONDS = 30.0

#: Seconds without a byte after which any follower gives up a worker that answers with faults.
FAULTS_MAX_SECONDS = 5.0

#: Seconds before the first retry, and the most this grows to.
RETRY_FIRST_SECONDS, RETRY_MAX_SECONDS = 0.1, 5.0


def gives_up(error: BaseException, over: bool, fresh: bool, seconds: float) -> bool:
    """Whether ``error`` ends a follower.

    ``over``: the job has ended. ``fresh``: the follower has read nothing. ``seconds``: since the first such error.
    """
    match error:
        case Busy() if fresh:
            return True
        case WorkerFault():
            return seconds >= FAULTS_MAX_SECONDS
        case NotFound():
            return over
        case Unavailable() | DeadlineExceeded():
            return over and (fresh or seconds >= FAILING_MAX_SECONDS)
    return True


class Retries:
    """Schedules the next try of all followers of a stream, after a delay that grows until something succeeds."""

    def __init__(self, clock: IReactorTime, again: Callable[[], None]) -> None:
        """``again`` is called when it is time to try again."""
        self._clock = clock
        self._again = again
        self._timer: IDelayedCall | None = None
        self._delay = RETRY_FIRST_SECONDS
        # kind of error -> time of the first one since the last success
        self._since: dict[type, float] = {}

    @property
    def pending(self) -> bool:
        """Whether something failed and it is too early to try again."""
        return self._timer is not None

    def failing_for(self, error: BaseException) -> float:
        """Seconds since the first error of that kind after the last success."""
        now = self._clock.seconds()
        return now - self._since.get(type(error), now)

    def failed(self, error: BaseException) -> None:
        """Schedule a retry."""
        self._since.setdefault(type(error), self._clock.seconds())
        if self._timer is None:
            self._timer = self._clock.callLater(self._delay, self.now)
            self._delay = min(2 * self._delay, RETRY_MAX_SECONDS)

    def succeeded(self) -> None:
        """Forget the failures so far."""
        self._since.clear()
        self._delay = RETRY_FIRST_SECONDS

    def now(self) -> None:
        """Try again without waiting any longer."""
        self.cancel()
        self._again()

    def cancel(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
