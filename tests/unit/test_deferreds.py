from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from scheduler.deferreds import Shared, shielded
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
        """A caller that gives up gets CancelledError, and the operation continues to its end."""
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


class SharedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.shared = Shared()
        self.calls: list[Deferred[int]] = []

    def call(self) -> Deferred[int]:
        self.calls.append(Deferred())
        return self.calls[-1]

    def test_one_call_for_all(self) -> None:
        """Simultaneous callers share one call; a later caller makes a new one."""
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
        """A caller that gives up affects neither the others nor the call."""
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
