"""Processes many things in slices, so that the reactor's other work never waits long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

T = TypeVar("T")

#: Seconds after which a slice ends, once its present step is done.
SLICE_SECONDS = 0.001


class Sweep(Generic[T]):
    """Calls ``step`` for each of many things, in order. The first slice runs at once, the others in later turns."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, step: Callable[[T], None]) -> None:
        self._clock = clock
        self._step = step
        self._left: Iterator[T] | None = None
        self._next: IDelayedCall | None = None

    def begin(self, things: Iterable[T]) -> None:
        """Begin a sweep over these things. Does nothing while an earlier sweep is in progress.

        The things are taken from their collection one by one, so the collection must not change meanwhile.
        """
        if self._left is None:
            self._left = iter(things)
            self._go_on()

    def stop(self) -> None:
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
            except Exception:  # the other things must get their turn
                self._log.failure("a step of a sweep failed, at {thing}", thing=thing)
            if self._left is not left:
                return  # the step stopped it
            if self._clock.seconds() >= until:
                self._next = self._clock.callLater(0, self._go_on)
                return
        self._left = None
