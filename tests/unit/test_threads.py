from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from typing import Any
from weakref import ref

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Busy, DeadlineExceeded, Invalid, ShuttingDown
from scheduler.threads import Hop, Limiter, Pool


class Postbox:
    """A reactor that makes its calls at once, or when the test says so."""

    def __init__(self, at_once: bool = True) -> None:
        self.at_once = at_once
        self.calls: list[Callable[[], Any]] = []

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        self.calls.append(lambda: function(*args))
        if self.at_once:
            self.deliver()

    def deliver(self) -> None:
        while self.calls:
            self.calls.pop(0)()


class HopTests(SynchronousTestCase):
    """The calling thread plays both the thread and the reactor."""

    def test_result(self) -> None:
        """The caller gets the function's return value, or the result of its Deferred."""
        hop = Hop(Postbox())
        self.assertEqual(hop.call_thd("it", 1.0, lambda a, b: a + b, 1, 2), 3)
        self.assertEqual(hop.call_thd("it", 1.0, lambda: succeed(4)), 4)

    def test_failure(self) -> None:
        """The caller gets the exception, however the function fails."""

        def raises() -> None:
            raise Invalid("x", "is none")

        hop = Hop(Postbox())
        for function in (raises, lambda: fail(Invalid("x", "is none"))):
            self.assertRaises(Invalid, hop.call_thd, "it", 1.0, function)

    def test_nothing_is_kept(self) -> None:
        """A handled failure is freed, and with it everything that its traceback holds."""

        class Held:
            """An object in a frame of the traceback."""

        def calls() -> None:
            held = Held()
            kept.append(ref(held))
            hop.call_thd("it", 1.0, lambda: fail(Invalid("x", "is none")))

        hop, kept = Hop(Postbox()), []
        gc.disable()
        self.addCleanup(gc.enable)
        with contextlib.suppress(Invalid):
            calls()
        self.assertIsNone(kept[0]())

    def test_own_timeout(self) -> None:
        """A ``TimeoutError`` of the function itself does not count as a missed deadline."""
        self.assertRaises(TimeoutError, Hop(Postbox()).call_thd, "it", 1.0, lambda: fail(TimeoutError("own")))

    def test_deadline(self) -> None:
        """A result that misses the deadline is a ``DeadlineExceeded`` with its name, and is cancelled."""
        cancelled: list[object] = []
        slow: Deferred[None] = Deferred(cancelled.append)
        error = self.assertRaises(DeadlineExceeded, Hop(Postbox()).call_thd, "the query", 0.0, lambda: slow)
        self.assertEqual((error.what, error.seconds, cancelled), ("the query", 0.0, [slow]))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_never_begun(self) -> None:
        """A call that the reactor did not begin before the deadline is never begun."""
        postbox, called = Postbox(at_once=False), []
        self.assertRaises(DeadlineExceeded, Hop(postbox).call_thd, "it", 0.0, lambda: called.append(1))
        postbox.deliver()
        self.assertEqual(called, [])

    def test_late_answer(self) -> None:
        """A late result or failure is dropped."""
        for settle in (lambda late: late.callback(1), lambda late: late.errback(Invalid("x", "is none"))):
            late: Deferred[Any] = Deferred(settle)
            self.assertRaises(DeadlineExceeded, Hop(Postbox()).call_thd, "it", 0.0, lambda late=late: late)
            self.assertIsNone(self.successResultOf(late))

    def test_closed(self) -> None:
        """Once closed, every call is refused without asking the reactor."""
        hop, called = Hop(Postbox()), []
        hop.close()
        self.assertRaises(ShuttingDown, hop.call_thd, "it", 1.0, lambda: called.append(1))
        self.assertEqual(called, [])

    def test_closed_while_waiting(self) -> None:
        hop = Hop(Postbox())

        def close_and_wait() -> Deferred[None]:
            hop.close()
            return Deferred()

        self.assertRaises(ShuttingDown, hop.call_thd, "it", 60.0, close_and_wait)
        self.assertTrue(hop.idle)


class PoolTests(SynchronousTestCase):
    def test_not_running(self) -> None:
        """A pool without threads refuses work."""
        self.failureResultOf(Pool(Postbox(), "p", 1).run(lambda: None), ShuttingDown)

    def test_stop_unstarted(self) -> None:
        """Stopping a pool that never started fires at once."""
        self.successResultOf(Pool(Postbox(), "p", 1).stopService())


