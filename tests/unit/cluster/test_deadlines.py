from __future__ import annotations

import random
from functools import partial

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.jobs.deadlines import OUTDATED_MAX, Deadlines


class DeadlineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.called: list[tuple[str, float]] = []

    def put(self, job_id: str, when: float) -> None:
        self.deadlines.set(job_id, when, partial(self.call, job_id))

    def call(self, job_id: str) -> None:
        self.called.append((job_id, self.clock.seconds()))

    def timers(self) -> int:
        return len(self.clock.getDelayedCalls())

    def test_in_order(self) -> None:
        """Each call is made at its time, with one timer for all; nothing is left then."""
        for job_id, when in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
            self.put(job_id, when)
        self.assertEqual((self.timers(), self.deadlines.idle), (1, False))
        self.clock.pump([0.5] * 6)
        self.assertEqual(self.called, [("a", 1.0), ("b", 2.0), ("c", 3.0)])
        self.assertEqual((self.timers(), self.deadlines.idle), (0, True))

    def test_never_at_once(self) -> None:
        """A deadline that is due already is called in the next turn."""
        self.clock.advance(5.0)
        self.put("a", 1.0)
        self.assertEqual(self.called, [])
        self.clock.advance(0)
        self.assertEqual(self.called, [("a", 5.0)])

    def test_in_place(self) -> None:
        """A job has one deadline: the last one that was set, earlier or later."""
        self.put("a", 1.0)
        self.put("a", 2.0)
        self.put("b", 3.0)
        self.put("b", 1.5)
        self.clock.pump([0.5] * 8)
        self.assertEqual(self.called, [("b", 1.5), ("a", 2.0)])

    def test_clear(self) -> None:
        """Nothing is due for a job whose deadline is cleared, also by what is due at the same moment."""
        self.put("a", 1.0)
        self.deadlines.clear("a")
        self.deadlines.clear("a")
        self.assertEqual((self.timers(), self.deadlines.idle), (0, True))
        self.deadlines.set("b", 1.0, lambda: self.deadlines.clear("c"))
        self.put("c", 1.0)
        self.clock.advance(1.0)
        self.assertEqual((self.called, self.deadlines.idle), ([], True))

    def test_a_call_fails(self) -> None:
        """A call that raises is logged, and the others are made."""

        def fail() -> None:
            raise ZeroDivisionError

        self.deadlines.set("a", 1.0, fail)
        self.put("b", 1.0)
        self.clock.advance(1.0)
        self.assertEqual(self.called, [("b", 1.0)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_set_by_a_call(self) -> None:
        """A call may set the next deadline of its job."""
        self.deadlines.set("a", 1.0, lambda: self.put("a", 2.0))
        self.clock.pump([1.0, 1.0])
        self.assertEqual(self.called, [("a", 2.0)])

    def test_property(self) -> None:
        """Each job is called once, at the last of its times, after any order of settings and clearings."""
        chance = random.Random(7)
        expected: dict[str, float] = {}
        for _ in range(20 * OUTDATED_MAX):
            job_id = str(chance.randrange(50))
            if chance.random() < 0.1:
                self.deadlines.clear(job_id)
                expected.pop(job_id, None)
            else:
                expected[job_id] = float(chance.randrange(1, 100))
                self.put(job_id, expected[job_id])
        self.assertEqual(self.timers(), 1)
        self.clock.pump([1.0] * 100)
        self.assertEqual(dict(self.called), expected)
        self.assertEqual(len(self.called), len(expected))
        self.assertTrue(self.deadlines.idle)
