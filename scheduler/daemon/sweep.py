"""Going through many things a slice at a time, so that whatever else the reactor has to do never waits long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

T = TypeVar("T")

#: Seconds after which a slice ends, with the step that it is at.
SLICE_SECONDS = 0.001


class Sweep(Generic[T]):
    """Calls ``step`` for each of many things, in order; the first slice at once, each other in a later turn."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, step: Callable[[T], None]) -> None:
        self._clock = clock
        self._step = step
        self._left: Iterator[T] | None = None
        self._next: IDelayedCall | None = None

    def begin(self, things: Iterable[T]) -> None:
        """Go through these; does nothing while the sweep before goes on.

        They are taken as the sweep gets to them: nothing else may change the collection they come from.
        """
        if self._left is None:
            self._left = iter(things)
            self._go_on()

    def stop(self) -> None:
        """Leave the rest as it is."""
        self._left = None
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _go_on(self) -> None:
        self._next = None
        until = self._clock.seconds() + SLICE_SECONDS
        left = self._left
        assert left is not None
        for thing in left:
            try:
                self._step(thing)
            except Exception:  # the others are to have their turn
                self._log.failure("a step of a sweep went wrong, at {thing}", thing=thing)
            if self._left is not left:
                return  # the step stopped it
            if self._clock.seconds() >= until:
                self._next = self._clock.callLater(0, self._go_on)
                return
        self._left = None
