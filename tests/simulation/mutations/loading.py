"""The simulation loaded a second time, over production code with a change in it.

Theory of operation. No module of ours imports anything later than when it is loaded. So a second set of all our modules
can live beside the first one in the same process, each bound to its own: while it is imported the first set is taken
out of ``sys.modules``, and put back afterwards. The changed module is compiled from the changed source; nothing is
written anywhere.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from types import ModuleType
from typing import Any

from attrs import frozen

from tests.simulation.mutations.mutation import Mutation, Outdated


@frozen
class Simulation:
    """What it takes to run a seed: ``make_plan`` of ``tests.simulation.profiles``, and ``World``."""

    make_plan: Callable[[int, str], Any]
    world: Callable[[int, Any], Any]

    def violation(self, profile: str, seed: int) -> Any | None:
        """The first broken rule of that run, ``None`` where all were kept."""
        return self.world(seed, self.make_plan(seed, profile)).run().violation


class _Loader(InspectLoader):
    """Loads the changed module."""

    def __init__(self, mutation: Mutation) -> None:
        self._mutation = mutation

    def get_source(self, fullname: str) -> str:
        return self._mutation.source()

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_source(fullname), str(self._mutation.path))


class _Finder(MetaPathFinder):
    """Finds the changed module before anybody else does."""

    def __init__(self, mutation: Mutation) -> None:
        self._mutation = mutation

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._mutation.module:
            return None
        return spec_from_file_location(fullname, self._mutation.path, loader=_Loader(self._mutation))


def load(mutation: Mutation) -> Simulation:
    """The simulation over the changed code; ``Outdated``."""
    finder = _Finder(mutation)
    first = _take_out()
    sys.meta_path.insert(0, finder)
    try:
        profiles = importlib.import_module("tests.simulation.profiles")
        world = importlib.import_module("tests.simulation.world")
        if mutation.module not in sys.modules:
            raise Outdated(f"{mutation.name}: the simulation does not run {mutation.file}: mend the mutation")
        return Simulation(profiles.make_plan, world.World)
    finally:
        sys.meta_path.remove(finder)
        _take_out()
        sys.modules.update(first)


def _take_out() -> dict[str, ModuleType]:
    """All modules of ours, which are not among those that are loaded from now on."""
    ours = [name for name in sys.modules if name.partition(".")[0] in {"scheduler", "tests"}]
    return {name: sys.modules.pop(name) for name in ours}
