"""A bound on how many calls are under way at once; the others wait in line, first come, first served.

Unlike a ``DeferredSemaphore``, a turn that ends does not start the next one from within itself. Where calls are
answered at once, hundreds in line would otherwise recurse until Python gives up, and some would never get their turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


class Turns:
    """At most ``most`` calls at once."""

    def __init__(self, most: int) -> None:
        self._most = self._free = most
        self._waiting: deque[Deferred[None]] = deque()
        self._giving = False

    @property
    def idle(self) -> bool:
        """No call is under way or waits."""
        return self._free == self._most and not self._waiting

    async def run(self, call: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """What ``call`` answers, which is made when it is its turn. To cancel the wait gives the turn to the next."""
        turn: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(turn)
        self._give()
        await turn
        try:
            return await call(*args, **kwargs)
        finally:
            self._free += 1
            self._give()

    def _give(self) -> None:
        if self._giving:
            return  # the loop below, further up the stack, goes on
        self._giving = True
        try:
            while self._free and self._waiting:
                self._free -= 1
                self._waiting.popleft().callback(None)
        finally:
            self._giving = False


class KeyedTurns:
    """At most ``most`` calls at once for each key."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._turns: dict[str, Turns] = {}

    @property
    def idle(self) -> bool:
        """Whether no call is under way or waits."""
        return not self._turns

    async def run(self, key: str, call: Callable[[], Awaitable[T]]) -> T:
        """What ``call`` answers, which is made when it is its turn among those with that key."""
        turns = self._turns.setdefault(key, Turns(self._most))
        try:
            return await turns.run(call)
        finally:
            if turns.idle:
                self._turns.pop(key, None)
