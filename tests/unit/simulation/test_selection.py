"""Parts of a plan by name."""

from __future__ import annotations

import shlex

from twisted.trial.unittest import SynchronousTestCase

from tests.simulation.selection import ALL, Selection, parse
from tests.unit.simulation.plans import BOTH


class SelectionTests(SynchronousTestCase):
    def test_all(self) -> None:
        """Without options the whole plan is kept."""
        self.assertEqual(ALL.of(BOTH), BOTH)

    def test_kept(self) -> None:
        """Only the named parts are kept, in the order of the plan."""
        left = Selection(("f3", "f1", "a2", "w2")).of(BOTH)
        self.assertEqual(left.faults, (BOTH.faults[0], BOTH.faults[2]))
        self.assertEqual(left.acts, (BOTH.acts[1],))
        self.assertEqual([worker.name for worker in left.workers], ["w2"])

    def test_without(self) -> None:
        """A change of a part that is left out is dropped."""
        selection = ALL.changed("f1.down", 2.0).changed("f3.down", 0.5).without(BOTH, ["f1"])
        self.assertEqual(selection.kept, ("f2", "f3", "f4", "a1", "a2", "a3", "w1", "w2"))
        self.assertEqual(selection.changes, (("f3.down", 0.5),))

    def test_changed(self) -> None:
        """A value can be changed in a part, inside a value of a part, and in the plan itself."""
        changes = (("f1.down", 2.5), ("a2.job.seconds", 1.0), ("w1.slots", 1), ("plan.slow", 0.0))
        changed = Selection(changes=changes).of(BOTH)
        self.assertEqual(changed.faults[0].down, 2.5)  # type: ignore[attr-defined]
        self.assertEqual(changed.acts[1].job.seconds, 1.0)  # type: ignore[attr-defined]
        self.assertEqual((changed.workers[0].slots, changed.slow), (1, 0.0))

    def test_unknown(self) -> None:
        """An unknown part or value is refused, with the existing ones."""
        for selection in (Selection(("f9",)), Selection(changes=(("f9.at", 1.0),)), Selection(changes=(("f1.no", 1),))):
            self.assertRaises(ValueError, selection.of, BOTH)

    def test_command_line(self) -> None:
        """The printed options can be parsed again."""
        for selection in (
            ALL,
            Selection(("f1", "a2", "w1")),
            Selection(("w1",), (("w1.labels", {}), ("a1.key", None), ("a1.target.worker", "a b'c"), ("f1.at", 0.1))),
        ):
            words = shlex.split(selection.arguments())
            keep = words[words.index("--keep") + 1] if "--keep" in words else None
            changes = words[words.index("--set") + 1 :] if "--set" in words else []
            self.assertEqual(parse(keep, changes), selection)

    def test_not_understood(self) -> None:
        """A change without a path, without a value, or with an invalid value, is refused."""
        for change in ("f1=2", "f1.down", "f1.down=open('x')", "f1.down="):
            self.assertRaises(ValueError, parse, None, [change])
