"""Limits how many calls are in flight at once. Further calls wait, first come, first served.

Unlike in a ``DeferredSemaphore``, a call that ends does not start the next one from within itself. Where calls are
answered at once, hundreds of waiting calls would otherwise recurse until Python raises ``RecursionError``, and some
would never be made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


class Turns:
    """Makes at most ``most`` calls at once."""

    def __init__(self, most: int) -> None:
        self._most = self._free = most
        self._waiting: deque[Deferred[None]] = deque()
        self._giving = False

    @property
    def idle(self) -> bool:
        return self._free == self._most and not self._waiting

    async def run(self, call: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Make the call when it is its turn, and return its result. A call that is cancelled before is left out."""
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
            return  # the loop below, further up the stack, continues
        self._giving = True
        try:
            while self._free and self._waiting:
                self._free -= 1
                self._waiting.popleft().callback(None)
        finally:
            self._giving = False


class KeyedTurns:
    """Makes at most ``most`` calls at once for each key."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._turns: dict[str, Turns] = {}

    @property
    def idle(self) -> bool:
        return not self._turns

    async def run(self, key: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make the call when it is its turn among the calls with this key, and return its result."""
        turns = self._turns.setdefault(key, Turns(self._most))
        try:
            return await turns.run(call)
        finally:
            if turns.idle:
                self._turns.pop(key, None)
