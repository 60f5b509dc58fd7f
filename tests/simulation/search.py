"""Searches one seed: runs its plan, and finds the cause of every violation.

The first broken rule ends a run, so a known fault could hide a new one. If a known fault is recognised, the run is
repeated without its causes, and judged again. A new violation is shrunk as far as possible, and the result is printed
with everything that is needed to repeat it.
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
    """The scope of a search: ``profiles`` by name, for each of which ``make`` gives the plan of a seed; and known
    faults.
    """

    known: tuple[Known, ...]
    profiles: tuple[str, ...]
    make: Callable[[int, str], Plan]


@frozen
class Finding:
    """A violation. ``known`` is the name of its known fault; ``""``: a new one."""

    what: str
    known: str
    #: A readable report: how to repeat it, and its timeline.
    report: str


@frozen
class Result:
    """The result of a seed. ``faults``: their numbers by kind. ``digest``: of the trace of its run."""

    profile: str
    seed: int
    digest: str = ""
    jobs: int = 0
    events: int = 0
    faults: Mapping[str, int] = field(factory=dict)
    findings: tuple[Finding, ...] = ()


def command(profile: str, seed: int, selection: Selection = ALL) -> str:
    """The command line that repeats a run."""
    return f"python -m tests.simulation --profile {profile} --seed {seed} {selection.arguments()}".rstrip()


def search(scope: Scope, profile: str, seed: int, selection: Selection = ALL, shrunk: bool = True) -> Result:
    """Run a seed, or a selection of it, and examine its violations. ``shrunk``: shrink a new violation."""
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
    """Examines the violations of one seed."""

    def __init__(self, known: Sequence[Known], profile: str, seed: int, plan: Plan, shrunk: bool) -> None:
        self._profile = profile
        self._seed = seed
        self._known = known
        self._shrunk = shrunk
        self._plan = plan

    def findings(self, selection: Selection, violation: Violation | None) -> Iterator[Finding]:
        """The causes of that violation, and the violations that show without them."""
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
                return False  # a part that was left out was needed

        return breaks

    def _report(self, selection: Selection, violation: Violation) -> str:
        lines = [str(violation), "", f"again:  {command(self._profile, self._seed, selection)}"]
        if self._shrunk:
            selection = shrink(self._plan, self._breaks(violation.rule), selection)
            lines.append(f"shrunk: {command(self._profile, self._seed, selection)}")
        return "\n".join((*lines, "", *self._told(selection)))

    def _told(self, selection: Selection) -> list[str]:
        """A readable run: its plan, and its timeline."""
        world = World(self._seed, selection.of(self._plan))
        outcome: Outcome = world.run()
        return [*described(self._plan, selection), "", *timeline(world, outcome)]
