"""The plan of a failing run is made smaller, with toys in place of runs."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.simulation.plan import Plan, PlannedWorker
from tests.simulation.selection import Selection
from tests.simulation.shrink import MARGIN, shrink


@frozen
class Toy:
    """A fault or an act that does nothing."""

    at: float
    kind: str
    worker: str
    seconds: float
    key: str | None = None

    def strike(self, world: Any) -> None:
        """Not called."""

    def begin(self, world: Any) -> None:
        """Not called."""


#: A plan in which one of many faults, two acts and one worker matter.
PLAN = Plan(
    length=90.0,
    workers=(PlannedWorker("w1"), PlannedWorker("w2", labels={"kind": "a"}), PlannedWorker("w3")),
    faults=tuple(Toy(5.125 * number, f"fault {number}", f"w{number % 3 + 1}", 7.3) for number in range(8)),
    acts=tuple(Toy(2.0 * number, f"act {number}", "w2", 7.3, key=f"k{number}") for number in range(30)),
)


def kinds(plan: Plan) -> set[str]:
    return {toy.kind for toy in (*plan.faults, *plan.acts)}  # type: ignore[attr-defined]


def needs(*wanted: str) -> Any:
    """Fails while all of these are in the plan."""
    return lambda plan: kinds(plan) >= set(wanted)


class ShrinkTests(SynchronousTestCase):
    """The shrunk plan holds only what the failure needs."""

    def test_parts(self) -> None:
        """Faults, acts and workers that the failure does not need are left out, unless a part that stays names the
        worker.
        """
        left = shrink(PLAN, needs("fault 2", "act 4", "act 20")).of(PLAN)
        self.assertEqual(kinds(left), {"fault 2", "act 4", "act 20"})
        self.assertEqual([worker.name for worker in left.workers], ["w2", "w3"])

    def test_values(self) -> None:
        """Values become simple, as long as the plan fails: options are left out, and times are short and round."""

        def fails(plan: Plan) -> bool:
            return any(fault.kind == "fault 3" and fault.seconds > 3.1 for fault in plan.faults)  # type: ignore[attr-defined]

        left = shrink(PLAN, fails).of(PLAN)
        (fault,) = left.faults
        self.assertEqual(fault.seconds, 4.0)  # type: ignore[attr-defined]
        self.assertEqual(fault.at, 0.0)
        self.assertEqual((left.acts, left.slow), ((), 0.0))

    def test_options(self) -> None:
        """An optional value of a client is left out."""
        (act,) = shrink(PLAN, needs("act 2")).of(PLAN).acts
        self.assertIsNone(act.key)  # type: ignore[attr-defined]

    def test_everything(self) -> None:
        """If the failure needs no part of the plan, one worker is left, and the time until the faults are over."""
        left = shrink(PLAN, lambda plan: True).of(PLAN)
        self.assertEqual((left.faults, left.acts, len(left.workers)), ((), (), 1))

    def test_ends_after_what_is_planned(self) -> None:
        """Every tried plan lasts until all its parts have begun."""

        def fails(plan: Plan) -> bool:
            for toy in (*plan.faults, *plan.acts):
                self.assertGreaterEqual(plan.length, toy.at + MARGIN)
            return kinds(plan) >= {"fault 7"} and plan.faults[-1].at > 30.1

        self.assertEqual(shrink(PLAN, fails).of(PLAN).faults[-1].at, 36.0)

    def test_bounded(self) -> None:
        """The number of runs is limited, and the plan that is left still fails."""
        runs = []

        def fails(plan: Plan) -> bool:
            runs.append(plan)
            return kinds(plan) >= {"act 3", "act 9", "act 27"}

        selection = shrink(PLAN, fails, runs=17)
        self.assertEqual(len(runs), 17)
        self.assertTrue(fails(selection.of(PLAN)))

    def test_not_again(self) -> None:
        """No plan is tried twice."""
        tried = []

        def fails(plan: Plan) -> bool:
            tried.append(str(plan))
            return kinds(plan) >= {"fault 3", "act 4"}

        shrink(PLAN, fails)
        self.assertEqual(len(tried), len(set(tried)))

    def test_from_a_selection(self) -> None:
        """Shrinking continues from a given selection."""
        before = Selection(("f1", "f4", "a5", "w1", "w2"), (("f4.seconds", 2.0),))
        after = shrink(PLAN, needs("fault 3"), before)
        self.assertEqual(after.of(PLAN).faults[0].kind, "fault 3")  # type: ignore[attr-defined]
        self.assertLessEqual(set(after.kept or ()), set(before.kept or ()))