class LimiterTests(SynchronousTestCase):
    """A limit of two calls at once and one in the queue."""

    def setUp(self) -> None:
        self.limiter = Limiter("calls to", at_once=2, queue=1, threads=10)
        self.begun: list[Deferred[Any]] = []

    def call(self, key: str = "a") -> Deferred[Any]:
        def begin() -> Deferred[Any]:
            call: Deferred[Any] = Deferred()
            self.begun.append(call)
            return call

        return self.limiter.run(key, begin)

    def test_at_once(self) -> None:
        """There is a limit to calls at once; the next call waits for a place, and one more is refused."""
        first, second, third = self.call(), self.call(), self.call()
        self.assertEqual(len(self.begun), 2)
        error = self.failureResultOf(self.call(), Busy).value
        self.assertEqual((error.what, error.limit), ("calls to of a", 3))
        self.begun[1].callback("two")
        self.assertEqual(self.successResultOf(second), "two")
        self.assertEqual(len(self.begun), 3)
        self.begun[2].callback("three")
        self.begun[0].callback("one")
        self.assertEqual((self.successResultOf(first), self.successResultOf(third)), ("one", "three"))

    def test_keys_are_apart(self) -> None:
        """The calls of one key take no place from another's."""
        for _ in range(3):
            self.call("a")
        self.call("b")
        self.assertEqual(len(self.begun), 3)

    def test_not_all_by_some(self) -> None:
        """While half of the threads are in use no key has a second call in flight, but each may have a first."""
        for key in "aabbc":
            self.call(key)
        self.assertEqual(len(self.begun), 5)
        second, other = self.call("c"), self.call("d")
        self.failureResultOf(self.call("c"), Busy)
        self.assertEqual(len(self.begun), 6)  # including the one of d
        self.begun[5].callback(None)
        self.begun[0].callback(None)
        self.successResultOf(other)
        self.assertNoResult(second)
        self.begun[4].callback(None)  # the first one of c
        self.assertEqual(len(self.begun), 7)
        self.begun[6].callback("second")
        self.assertEqual(self.successResultOf(second), "second")

    def test_failures_free_the_place(self) -> None:
        """A call that fails, or can't even be made, frees its place, and its caller gets the error."""

        def impossible() -> Deferred[None]:
            raise Invalid("x", "is none")

        for _ in range(5):
            self.failureResultOf(self.limiter.run("a", impossible), Invalid)
        answer = self.call()
        self.begun[0].errback(Invalid("x", "is none"))
        self.failureResultOf(answer, Invalid)
        self.assertTrue(self.limiter.idle)

    def test_in_order(self) -> None:
        """Waiting calls are made in the order in which they came."""
        limiter, order = Limiter("calls to", 1, 10, 10), []
        blocking: Deferred[None] = Deferred()
        limiter.run("a", lambda: blocking)
        for number in range(5):
            limiter.run("a", lambda number=number: succeed(order.append(number)))
        blocking.callback(None)
        self.assertEqual(order, [0, 1, 2, 3, 4])

    def test_cancelled_in_the_queue(self) -> None:
        """A call that is cancelled before its turn is never made, and its place in the queue is free."""
        self.call(), self.call()
        gone = self.call()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        served = self.call()
        self.begun[0].callback(None)
        self.begun[2].callback("served")
        self.assertEqual(self.successResultOf(served), "served")
        self.assertEqual(len(self.begun), 3)

    def test_cancelled_under_way(self) -> None:
        """A cancelled call in flight keeps its place until it has ended."""
        gone, _ = self.call(), self.call()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        waiting = self.call()
        self.assertEqual(len(self.begun), 2)
        self.begun[0].errback(Invalid("x", "is none"))
        self.assertIsNone(self.successResultOf(self.begun[0]))
        self.assertEqual(len(self.begun), 3)
        self.assertNoResult(waiting)

    def test_another_call_from_the_answer(self) -> None:
        """A caller may call again in its callback, without taking another's place."""
        answer = self.call()
        answer.addCallback(lambda _: self.call())
        self.begun[0].callback(None)
        self.assertEqual(len(self.begun), 2)
        self.begun[1].callback("again")
        self.assertEqual(self.successResultOf(answer), "again")
        self.assertTrue(self.limiter.idle)
