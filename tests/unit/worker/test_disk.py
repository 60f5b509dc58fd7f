"""The gauge of the disk, for heartbeats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.model import Disk
from scheduler.worker.disk import CHECK_INTERVAL_SECONDS, VALID_SECONDS, DiskGauge

FULL, EMPTY = Disk(1000, 0), Disk(1000, 1000)


class HeldPool:
    """A pool whose calls are under way until a test decides on their results."""

    def __init__(self) -> None:
        self.looks: list[Deferred[Any]] = []

    def run(self, function_thd: Callable[[str], Disk], folder: str) -> Deferred[Any]:
        self.looks.append(Deferred())
        return self.looks[-1]


class DiskGaugeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.pool = HeldPool()
        self.gauge = DiskGauge(self.clock, self.pool, "/")  # type: ignore[arg-type]

    def test_read(self) -> None:
        """The gauge answers with its last look, and looks again if that was a while ago."""
        self.assertIsNone(self.gauge.read())
        self.pool.looks[0].callback(FULL)
        self.clock.advance(CHECK_INTERVAL_SECONDS - 1)
        self.assertEqual([self.gauge.read() for _ in range(3)], [FULL] * 3)
        self.assertEqual(len(self.pool.looks), 1)
        self.clock.advance(1)
        self.assertEqual(self.gauge.read(), FULL)
        self.pool.looks[1].callback(EMPTY)
        self.assertEqual((self.gauge.read(), len(self.pool.looks)), (EMPTY, 2))

    def test_hanging(self) -> None:
        """A disk that does not answer holds one thread, and what was seen of it is soon known no more."""
        self.gauge.read()
        self.pool.looks[0].callback(FULL)
        self.clock.advance(CHECK_INTERVAL_SECONDS)
        self.gauge.read()
        self.clock.advance(VALID_SECONDS - CHECK_INTERVAL_SECONDS)
        self.assertEqual(self.gauge.read(), FULL)
        self.clock.advance(1)
        self.assertEqual((self.gauge.read(), len(self.pool.looks)), (None, 2))
        self.pool.looks[1].callback(EMPTY)
        self.assertEqual(self.gauge.read(), EMPTY)

    def test_failing(self) -> None:
        """A disk that can't be looked at is not known, and is looked at again."""
        self.gauge.read()
        self.pool.looks[0].callback(FULL)
        self.clock.advance(CHECK_INTERVAL_SECONDS)
        self.gauge.read()
        self.pool.looks[1].errback(OSError(5, "Input/output error"))
        self.assertIsNone(self.gauge.read())
        self.clock.advance(CHECK_INTERVAL_SECONDS)
        self.gauge.read()
        self.pool.looks[2].callback(EMPTY)
        self.assertEqual(self.gauge.read(), EMPTY)
