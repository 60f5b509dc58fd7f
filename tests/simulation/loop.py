"""Virtual time: one queue of all future events, in one order.

Events of the same time happen in the order in which they were requested, so a run depends only on its seed. A process
sees the loop through a clock of its own: its timers end with it, and wait while it is frozen.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer


@implementer(IDelayedCall)
class Timer:
    """A future event."""

    __slots__ = ("_loop", "_time", "call", "done")

    def __init__(self, loop: Loop, time: float, call: Callable[[], object]) -> None:
        self._loop = loop
        self._time = time
        self.call = call
        #: ``""`` before it is ``called`` or ``cancelled``.
        self.done = ""

    def getTime(self) -> float:
        return self._time

    def active(self) -> bool:
        return not self.done

    def cancel(self) -> None:
        self._check()
        self.done = "cancelled"

    def delay(self, secondsLater: float) -> None:
        self._move(self._time + secondsLater)

    def reset(self, secondsFromNow: float) -> None:
        self._move(self._loop.now + secondsFromNow)

    def _move(self, time: float) -> None:
        self._check()
        self._time = time
        self._loop.put(self)

    def _check(self) -> None:
        if self.done:
            raise AlreadyCalled() if self.done == "called" else AlreadyCancelled()


class Loop:
    """The queue of events; ``now`` in seconds, from 0."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0

    def at(self, time: float, function: Callable[..., object], *args: Any) -> Timer:
        """Call the function at that time, or now if it is past."""
        timer = Timer(self, max(time, self.now), (lambda: function(*args)) if args else function)
        self.put(timer)
        return timer

    def after(self, seconds: float, function: Callable[..., object], *args: Any) -> Timer:
        """Call the function so many seconds later."""
        return self.at(self.now + seconds, function, *args)

    def put(self, timer: Timer) -> None:
        """Queue a timer by its time, behind all others of the same time."""
        self._count += 1
        heapq.heappush(self._heap, (timer.getTime(), self._count, timer))

    def run(self, until: float, finished: Callable[[], bool] = lambda: False) -> None:
        """Process all events until that time, or until ``finished`` is true after an event."""
        while self._heap and self._heap[0][0] <= until:
            time, _, timer = heapq.heappop(self._heap)
            if timer.done or time != timer.getTime():
                continue
            self.now = time
            timer.done = "called"
            self.events += 1
            timer.call()
            if finished():
                return
        self.now = max(self.now, until)


@implementer(IReactorTime)
class ProcessClock:
    """The clock of one process. ``run`` makes each of its calls: it may refuse, or delay, a call.

    A timer that is due while the process is frozen stays active until the process is thawed, so it can be cancelled.
    """

    def __init__(self, loop: Loop, run: Callable[..., object]) -> None:
        self._loop = loop
        self._run = run
        self._timers: dict[Timer, None] = {}

    def seconds(self) -> float:
        return self._loop.now

    def callLater(self, delay: float, function: Callable[..., object], *args: Any, **kwargs: Any) -> Timer:
        def due() -> None:
            timer.done = ""
            self._run(call)

        def call() -> None:
            if timer.done or timer.getTime() > self._loop.now:
                return  # it was cancelled, or delayed
            timer.done = "called"
            del self._timers[timer]
            function(*args, **kwargs)

        timer = self._loop.at(self._loop.now + delay, due)
        self._timers[timer] = None
        if len(self._timers) > 1000:
            self._timers = {each: None for each in self._timers if each.active()}
        return timer

    def getDelayedCalls(self) -> list[IDelayedCall]:
        return [timer for timer in self._timers if timer.active()]
