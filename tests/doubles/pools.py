"""A pool without threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred


class InlinePool:
    """Does at once what it is given; while ``holding`` it waits for ``release``."""

    def __init__(self) -> None:
        self.holding = False
        self._held: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def run(self, function_thd: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """The answer, or what it raises."""
        if not self.holding:
            return maybeDeferred(function_thd, *args)
        done: Deferred[Any] = Deferred()
        self._held.append((lambda: function_thd(*args), done))
        return done

    def release(self) -> None:
        """Do all that waits, and hold no more."""
        self.holding = False
        held, self._held = self._held, []
        for function, done in held:
            maybeDeferred(function).chainDeferred(done)
