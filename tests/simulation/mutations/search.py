"""The search for the seed that finds a mutation, with a process for each core."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from attrs import field, frozen

from tests.simulation.mutations.loading import Simulation, load
from tests.simulation.mutations.mutation import Mutation
from tests.simulation.profiles import make_plan
from tests.simulation.world import World

#: Each mutation must be found within so many seeds of its profile.
MOST_SEEDS = 500

#: Mutation -> the first seed that found it, as last recorded.
RECORDED = Path(__file__).with_name("recorded.json")


@frozen
class Result:
    """``seed`` and ``rule`` found the mutation; ``None`` and ``""``: nothing did. ``what`` describes the violation."""

    mutation: str
    seed: int | None = None
    rule: str = ""
    what: str = ""
    #: The other rules that the changed code broke, each with its first seed.
    others: Mapping[str, int] = field(factory=dict)


def find(seeds: Iterable[int], mutation: Mutation) -> Result:
    """Search for the first seed that finds a mutation."""
    gc.collect()  # memory of the last search; runs do not collect
    return first(seeds, mutation, load(mutation), Simulation(make_plan, World))


def first(seeds: Iterable[int], mutation: Mutation, changed: Simulation, unchanged: Simulation) -> Result:
    """The first seed in which the changed code breaks one of the mutation's rules, and the unchanged code keeps it."""
    others: dict[str, int] = {}
    for seed in seeds:
        violation = changed.violation(mutation.profile, seed)
        if violation is None or violation.rule in others:
            continue
        known = unchanged.violation(mutation.profile, seed)
        if known is not None and known.rule == violation.rule:
            continue
        if violation.rule in mutation.rules:
            return Result(mutation.name, seed, violation.rule, violation.what, others)
        others[violation.rule] = seed
    return Result(mutation.name, others=others)


def find_all(wanted: Iterable[tuple[Mutation, Iterable[int]]], processes: int) -> Iterator[Result]:
    """``find`` for each mutation with its seeds; yields the results in order, each as soon as it is known."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        results = [pool.submit(partial(find, seeds, mutation)) for mutation, seeds in wanted]
        for result in results:
            yield result.result()
