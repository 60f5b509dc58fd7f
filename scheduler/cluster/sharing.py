"""Many that wait for one thing, none of whom can spoil it for the others by leaving."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


def shielded(inner: Deferred[T]) -> Deferred[T]:
    """A Deferred with the result of ``inner`` whose cancellation leaves ``inner`` to run on."""
    outer: Deferred[T] = Deferred()

    def pass_on(result: Any) -> None:
        if not outer.called:
            outer.callback(result)  # a Failure starts the errbacks

    inner.addBoth(pass_on)
    return outer


class Shared:
    """One call for all that ask the same at the same moment."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Deferred[Any]]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._waiting

    def join(self, key: str, call: Callable[[], Deferred[T]]) -> Deferred[T]:
        """The result of the call under way for ``key``, or of a new one; each caller has a Deferred of its own."""
        answer: Deferred[T] = Deferred()
        if key in self._waiting:
            self._waiting[key].append(answer)
            return answer
        self._waiting[key] = [answer]
        call().addBoth(self._deliver, key)
        return answer

    def _deliver(self, result: Any, key: str) -> None:
        for answer in self._waiting.pop(key):
            if not answer.called:
                answer.callback(result)
