"""A pool without threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred


class InlinePool:
    """Does at once what it is given; while ``holding`` it waits for ``release``."""

    def __init__(self) -> None:
        self.holding = False
        self.held: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def run(self, function_thd: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """The answer, or what it raises."""
        if not self.holding:
            return maybeDeferred(function_thd, *args)
        done: Deferred[Any] = Deferred()
        self.held.append((lambda: function_thd(*args), done))
        return done

    def release_one(self) -> None:
        """Do what has waited for the longest time, and hold on."""
        function, done = self.held.pop(0)
        maybeDeferred(function).chainDeferred(done)

    def release(self) -> None:
        """Do all that waits, and hold no more."""
        self.holding = False
        held, self.held = self.held, []
        for function, done in held:
            maybeDeferred(function).chainDeferred(done)
