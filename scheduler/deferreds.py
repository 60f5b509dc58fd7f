"""Many waiters for one result: a waiter that leaves does not disturb the others."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.errors import SchedulerError

_log = Logger()

T = TypeVar("T")


def shielded(inner: Deferred[T]) -> Deferred[T]:
    """A Deferred with the result of ``inner`` whose cancellation leaves ``inner`` to run on.

    An error that comes later is logged, unless it is a ``SchedulerError``.
    """
    outer: Deferred[T] = Deferred()

    def pass_on(result: Any) -> None:
        if not outer.called:
            outer.callback(result)  # a Failure starts the errbacks
        elif isinstance(result, Failure) and not result.check(SchedulerError):
            _log.failure("an operation failed after its caller had given up", result)

    inner.addBoth(pass_on)
    return outer


class Shared:
    """One call for all that ask the same at the same moment."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Deferred[Any]]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._waiting

    @property
    def idle(self) -> bool:
        """Whether no call is under way."""
        return not self._waiting

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


class Rounds:
    """Repeated work for each key, one round at a time."""

    _log = Logger()

    def __init__(self, what: str) -> None:
        """``what`` names a round in the log if it fails."""
        self._what = what
        self._going: set[str] = set()

    @property
    def idle(self) -> bool:
        """Whether no round is in progress."""
        return not self._going

    def begin(self, key: str, round_: Callable[[], Coroutine[Deferred[Any], Any, None]]) -> None:
        """Begin a round, unless one is in progress for ``key``."""
        if key in self._going:
            return
        self._going.add(key)

        def over(result: Any) -> None:
            self._going.discard(key)
            if isinstance(result, Failure):
                self._log.failure("{what} of {key} failed", result, what=self._what, key=key)

        Deferred.fromCoroutine(round_()).addBoth(over)
