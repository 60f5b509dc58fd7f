"""A run of a program: it lives until it is killed or has ended, and nothing of it happens after that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.simulation.loop import Loop, ProcessClock


class Process:
    """``name`` tells it from the one before it. What it raises is told to ``crashed``, which makes it a finding."""

    def __init__(self, loop: Loop, name: str, crashed: Callable[[str, Failure], None]) -> None:
        self.loop = loop
        self.name = name
        #: By the loop's clock.
        self.began = loop.now
        self.alive = True
        self.clock = ProcessClock(loop, self.run)
        #: Called, in order, when it ends in whichever way.
        self.on_end: list[Callable[[], None]] = []
        self._crashed = crashed
        self._frozen = False
        #: It was told to stop.
        self.stopping = False
        self._put_off: list[Callable[[], object]] = []

    @property
    def frozen(self) -> bool:
        """Whether it is stopped, as by SIGSTOP."""
        return self._frozen

    def run(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Have the process do something: now, once it is thawed, or, if it has ended, never."""
        if not self.alive:
            return
        if self._frozen:
            self._put_off.append(lambda: function(*args, **kwargs))
            return
        try:
            function(*args, **kwargs)
        except Exception:
            self.crashed(Failure())

    def crashed(self, reason: Failure) -> None:
        """Something in it went wrong that must not."""
        self._crashed(self.name, reason)

    def after(self, seconds: float, function: Callable[..., object], *args: Any) -> None:
        """The same, later."""
        self.loop.after(seconds, self.run, function, *args)

    def freeze(self) -> None:
        """It does nothing until it is thawed; what it misses it does then."""
        self._frozen = self.alive

    def thaw(self) -> None:
        """It goes on, one event after the other."""
        self._frozen = False
        put_off, self._put_off = self._put_off, []
        for each in put_off:
            self.loop.after(0, self.run, each)

    def stop(self, begin: Callable[[], object]) -> Deferred[None]:
        """Have it end by itself, as SIGTERM does; fires when it has ended. A second one has it begin nothing more."""
        stopped: Deferred[None] = Deferred()
        self.on_end.append(lambda: stopped.callback(None))
        if not self.stopping:
            self.stopping = True
            self.run(begin)
        return stopped

    def end(self) -> None:
        """It is no more, killed or by itself."""
        if not self.alive:
            return
        self.alive = False
        self._put_off.clear()
        for each in list(self.on_end):
            if each in self.on_end:  # one before it may have taken it off
                each()
