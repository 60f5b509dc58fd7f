"""What is done with one seed: run its plan, and find out what every violation comes from.

The first broken rule ends a run, so a known fault could hide a new one: where one is recognised, the run is repeated
without the faults that brought it about, and judged anew. A new violation is shrunk as far as possible, and the result
is printed with all that a person needs to repeat it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence

from attrs import field, frozen

from tests.simulation.judge import Violation
from tests.simulation.known import Known, explain
from tests.simulation.plan import Plan
from tests.simulation.selection import ALL, Selection, named_faults
from tests.simulation.shrink import shrink
from tests.simulation.timeline import described, timeline
from tests.simulation.world import Outcome, World


@frozen
class Scope:
    """What is searched: ``profiles`` by name, of each of which ``make`` gives the plan of a seed; and what is known."""

    known: tuple[Known, ...]
    profiles: tuple[str, ...]
    make: Callable[[int, str], Plan]


@frozen
class Finding:
    """A violation. ``known`` is the name of the fault that it comes from; ``""``: a new one."""

    what: str
    known: str
    #: For people: how to repeat it, and its timeline.
    report: str


@frozen
class Result:
    """What became of a seed. ``faults``: how many struck, by kind. ``digest``: of the trace of its run."""

    profile: str
    seed: int
    digest: str = ""
    jobs: int = 0
    events: int = 0
    faults: Mapping[str, int] = field(factory=dict)
    findings: tuple[Finding, ...] = ()


def command(profile: str, seed: int, selection: Selection = ALL) -> str:
    """What repeats a run."""
    return f"python -m tests.simulation --profile {profile} --seed {seed} {selection.arguments()}".rstrip()


def search(scope: Scope, profile: str, seed: int, selection: Selection = ALL, shrunk: bool = True) -> Result:
    """Run a seed, or what is selected of it, and examine what it shows. ``shrunk``: make a new violation smaller."""
    plan = scope.make(seed, profile)
    try:
        outcome = World(seed, selection.of(plan)).run()
    except Exception:
        report = f"{command(profile, seed, selection)}\n{traceback.format_exc()}"
        return Result(profile, seed, findings=(Finding("the simulation itself has failed", "", report),))
    examination = _Examination(scope.known, profile, seed, plan, shrunk)
    return Result(
        profile,
        seed,
        outcome.trace.digest(),
        outcome.jobs,
        outcome.events,
        dict(outcome.faults),
        tuple(examination.findings(selection, outcome.violation)),
    )


class _Examination:
    """Of the violations that one seed shows."""

    def __init__(self, known: Sequence[Known], profile: str, seed: int, plan: Plan, shrunk: bool) -> None:
        self._profile = profile
        self._seed = seed
        self._known = known
        self._shrunk = shrunk
        self._plan = plan

    def findings(self, selection: Selection, violation: Violation | None) -> Iterator[Finding]:
        """What that violation comes from, and what shows when this is left out."""
        explained = explain(self._known, selection.of(self._plan), violation, self._violation)
        for known in explained.known:
            yield Finding(str(violation), known.name, command(self._profile, self._seed, selection))
        if explained.violation is not None:
            left_out = [
                name for name, fault in named_faults(self._plan).items() if type(fault).__name__ in explained.left_out
            ]
            rest = selection.without(self._plan, left_out) if left_out else selection
            yield Finding(str(explained.violation), "", self._report(rest, explained.violation))

    def _violation(self, plan: Plan) -> Violation | None:
        return World(self._seed, plan).run().violation

    def _breaks(self, rule: str) -> Callable[[Plan], bool]:
        """Whether a plan breaks that rule in a way that is not known."""

        def breaks(plan: Plan) -> bool:
            try:
                violation = self._violation(plan)
                if violation is None or violation.rule != rule:
                    return False
                return explain(self._known, plan, violation, self._violation).violation is not None
            except Exception:
                return False  # what is left out was needed

        return breaks

    def _report(self, selection: Selection, violation: Violation) -> str:
        lines = [str(violation), "", f"again:  {command(self._profile, self._seed, selection)}"]
        if self._shrunk:
            selection = shrink(self._plan, self._breaks(violation.rule), selection)
            lines.append(f"shrunk: {command(self._profile, self._seed, selection)}")
        return "\n".join((*lines, "", *self._told(selection)))

    def _told(self, selection: Selection) -> list[str]:
        """A run for people: what is planned, and its timeline."""
        world = World(self._seed, selection.of(self._plan))
        outcome: Outcome = world.run()
        return [*described(self._plan, selection), "", *timeline(world, outcome)]
