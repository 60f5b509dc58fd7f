"""The simulator loaded a second time, with changed production code.

Our modules import nothing after they are loaded. So a second set of our modules can exist in the same process, each
bound to its own set. While the second set is imported, the first is taken out of ``sys.modules``; it is put back
afterwards. The changed module is compiled from the changed source, and no file is written.
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
    """The parts that run a seed: ``make_plan`` of ``tests.simulation.profiles``, and ``World``."""

    make_plan: Callable[[int, str], Any]
    world: Callable[[int, Any], Any]

    def violation(self, profile: str, seed: int) -> Any | None:
        """The first broken rule of the run; ``None``: it broke none."""
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
    """Finds the changed module ahead of all other finders."""

    def __init__(self, mutation: Mutation) -> None:
        self._mutation = mutation

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._mutation.module:
            return None
        return spec_from_file_location(fullname, self._mutation.path, loader=_Loader(self._mutation))


def load(mutation: Mutation) -> Simulation:
    """The simulator with the changed code; ``Outdated``."""
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
    """Take all our modules out of ``sys.modules``, and return them."""
    ours = [name for name in sys.modules if name.partition(".")[0] in {"scheduler", "tests"}]
    return {name: sys.modules.pop(name) for name in ours}
