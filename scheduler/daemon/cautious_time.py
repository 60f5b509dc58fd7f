"""A time that follows the wall clock, which can be wrong, without believing every step of it.

Whoever sets the clock a year ahead must not have everything go in the next minute that is kept for a
month. So this time follows the wall clock at most ``CATCH_UP_FACTOR`` times as fast as seconds really pass. A step
of an hour changes nothing; after a step of a year there is a week to see that the oldest things go early and to set
the clock right. It is never later than the wall clock.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

#: How fast it catches up with the wall clock: a day in six hours.
CATCH_UP_FACTOR = 4.0


class CautiousTime:
    """POSIX time. ``clock`` measures how much time has really passed, ``wall_time`` is that of the wall clock."""

    def __init__(self, clock: IReactorTime, wall_time: Callable[[], float]) -> None:
        self._clock = clock
        self._wall_time = wall_time
        self._now = 0.0
        self._looked = 0.0

    def begin(self, at: float) -> None:
        """It is ``at``, or what the wall clock says if that is earlier."""
        self._now = min(self._wall_time(), at)
        self._looked = self._clock.seconds()

    def read(self) -> float:
        """The time now; to be asked every few seconds."""
        passed = self._clock.seconds() - self._looked
        self._looked += passed
        self._now = min(self._wall_time(), self._now + CATCH_UP_FACTOR * passed)
        return self._now
