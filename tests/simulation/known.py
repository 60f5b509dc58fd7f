"""Known faults of the product. A run that shows one is counted, and does not fail until the fault is fixed.

A violation is known under three conditions: the fault breaks its rule, its looks are right, and each cause of the fault
is needed. The last means that without the faults of these kinds the rule is not broken. So a new fault that breaks the
same rule in another way is still found. Each entry has a plan that shows it. When none of a few runs of this plan shows
it any more, the entry must be removed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from attrs import evolve, frozen

from tests.simulation.judge import Violation
from tests.simulation.plan import Plan
from tests.simulation.world import World

#: The number of runs of its plan that may not show a known fault: delays differ from run to run.
REPLAYS = 20

#: Runs a plan, and returns its violation.
Run = Callable[[Plan], Violation | None]


def any_looks(violation: Violation, plan: Plan) -> bool:
    """Accept every violation, since its rule and causes are sufficient."""
    return True


@frozen
class Known:
    """A known fault. ``name`` is for tables, ``why`` explains it in a sentence or two."""

    name: str
    why: str
    #: The names of the rules that it breaks.
    rules: Collection[str]
    #: Causes, all of which are needed. Each is a group of equivalent kinds of faults, by the names of their classes.
    #: None: the fault shows in good weather, too; then nothing can be left out to see further violations.
    causes: Sequence[Collection[str]]
    #: A plan that shows it.
    plan: Plan
    #: Whether a violation looks like this fault.
    looks_right: Callable[[Violation, Plan], bool] = any_looks

    def possible(self, violation: Violation, plan: Plan) -> bool:
        """Whether a run of the plan may have shown this fault."""
        kinds = {type(fault).__name__ for fault in plan.faults}
        caused = all(kinds.intersection(cause) for cause in self.causes)
        return violation.rule in self.rules and caused and self.looks_right(violation, plan)

    def occurs(self) -> bool:
        """Whether the fault still occurs."""
        for seed in range(REPLAYS):
            violation = World(seed, self.plan).run().violation
            if violation is not None and self.possible(violation, self.plan):
                return True
        return False


@frozen
class Explanation:
    """The known faults behind a violation and further ones, and the remaining violation.

    ``left_out`` are the kinds of faults without which ``violation`` shows; it is ``None`` if all is explained.
    """

    known: tuple[Known, ...]
    left_out: frozenset[str]
    violation: Violation | None


def without(plan: Plan, kinds: Collection[str]) -> Plan:
    """The plan without the faults of these kinds."""
    return evolve(plan, faults=tuple(fault for fault in plan.faults if type(fault).__name__ not in kinds))


def explain(known: Sequence[Known], plan: Plan, violation: Violation | None, run: Run) -> Explanation:
    """Find the known faults that a plan shows. Each that is found is left out, to see further violations."""
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
        else:  # the violation also shows without these causes, so it has another one
            left_out |= frozenset(needless)
        violation = run(without(plan, left_out))
    return Explanation(tuple(found), left_out, violation)


def _holds(violation: Violation | None, rule: str) -> bool:
    return violation is None or violation.rule != rule
