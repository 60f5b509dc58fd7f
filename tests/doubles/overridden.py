"""A scheduler whose methods a test can have raise or wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from scheduler.interfaces import IScheduler


@implementer(IScheduler)
class Overridden:
    """Passes every call on to ``scheduler``, unless a test says otherwise.

    ``fail[method]`` is raised by that method; ``held[method]`` is a Deferred that its call is made after.
    ``calls`` are the names and arguments of all calls.
    """

    def __init__(self, scheduler: IScheduler) -> None:
        self.scheduler = scheduler
        self.calls: list[tuple[Any, ...]] = []
        self.fail: dict[str, Exception] = {}
        self.held: dict[str, Deferred[Any]] = {}

    def asked(self, method: str) -> list[tuple[Any, ...]]:
        """The arguments of each call of that method."""
        return [call[1:] for call in self.calls if call[0] == method]


def _overridden(name: str) -> Callable[..., Any]:
    def method(self: Overridden, *args: Any, **more: Any) -> Any:
        self.calls.append((name, *args, *more.values()))
        if name in self.held:
            return self.held[name].addCallback(lambda _: getattr(self.scheduler, name)(*args, **more))
        if name in self.fail:
            raise self.fail[name]
        return getattr(self.scheduler, name)(*args, **more)

    return method


for _name in IScheduler.names():
    setattr(Overridden, _name, _overridden(_name))
