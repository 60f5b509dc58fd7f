"""How violations about core workers are recognised."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.simulation.judge import Violation
from tests.simulation.known_core import KNOWN


class LooksTests(SynchronousTestCase):
    def looks(self, rule: str, what: str) -> bool:
        """Whether an entry for that rule knows it by its looks."""
        (known,) = (each for each in KNOWN if rule in each.rules)
        return known.looks_right(Violation(rule, what, 1.0), known.plan)

    def test_entries(self) -> None:
        """Known are several entries that are online, and one that has another id; not one that can't be reached."""
        for entries, looks in (
            ("['a1 online', 'b2 online']", True),
            ("['b2 online']", True),
            ("['a1 unreachable']", False),
            ("['b2 unreachable']", False),
            ("['a1 online', 'b2 unreachable']", False),
            ("not known", False),
        ):
            what = f"core worker c1 (a1) is {entries}"
            self.assertEqual(self.looks("core workers stay", what), looks, what)

    def test_lost(self) -> None:
        """Known is a loss where the worker registers again, and only to that."""
        for why, looks in (
            ("(forgotten), and its worker registers again", True),
            ("(forgotten)", False),
            ("(no record), and its worker registers again", False),
        ):
            what = f"job j1 is lost: nothing destroyed it {why}"
            self.assertEqual(self.looks("core jobs are kept", what), looks, what)
