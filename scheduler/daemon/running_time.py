"""A clock that does not count the time in which this process did not run: it was stopped, or its machine.

Messages that came meanwhile wait in a socket, and have to be heard before anything is concluded from silence. Such a
time is noticed because a periodic call is late.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger


class RunningTime:
    """Seconds by ``clock`` in which this process ran. ``tick`` is called periodically between ``begin`` and ``end``."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, interval: float) -> None:
        """``interval``: seconds between two calls of ``tick``."""
        self._clock = clock
        self._interval = interval
        # when the next ``tick`` is due, by the clock; ``None``: none is
        self._due: float | None = None
        #: The number of times in which this process did not run.
        self.pauses = 0
        self._paused = 0.0

    def begin(self) -> None:
        """The first ``tick`` is due now."""
        self._due = self._clock.seconds()

    def end(self) -> None:
        """No ``tick`` is due any more."""
        self._due = None

    def tick(self) -> None:
        """Note that the periodic call was made."""
        self.read()
        self._due = self._clock.seconds() + self._interval

    def read(self) -> float:
        """The time now."""
        now = self._clock.seconds()
        late = 0.0 if self._due is None else now - self._due
        if late > self._interval:
            self._log.warn("this process did not run for {seconds:.1f} s", seconds=late)
            self._due = now
            self.pauses += 1
            self._paused += late
        return now - self._paused
