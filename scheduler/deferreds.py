"""Many waiters for one result. A waiter that gives up does not disturb the others."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.errors import SchedulerError

_log = Logger()

T = TypeVar("T")


def shielded(inner: Deferred[T], unheard: Callable[[T], object] = lambda _: None) -> Deferred[T]:
    """Make a Deferred with the result of ``inner`` whose cancellation does not cancel ``inner``.

    A result that comes later goes to ``unheard``. An error that comes later is logged, unless it is a
    ``SchedulerError``.
    """
    outer: Deferred[T] = Deferred()

    def pass_on(result: Any) -> None:
        if not outer.called:
            outer.callback(result)  # a Failure starts the errbacks
        elif not isinstance(result, Failure):
            unheard(result)
        elif not result.check(SchedulerError):
            _log.failure("an operation failed after its caller had given up", result)

    inner.addBoth(pass_on)
    return outer


def all_of(deferreds: Iterable[Deferred[None]]) -> Deferred[None]:
    """Fires when all have fired, or with the first failure."""
    done = gatherResults(deferreds, consumeErrors=True)
    return done.addCallbacks(lambda _: None, lambda reason: reason.value.subFailure)


class Waiters(Generic[T]):
    """Waiters for one result. Each has its own Deferred, and can cancel it."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[T]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self) -> Deferred[T]:
        """Make a Deferred that fires with the result."""
        waiting: Deferred[T] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def fail(self, waiting: Deferred[T], failure: Failure) -> None:
        """Fail one waiter, if it still waits."""
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            waiting.errback(failure)

    def settle(self, result: T | Failure) -> None:
        """Give the result to all present waiters, in the order of their arrival. A Failure starts their errbacks."""
        while self._waiting:
            self._waiting.pop(0).callback(result)


class Shared:
    """Calls with keys. All who ask with the same key while a call is under way share its result."""

    def __init__(self) -> None:
        self._waiting: dict[str, Waiters[Any]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._waiting

    @property
    def idle(self) -> bool:
        return not self._waiting

    def join(self, key: str, call: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Wait for the call under way for ``key``, or make a new one; each caller has a Deferred of its own."""
        if key in self._waiting:
            return self._waiting[key].wait()
        waiters: Waiters[T] = Waiters()
        self._waiting[key] = waiters
        answer = waiters.wait()
        call().addBoth(lambda result: self._waiting.pop(key).settle(result))
        return answer


class Rounds:
    """Rounds of work: at most one at a time for each key."""

    _log = Logger()

    def __init__(self, what: str) -> None:
        """``what`` names a round in the log if it fails."""
        self._what = what
        self._going: set[str] = set()

    @property
    def idle(self) -> bool:
        return not self._going

    def begin(self, key: str, round_: Callable[[], Coroutine[Deferred[Any], Any, None]]) -> None:
        """Begin a round, unless one is under way for ``key``."""
        if key in self._going:
            return
        self._going.add(key)

        def over(result: Any) -> None:
            self._going.discard(key)
            if isinstance(result, Failure):
                self._log.failure("{what} of {key} failed", result, what=self._what, key=key)

        Deferred.fromCoroutine(round_()).addBoth(over)
