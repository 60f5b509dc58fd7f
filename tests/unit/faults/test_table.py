"""The figures of the fault harness for a document."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.faults import table
from tests.faults.run import Figures


class TableTests(SynchronousTestCase):
    def test_sums(self) -> None:
        """Counts are added up, times of all rounds are one sample, and notes name their experiment."""
        one = Figures(rounds=2, jobs=10, acknowledged=9, converged=[1.0, 3.0], notes=["well"])
        other = Figures(rounds=1, jobs=5, acknowledged=5, lost=1, converged=[2.0], measured={"an end": [0.5]})
        lines = table.markdown([(1, "one", one), (2, "other", other)]).splitlines()
        self.assertIn("| 1 | one | 2 | 10 | 9 | 0 | 0 |  |  | 2 / 3 |", lines)
        self.assertIn("|  | all | 3 | 15 | 14 | 1 | 0 |  |  | 2 / 3 |", lines)
        self.assertEqual(lines[-2:], ["- one: well", "- other: an end 0.5 / 0.5"])

    def test_record(self) -> None:
        """The figures replace those of the last run, and nothing else. A document without a place is refused."""
        file = Path(self.mktemp())
        file.write_text("before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n")
        table.record(file, "new")
        self.assertEqual(file.read_text(), "before\n<!-- figures -->\nnew\n<!-- end of figures -->\nafter\n")
        file.write_text("nothing")
        self.assertRaises(ValueError, table.record, file, "new")
