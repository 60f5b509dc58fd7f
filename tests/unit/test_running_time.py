from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.daemon.running_time import RunningTime


class RunningTimeTests(SynchronousTestCase):
    """The periodic call is due every 5 s."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.time = RunningTime(self.clock, 5.0)

    def run_for(self, *intervals: float) -> tuple[float, int]:
        """The time and the number of pauses after these intervals, with a tick at the end of each."""
        for interval in intervals:
            self.clock.advance(interval)
            self.time.tick()
        return self.time.read(), self.time.pauses

    def test_in_time(self) -> None:
        """Ticks that are late by less than an interval are no pause."""
        self.time.begin()
        self.assertEqual(self.run_for(0.0, 5.0, 10.0, 5.0), (20.0, 0))

    def test_late(self) -> None:
        """The time by which a tick is later than that does not count, also if it is read before the tick."""
        self.time.begin()
        self.assertEqual(self.run_for(0.0, 5.0, 65.0), (10.0, 1))
        self.clock.advance(105.0)
        self.assertEqual((self.time.read(), self.time.pauses), (15.0, 2))
        self.assertEqual(self.run_for(0.0, 5.0), (20.0, 2))

    def test_while_none_is_due(self) -> None:
        """All time counts before the first tick is due, and after the last."""
        self.clock.advance(100.0)
        self.time.begin()
        self.assertEqual(self.run_for(0.0, 5.0), (105.0, 0))
        self.time.end()
        self.clock.advance(100.0)
        self.assertEqual((self.time.read(), self.time.pauses), (205.0, 0))
