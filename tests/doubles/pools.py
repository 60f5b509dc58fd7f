"""A pool without threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred


class InlinePool:
    """Runs its calls at once; while ``holding``, they wait for ``release``."""

    def __init__(self) -> None:
        self.holding = False
        self.held: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def run(self, function_thd: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """The result of the call, or its exception."""
        if not self.holding:
            return maybeDeferred(function_thd, *args)
        done: Deferred[Any] = Deferred()
        self.held.append((lambda: function_thd(*args), done))
        return done

    def release(self) -> None:
        """Run all waiting calls, and hold no more."""
        self.holding = False
        held, self.held = self.held, []
        for function, done in held:
            maybeDeferred(function).chainDeferred(done)
