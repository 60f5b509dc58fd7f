"""Shrinks the plan of a failing run, as long as it still fails in the same way.

Delta debugging: parts of the plan are left out, many at a time and then one at a time: faults, acts, workers. Then the
values of the rest are simplified: defaults in place of options, round numbers, shorter times. This is repeated until
nothing more helps or the number of runs is used up. A run is never made longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from tests.simulation.plan import Plan
from tests.simulation.selection import ALL, PLAN, Selection, named_acts, named_faults, named_workers, parts

#: The most runs of a shrinking.
RUNS = 400

#: The least seconds between the last planned event and the end of the faults.
MARGIN = 5.0

#: Whether a run of the plan fails in the same way.
Fails = Callable[[Plan], bool]


def shrink(plan: Plan, fails: Fails, selection: Selection = ALL, runs: int = RUNS) -> Selection:
    """Leave out as much as possible of a failing selection, and simplify the rest."""
    shrinker = _Shrinker(plan, fails, runs, selection)
    while True:
        before = shrinker.selection
        shrinker.leave_out(named_faults(plan))
        shrinker.leave_out(named_acts(plan))
        shrinker.leave_out_workers()
        shrinker.simplify()
        if shrinker.selection == before or shrinker.runs_left <= 0:
            return shrinker.selection


class _Shrinker:
    def __init__(self, plan: Plan, fails: Fails, runs: int, selection: Selection) -> None:
        kept = tuple(parts(plan)) if selection.kept is None else selection.kept
        self.selection = Selection(kept, selection.changes)
        self.runs_left = runs
        self._plan = plan
        self._fails = fails
        #: Arguments of the selections that were tried.
        self._tried: dict[str, None] = {}

    def leave_out(self, items: Mapping[str, Any]) -> None:
        """Leave out as many of these items as possible: first all, then halves, quarters, ... and each alone."""
        size = len(self._kept(items))
        while size > 0:
            names = self._kept(items)
            for first in range(0, len(names), size):
                self._attempt(self.selection.without(self._plan, names[first : first + size]))
            size //= 2

    def leave_out_workers(self) -> None:
        """Leave out each worker without a plan, except the last one."""
        for name in named_workers(self._plan):
            left = self.selection.of(self._plan)
            planned = (*left.faults, *left.acts)
            if len(left.workers) > 1 and not any(_mentions(item, name) for item in planned):
                self._attempt(self.selection.without(self._plan, [name]))

    def simplify(self) -> None:
        """Simplify each value of each remaining part, and of the plan."""
        for name in (*(self.selection.kept or ()), PLAN):
            for path, value in list(_values(name, self._part(name))):
                for simpler in _simpler(value):
                    if self._attempt(self.selection.changed(path, simpler)):
                        break

    def _kept(self, items: Mapping[str, Any]) -> list[str]:
        return [name for name in self.selection.kept or () if name in items]

    def _part(self, name: str) -> Any:
        return self.selection.of(self._plan) if name == PLAN else self.selection.parts_of(self._plan)[name]

    def _attempt(self, candidate: Selection) -> bool:
        """Accept the candidate if it is new and fails as well."""
        arguments = candidate.arguments()
        if arguments in self._tried or self.runs_left <= 0:
            return False
        self._tried[arguments] = None
        try:
            plan = candidate.of(self._plan)
        except (ValueError, TypeError):
            return False  # no such value is possible
        if not plan.workers or plan.length < _last(plan) + MARGIN:
            return False
        self.runs_left -= 1
        if not self._fails(plan):
            return False
        self.selection = candidate
        return True


def _last(plan: Plan) -> float:
    """The time of the last planned event."""
    return max((*(fault.at for fault in plan.faults), *(act.at for act in plan.acts)), default=0.0)


@attrs.frozen
class _Value:
    """A value of a part of a plan, and its default, if it has one."""

    now: Any
    default: Any = attrs.NOTHING


def _values(path: str, item: Any) -> Iterator[tuple[str, _Value]]:
    """All values of an item that can be changed, by their paths."""
    for field in attrs.fields(type(item)):
        if not field.init or (path == PLAN and field.name in {"workers", "faults", "acts"}):
            continue
        now = getattr(item, field.name)
        default = field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            default = attrs.NOTHING if default.takes_self else default.factory()
        inner = f"{path}.{field.name}"
        yield inner, _Value(now, default)
        if attrs.has(type(now)):
            yield from _values(inner, now)


def _simpler(value: _Value) -> list[Any]:
    """Possible replacements, the simplest first."""
    now, default = value.now, value.default
    if now == default and not isinstance(now, float):
        return []  # a default is never replaced, so that this ends
    found: list[Any] = []
    if isinstance(now, Mapping):
        found.append({})
    if default is None or isinstance(default, bool | int | str):
        found.append(default)
    if isinstance(now, int) and not isinstance(now, bool):
        found += [number for number in (0, 1) if number < now]
    elif isinstance(now, float):
        numbers = [0.0, 1.0, float(round(now / 2)), float(round(now)), round(now, 1)]
        found += sorted((number for number in numbers if _effort(number) < _effort(now)), key=_effort)
    unique: list[Any] = []
    for each in found:
        if each != now and each not in unique:
            unique.append(each)
    return unique


def _effort(number: float) -> tuple[bool, int, float]:
    """A rank of readability: whole numbers are best, then those with few digits."""
    return not number.is_integer(), len(repr(number)), abs(number)


def _mentions(value: Any, name: str) -> bool:
    """Whether a text in the value is that name."""
    if isinstance(value, str):
        return value == name
    if isinstance(value, Mapping):
        return any(_mentions(each, name) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple):
        return any(_mentions(each, name) for each in value)
    return attrs.has(type(value)) and any(
        _mentions(getattr(value, field.name), name) for field in attrs.fields(type(value))
    )
