from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from scheduler.deferreds import Shared, Waiters, shielded
from scheduler.errors import StoreFailed


class ShieldedTests(SynchronousTestCase):
    def test_result(self) -> None:
        """The result is passed on, be it a value or a failure."""
        inner: Deferred[int] = Deferred()
        outer = shielded(inner)
        inner.callback(3)
        self.assertEqual(self.successResultOf(outer), 3)
        inner = Deferred()
        outer = shielded(inner)
        inner.errback(ValueError())
        self.failureResultOf(outer, ValueError)

    def test_cancel(self) -> None:
        """A caller that cancels gets the error, and the operation goes on to its end."""
        inner: Deferred[int] = Deferred()
        outer = shielded(inner)
        outer.cancel()
        self.failureResultOf(outer, CancelledError)
        self.assertFalse(inner.called)
        inner.callback(3)

    def test_error_nobody_hears(self) -> None:
        """A later error is logged if it is a bug."""
        for error, logged in ((ValueError(), 1), (StoreFailed("disk full"), 0)):
            inner: Deferred[int] = Deferred()
            outer = shielded(inner)
            outer.cancel()
            self.failureResultOf(outer, CancelledError)
            inner.errback(error)
            self.assertEqual(len(self.flushLoggedErrors(type(error))), logged)


class WaitersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.waiters: Waiters[int] = Waiters()

    def test_result(self) -> None:
        """All that wait get the result, in the order in which they came, and those that wait later the next one."""
        order: list[str] = []
        for name in "ab":
            self.waiters.wait().addCallback(lambda value, name=name: order.append(f"{name}{value}"))
        self.waiters.settle(7)
        later = self.waiters.wait()
        self.assertEqual(order, ["a7", "b7"])
        self.assertNoResult(later)
        self.waiters.settle(Failure(ValueError()))
        self.failureResultOf(later, ValueError)

    def test_one_leaves(self) -> None:
        """A waiter that cancels disturbs no other, even while all are being called."""
        first, second, third = (self.waiters.wait() for _ in range(3))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second.addCallback(lambda _: third.cancel())
        self.waiters.settle(7)
        self.failureResultOf(third, CancelledError)
        self.assertIsNone(self.successResultOf(second))

    def test_one_fails(self) -> None:
        """A waiter can fail alone, unless it has its result already."""
        first, second = self.waiters.wait(), self.waiters.wait()
        self.waiters.fail(first, Failure(ValueError()))
        self.failureResultOf(first, ValueError)
        self.waiters.settle(7)
        self.waiters.fail(second, Failure(ValueError()))
        self.assertEqual(self.successResultOf(second), 7)


class SharedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.shared = Shared()
        self.calls: list[Deferred[int]] = []

    def call(self) -> Deferred[int]:
        self.calls.append(Deferred())
        return self.calls[-1]

    def test_one_call_for_all(self) -> None:
        """Questions at the same moment share one call; a later one makes a new call."""
        answers = [self.shared.join("a", self.call) for _ in range(3)]
        self.assertEqual(len(self.calls), 1)
        self.calls[0].callback(7)
        self.assertEqual([self.successResultOf(answer) for answer in answers], [7, 7, 7])
        self.shared.join("a", self.call)
        self.assertEqual(len(self.calls), 2)

    def test_failure_for_all(self) -> None:
        """A failure reaches every caller."""
        answers = [self.shared.join("a", self.call) for _ in range(2)]
        self.calls[0].errback(ValueError())
        for answer in answers:
            self.failureResultOf(answer, ValueError)

    def test_one_leaves(self) -> None:
        """A caller that cancels disturbs no other one, nor the call."""
        first, second = self.shared.join("a", self.call), self.shared.join("a", self.call)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.calls[0].callback(7)
        self.assertEqual(self.successResultOf(second), 7)

    def test_keys(self) -> None:
        """Different keys have separate calls."""
        self.shared.join("a", self.call)
        self.shared.join("b", self.call)
        self.assertEqual(len(self.calls), 2)
        self.assertIn("a", self.shared)
