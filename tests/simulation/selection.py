"""Parts of a plan by name, so that a run can be repeated with some of them left out, or changed.

Faults are ``f1``, ``f2``, ... and acts ``a1``, ``a2``, ..., in the order of the whole plan; workers have their own
names. A change is a path and a value: ``a3.terms.retry=None`` or ``f1.seconds=2.0``; ``plan.slow=0.0`` changes the plan
itself.
"""

from __future__ import annotations

import ast
import shlex
from collections.abc import Sequence
from typing import Any

from attrs import evolve, frozen

from tests.simulation.plan import Plan

#: The first part of the path of a value that belongs to the plan itself.
PLAN = "plan"


def named_faults(plan: Plan) -> dict[str, Any]:
    """All faults of the plan by name, in its order."""
    return {f"f{number}": fault for number, fault in enumerate(plan.faults, 1)}


def named_acts(plan: Plan) -> dict[str, Any]:
    """All acts of the plan by name, in its order."""
    return {f"a{number}": act for number, act in enumerate(plan.acts, 1)}


def named_workers(plan: Plan) -> dict[str, Any]:
    """All workers of the plan by name, in its order."""
    return {worker.name: worker for worker in plan.workers}


def parts(plan: Plan) -> dict[str, Any]:
    """All parts of the plan by name."""
    return {**named_faults(plan), **named_acts(plan), **named_workers(plan)}


@frozen
class Selection:
    """A part of a plan. ``kept``: names of its parts, ``None``: all. ``changes``: pairs of path and value."""

    kept: tuple[str, ...] | None = None
    changes: tuple[tuple[str, Any], ...] = ()

    def of(self, plan: Plan) -> Plan:
        """The plan, reduced to this selection. ``ValueError``: a selected part, or a changed value, is not in it."""
        left = self.parts_of(plan)
        found = evolve(
            plan,
            workers=tuple(left[name] for name in named_workers(plan) if name in left),
            faults=tuple(left[name] for name in named_faults(plan) if name in left),
            acts=tuple(left[name] for name in named_acts(plan) if name in left),
        )
        changed: Plan = self._changed(PLAN, found)
        return changed

    def parts_of(self, plan: Plan) -> dict[str, Any]:
        """The selected faults, acts and workers, by their names in the whole plan."""
        named = parts(plan)
        kept = named if self.kept is None else dict.fromkeys(self.kept)
        for name in (*kept, *(path.partition(".")[0] for path, _ in self.changes)):
            if name not in named and name != PLAN:
                raise ValueError(f"the plan has no {name}; it has {', '.join(named)}")
        return {name: self._changed(name, item) for name, item in named.items() if name in kept}

    def _changed(self, name: str, item: Any) -> Any:
        for path, value in self.changes:
            first, *rest = path.split(".")
            if first == name:
                item = _with(item, rest, value)
        return item

    def without(self, plan: Plan, names: Sequence[str]) -> Selection:
        """This selection without these parts."""
        kept = parts(plan) if self.kept is None else self.kept
        return Selection(
            tuple(name for name in kept if name not in names),
            tuple((path, value) for path, value in self.changes if path.partition(".")[0] not in names),
        )

    def changed(self, path: str, value: Any) -> Selection:
        """This selection with one more change."""
        others = tuple((other, was) for other, was in self.changes if other != path)
        return Selection(self.kept, (*others, (path, value)))

    def arguments(self) -> str:
        """The arguments for the command line."""
        words = [] if self.kept is None else ["--keep", ",".join(self.kept)]
        if self.changes:
            words += ["--set", *(f"{path}={value!r}" for path, value in self.changes)]
        return shlex.join(words)


#: The whole plan.
ALL = Selection()


def parse(keep: str | None, changes: Sequence[str]) -> Selection:
    """The selection for the command line's ``--keep`` and ``--set``. ``ValueError``: not understood."""
    pairs = []
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals or "." not in path:
            raise ValueError(f"{change!r} is not NAME.FIELD=VALUE")
        try:
            pairs.append((path, ast.literal_eval(value)))
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"{value!r} of {path} is not a value of Python: {error}") from None
    return Selection(None if keep is None else tuple(name for name in keep.split(",") if name), tuple(pairs))


def _with(item: Any, path: Sequence[str], value: Any) -> Any:
    """The item, with another value at that path."""
    if not path:
        raise ValueError("a change needs the name of a field")
    first, *rest = path
    if not hasattr(item, first):
        raise ValueError(f"{type(item).__name__} has no {first}")
    return evolve(item, **{first: _with(getattr(item, first), rest, value) if rest else value})
