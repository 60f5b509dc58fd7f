"""A clock that follows the wall clock, but only slowly when it is set ahead, because the wall clock can be wrong.

If someone sets the wall clock a year ahead, records that are kept for a month must not all be removed in the next
minute. So this clock runs at most ``CATCH_UP_FACTOR`` times as fast as real time. A step of an hour makes no
difference. After a step of a year there is a week to notice that the oldest records go early, and to correct the wall
clock. This clock is never later than the wall clock.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

#: This clock's speed at most, in multiples of real time: it catches up a day in six hours.
CATCH_UP_FACTOR = 4.0


class CautiousTime:
    """The cautious clock. ``clock`` measures the time that really passes; ``wall_time`` gives the wall clock's."""

    def __init__(self, clock: IReactorTime, wall_time: Callable[[], float]) -> None:
        self._clock = clock
        self._wall_time = wall_time
        self._now = 0.0
        self._looked = 0.0

    def begin(self, at: float) -> None:
        """Set the clock to ``at``, or to the wall clock's time if that is earlier."""
        self._now = min(self._wall_time(), at)
        self._looked = self._clock.seconds()

    def read(self) -> float:
        """The time now. Call this every few seconds."""
        passed = self._clock.seconds() - self._looked
        self._looked += passed
        self._now = min(self._wall_time(), self._now + CATCH_UP_FACTOR * passed)
        return self._now
