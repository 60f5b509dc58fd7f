"""A frozen process that is thawed."""

from __future__ import annotations

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.simulation.loop import Loop
from tests.simulation.process import Process


class FrozenTests(SynchronousTestCase):
    """A process frozen from the beginning until 2 s, with a timer for 1 s."""

    def setUp(self) -> None:
        self.loop = Loop()
        self.process = Process(self.loop, "p", self.crashed)
        self.calls: list[float] = []
        self.timer = self.process.clock.callLater(1.0, lambda: self.calls.append(self.loop.now))
        self.process.freeze()

    def crashed(self, name: str, reason: Failure) -> None:
        reason.raiseException()

    def thaw(self) -> list[float]:
        """The times of the timer's calls, within 5 s."""
        self.loop.run(1.5)
        self.assertTrue(self.timer.active())
        self.loop.run(2.0)
        self.process.thaw()
        self.loop.run(5.0)
        self.assertFalse(self.timer.active())
        self.assertEqual(self.process.clock.getDelayedCalls(), [])
        return self.calls

    def test_late(self) -> None:
        """The timer calls once, when the process is thawed."""
        self.assertEqual(self.thaw(), [2.0])

    def test_cancelled(self) -> None:
        """An earlier call of the process can cancel the timer, though it is due."""
        self.process.run(self.timer.cancel)
        self.assertEqual(self.thaw(), [])

    def test_put_off(self) -> None:
        """An earlier call can also postpone the timer, which then calls once."""
        self.process.run(self.timer.reset, 1.0)
        self.assertEqual(self.thaw(), [3.0])

    def test_killed(self) -> None:
        """A process that ends meanwhile does nothing more."""
        self.process.end()
        self.loop.run(5.0)
        self.assertEqual(self.calls, [])


class StopTests(SynchronousTestCase):
    def test_twice(self) -> None:
        """A process that is told to stop twice begins once, and both callers learn of its end."""
        process = Process(Loop(), "p", lambda name, reason: reason.raiseException())
        begun: list[None] = []
        stopped = [process.stop(lambda: begun.append(None)) for _ in range(2)]
        self.assertEqual(begun, [None])
        for each in stopped:
            self.assertNoResult(each)
        process.end()
        for each in stopped:
            self.successResultOf(each)
