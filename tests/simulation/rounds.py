"""Many seeds, on one or several processors: rounds of one seed of each profile, until there were enough.

Processes share no changing data. Their results are passed on in the order of the rounds, whichever was ready first.
"""

from __future__ import annotations

import gc
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor

from attrs import frozen

from tests.simulation.search import Result, Scope, search

#: Rounds that are given to each process ahead of time.
AHEAD = 2

#: Rounds after which the garbage of earlier runs is collected. Python itself would never collect it, because each run
#: moves earlier objects out of the way of its own collection (see ``logs.watched``).
COLLECTED_EVERY = 5

#: The scope of this process, if it is one of several.
_scope: list[Scope] = []


@frozen
class Rounds:
    """The seeds: at least those from ``first`` to ``last``, then further ones as long as ``more`` is true."""

    first: int
    last: int
    more: Callable[[], bool] = lambda: False

    def seeds(self) -> Iterator[int]:
        """The seeds in order."""
        seed = self.first
        while seed <= self.last or self.more():
            yield seed
            seed += 1


def run_rounds(scope: Scope, rounds: Rounds, processes: int) -> Iterator[Result]:
    """The result of each run, in order."""
    if processes == 1:
        for seed in rounds.seeds():
            yield from one_round(scope, seed)
        return
    # Forked, so that the plans of a scope need not be pickled, which is impossible.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), _scope.append, (scope,)) as pool:
        under_way: deque[Future[list[Result]]] = deque()
        for seed in rounds.seeds():
            under_way.append(pool.submit(_one_round, seed))
            if len(under_way) > processes * AHEAD:
                yield from under_way.popleft().result()
        while under_way:
            yield from under_way.popleft().result()


def _one_round(seed: int) -> list[Result]:
    return one_round(_scope[-1], seed)


def one_round(scope: Scope, seed: int) -> list[Result]:
    """Run that seed of each profile."""
    if seed % COLLECTED_EVERY == 0:
        gc.collect()
    return [search(scope, profile, seed) for profile in scope.profiles]
