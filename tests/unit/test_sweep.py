from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.daemon.sweep import SLICE_SECONDS, Sweep


class Turns(Clock):
    """Logs in ``log`` that a turn of the reactor began."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[object] = []

    def watch(self, turns: int) -> None:
        """Log this many turns."""
        self.log.append("turn")
        if turns > 1:
            self.callLater(0, self.watch, turns - 1)


class SweepTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Turns()
        self.sweep = Sweep(self.clock, self.step)
        self.takes = 0.0

    def step(self, thing: str) -> None:
        self.clock.log.append(thing)
        self.clock.rightNow += self.takes
        if thing == "bad":
            raise LookupError(thing)
        if thing == "stop":
            self.sweep.stop()

    def test_all_at_once(self) -> None:
        """If the steps take no time, there is one slice, at once."""
        self.sweep.begin("abc")
        self.assertEqual((self.clock.log, self.clock.getDelayedCalls()), (["a", "b", "c"], []))

    def test_a_slice_at_a_time(self) -> None:
        """A slice ends with the step in which its time is over, and other due calls come before the next slice."""
        self.takes = SLICE_SECONDS * 0.6
        self.clock.callLater(0, self.clock.watch, 3)
        self.sweep.begin("abcde")
        self.assertEqual(self.clock.log, ["a", "b"])
        self.clock.advance(0)
        self.assertEqual(self.clock.log, ["a", "b", "turn", "c", "d", "turn", "e", "turn"])

    def test_one_at_a_time(self) -> None:
        """While a sweep is in progress no other begins; afterwards one does."""
        self.takes = SLICE_SECONDS
        self.sweep.begin("ab")
        self.sweep.begin("xy")
        self.clock.advance(0)
        self.assertEqual(self.clock.log, ["a", "b"])
        self.sweep.begin("xy")
        self.clock.advance(0)
        self.assertEqual(self.clock.log, ["a", "b", "x", "y"])

    def test_stopped(self) -> None:
        """After a stop, from outside or by a step, nothing more is done until the next sweep."""
        self.takes = SLICE_SECONDS
        self.sweep.begin("abc")
        self.sweep.stop()
        self.sweep.stop()
        self.assertEqual((self.clock.log, self.clock.getDelayedCalls()), (["a"], []))
        self.takes = 0.0
        self.sweep.begin(["stop", "b"])
        self.sweep.begin("c")
        self.assertEqual((self.clock.log, self.clock.getDelayedCalls()), (["a", "stop", "c"], []))

    def test_a_step_that_fails(self) -> None:
        """A step that raises is logged, and the others are taken all the same."""
        self.sweep.begin(["bad", "b"])
        self.assertEqual(self.clock.log, ["bad", "b"])
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)
