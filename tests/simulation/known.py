"""Faults of the product that are known: a run that shows one is counted, and fails nothing until it is fixed.

A violation is known if its rule is one that the fault breaks, if it looks as it should, and if each cause of the fault
is needed: with the faults of these kinds left out of the plan the rule is not broken. So a new fault that breaks the
same rule in another way is found all the same. Each entry has a plan that shows it. When none of a few runs of this
plan shows it any more, the entry has to be taken off the list.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from attrs import evolve, frozen

from tests.simulation.judge import Violation
from tests.simulation.plan import Plan
from tests.simulation.world import World

#: How many runs of its plan may pass without showing a known fault: delays differ from run to run.
REPLAYS = 20

#: What a run of a plan comes to.
Run = Callable[[Plan], Violation | None]


def any_looks(violation: Violation, plan: Plan) -> bool:
    """Rule and causes say enough."""
    return True


@frozen
class Known:
    """A known fault. ``name`` is for tables, ``why`` says what happens in a sentence or two."""

    name: str
    why: str
    #: Names of the rules that it breaks.
    rules: Collection[str]
    #: Each is needed; each is given as the kinds of faults, by the names of their classes, that do alike. None: it
    #: shows in good weather, too; then nothing can be left out to see what is behind it.
    causes: Sequence[Collection[str]]
    #: Shows it.
    plan: Plan
    #: Whether a violation is of this kind.
    looks_right: Callable[[Violation, Plan], bool] = any_looks

    def possible(self, violation: Violation, plan: Plan) -> bool:
        """Whether it may be what a run of the plan has shown."""
        kinds = {type(fault).__name__ for fault in plan.faults}
        caused = all(kinds.intersection(cause) for cause in self.causes)
        return violation.rule in self.rules and caused and self.looks_right(violation, plan)

    def occurs(self) -> bool:
        """Whether it still does."""
        for seed in range(REPLAYS):
            violation = World(seed, self.plan).run().violation
            if violation is not None and self.possible(violation, self.plan):
                return True
        return False


@frozen
class Explanation:
    """Which known faults a violation and those behind it come from, and what is left then.

    ``left_out`` are the kinds of faults without which ``violation`` shows; it is ``None`` if all is explained.
    """

    known: tuple[Known, ...]
    left_out: frozenset[str]
    violation: Violation | None


def without(plan: Plan, kinds: Collection[str]) -> Plan:
    """The plan, less the faults of these kinds."""
    return evolve(plan, faults=tuple(fault for fault in plan.faults if type(fault).__name__ not in kinds))


def explain(known: Sequence[Known], plan: Plan, violation: Violation | None, run: Run) -> Explanation:
    """See whether known faults are all that a plan shows. One that was found is left out, to see what is behind it."""
    found: list[Known] = []
    left_out: frozenset[str] = frozenset()
    while violation is not None:
        rule, now = violation.rule, without(plan, left_out)
        possible = [each for each in known if each.possible(violation, now)]
        if not possible:
            break
        harmless = next((each for each in possible if not each.causes), None)
        if harmless is not None:
            return Explanation((*found, harmless), left_out, None)
        needless: Collection[str] = ()
        for each in possible:
            needless = next((cause for cause in each.causes if not _holds(run(without(now, cause)), rule)), ())
            if not needless:
                found.append(each)
                left_out |= frozenset(each.causes[0])
                break
        else:  # something else breaks the rule as well, or alone: it shows without what is not needed
            left_out |= frozenset(needless)
        violation = run(without(plan, left_out))
    return Explanation(tuple(found), left_out, violation)


def _holds(violation: Violation | None, rule: str) -> bool:
    return violation is None or violation.rule != rule
