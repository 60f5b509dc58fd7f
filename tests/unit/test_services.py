from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.daemon.services import Ordered, Periodic, Step

TIMEOUT = 20.0


class PeriodicTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[float] = []

    def call(self) -> None:
        self.calls.append(self.clock.seconds())
        if len(self.calls) == 2:
            raise ValueError("once")

    def test_every_so_often(self) -> None:
        """The first call comes after an interval. A call that fails is logged, and the next is made all the same."""
        periodic = Periodic(self.clock, 5.0, self.call)
        periodic.startService()
        self.clock.pump([5.0] * 3)
        self.assertEqual(self.calls, [5.0, 10.0, 15.0])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        periodic.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_once(self) -> None:
        """With ``at_once`` the first call is made at the start."""
        periodic = Periodic(self.clock, 5.0, self.call, at_once=True)
        periodic.startService()
        self.assertEqual(self.calls, [0.0])
        periodic.stopService()

    def test_never_started(self) -> None:
        """A service that was not started can be stopped."""
        Periodic(self.clock, 5.0, self.call).stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OrderedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.last_resorts: list[float] = []
        self.failing: list[bool] = []
        self.parts = Ordered(self.reactor, TIMEOUT, self.last_resorts.append, lambda: self.failing.append(True))
        self.events: list[str] = []

    def add(self, name: str, start: Any = None, stop: Any = None) -> None:
        """Add a child whose start and stop return these."""

        def record(what: str, answer: Any) -> Any:
            self.events.append(f"{what} {name}")
            if isinstance(answer, Exception):
                raise answer
            return answer

        step = Step(lambda: record("start", start), lambda: record("stop", stop))
        step.setName(name)
        step.setServiceParent(self.parts)

    def test_order(self) -> None:
        """Each child starts when the one before is ready, and stops when all after it have stopped."""
        ready: Deferred[None] = Deferred()
        stopped: Deferred[None] = Deferred()
        self.add("a", start=ready)
        self.add("b", stop=stopped)
        self.add("c")
        self.parts.startService()
        self.assertEqual(self.events, ["start a"])
        ready.callback(None)
        self.assertEqual(self.events, ["start a", "start b", "start c"])
        self.events.clear()
        over = self.parts.stopService()
        self.assertEqual(self.events, ["stop c", "stop b"])
        self.assertNoResult(over)
        stopped.callback(None)
        self.assertEqual(self.events, ["stop c", "stop b", "stop a"])
        self.successResultOf(over)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_start_that_fails(self) -> None:
        """A start that fails raises in the caller; one that fails later ends the process."""
        self.add("a", start=ValueError("no"))
        self.assertRaises(ValueError, self.parts.startService)
        self.parts = Ordered(self.reactor, TIMEOUT, self.last_resorts.append, lambda: self.failing.append(True))
        later: Deferred[None] = Deferred()
        self.add("b", start=later)
        self.add("c")
        self.parts.startService()
        later.errback(ValueError("no"))
        self.assertTrue(self.reactor.hasStopped)
        self.assertEqual(self.failing, [True])
        self.assertNotIn("start c", self.events)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_stop_that_fails(self) -> None:
        """A stop that fails does not affect the others."""
        self.add("a")
        self.add("b", stop=ValueError("no"))
        self.parts.startService()
        self.successResultOf(self.parts.stopService())
        self.assertEqual(self.events[-2:], ["stop b", "stop a"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_stop_that_hangs(self) -> None:
        """A stop that hangs is left behind in time for the others, and its later result is ignored."""
        hangs: Deferred[None] = Deferred()
        self.add("a")
        self.add("b", stop=hangs)
        self.add("c")
        self.parts.startService()
        over = self.parts.stopService()
        self.reactor.advance(TIMEOUT * 0.7)
        self.assertEqual(self.events[-2:], ["stop c", "stop b"])
        self.reactor.advance(TIMEOUT * 0.1)
        self.assertEqual(self.events[-1], "stop a")
        self.successResultOf(over)
        hangs.errback(ValueError("at last"))

    def test_all_hang(self) -> None:
        """However many hang, each is told to stop, and the stop is over in time."""
        for name in "abcdef":
            self.add(name, stop=Deferred())
        self.parts.startService()
        over = self.parts.stopService()
        for _ in range(98):
            self.assertNoResult(over)
            self.reactor.advance(TIMEOUT / 99)
        self.reactor.advance(TIMEOUT / 50)
        self.successResultOf(over)
        self.assertEqual(self.events[6:], [f"stop {name}" for name in "fedcba"])

    def test_a_start_that_hangs(self) -> None:
        """A child that is still starting is told to stop, and no other is started after that."""
        ready: Deferred[None] = Deferred()
        self.add("a", start=ready)
        self.add("b")
        self.parts.startService()
        self.successResultOf(self.parts.stopService())
        ready.callback(None)
        self.assertEqual(self.events, ["start a", "stop a"])

    def test_the_last_resort(self) -> None:
        """When a stop begins, the last resort is told the time limit."""
        self.parts.startService()
        self.assertEqual(self.last_resorts, [])
        self.parts.stopService()
        self.assertEqual(self.last_resorts, [TIMEOUT])
