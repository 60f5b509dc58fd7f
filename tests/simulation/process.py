"""A run of a program: it lives until it is killed or has ended, and does nothing after that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.simulation.loop import Loop, ProcessClock


class Process:
    """A process. ``name`` distinguishes it from the previous one. Exceptions go to ``crashed``, which makes them
    findings.
    """

    def __init__(self, loop: Loop, name: str, crashed: Callable[[str, Failure], None]) -> None:
        self.loop = loop
        self.name = name
        #: The time of its start by the loop's clock.
        self.began = loop.now
        self.alive = True
        self.clock = ProcessClock(loop, self.run)
        #: Functions that are called, in order, at any kind of end.
        self.on_end: list[Callable[[], None]] = []
        self._crashed = crashed
        self._frozen = False
        #: Whether it was told to stop.
        self.stopping = False
        self._put_off: list[Callable[[], object]] = []

    @property
    def frozen(self) -> bool:
        """Whether it is frozen, as by SIGSTOP."""
        return self._frozen

    def run(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Call a function in the process: now, once it is thawed, or, if it has ended, never."""
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
        """An exception was raised in it that must not be."""
        self._crashed(self.name, reason)

    def after(self, seconds: float, function: Callable[..., object], *args: Any) -> None:
        """Call a function in the process later."""
        self.loop.after(seconds, self.run, function, *args)

    def freeze(self) -> None:
        """Do nothing until it is thawed; missed events are made up then."""
        self._frozen = self.alive

    def thaw(self) -> None:
        """Continue, one missed event after the other."""
        self._frozen = False
        put_off, self._put_off = self._put_off, []
        for each in put_off:
            self.loop.after(0, self.run, each)

    def stop(self, begin: Callable[[], object]) -> Deferred[None]:
        """Let it end by itself, like on SIGTERM; fires when it has ended. A second call begins nothing more."""
        stopped: Deferred[None] = Deferred()
        self.on_end.append(lambda: stopped.callback(None))
        if not self.stopping:
            self.stopping = True
            self.run(begin)
        return stopped

    def end(self) -> None:
        """End it, because it is killed or by itself."""
        if not self.alive:
            return
        self.alive = False
        self._put_off.clear()
        for each in list(self.on_end):
            if each in self.on_end:  # an earlier one may have removed it
                each()
