"""Crashes at the worst moments: a process dies before something is durable."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from tests.simulation.faults.folders import Eviction
from tests.simulation.faults.network import Partition
from tests.simulation.faults.processes import KillScheduler, KillWorker
from tests.simulation.faults.store import StoreFails, StoreStalls
from tests.simulation.plan import Fault


def in_a_commit(random: Random, at: float, workers: Sequence[str]) -> Sequence[Fault]:
    """The scheduler dies while the store stalls or fails, and no worker keeps what was acknowledged."""
    seconds = random.uniform(2.0, 12.0)
    stalls, fails = StoreStalls(at, seconds), StoreFails(at, seconds, random.choice((0.5, 1.0)), 0.0)
    faults: list[Fault] = [random.choice((stalls, stalls, fails))]
    faults += [Eviction(at - 1.0, worker, seconds + 20.0) for worker in workers]
    faults.append(KillScheduler(at + random.uniform(0.3, 1.2) * seconds, random.uniform(0.1, 4.0)))
    return faults


def behind_a_cut(random: Random, at: float, workers: Sequence[str]) -> Sequence[Fault]:
    """A worker is cut off in one direction, and one of the two sides dies meanwhile."""
    worker, seconds = random.choice(workers), random.uniform(3.0, 30.0)
    to_worker = random.random() < 0.5
    dies = at + random.uniform(0.0, 1.0) * seconds
    down = random.uniform(0.1, 4.0)
    death = KillScheduler(dies, down) if random.random() < 0.5 else KillWorker(dies, worker, down)
    return [Partition(at, worker, seconds, to_worker, not to_worker), Eviction(at, worker, seconds + 20.0), death]


def in_a_dispatch(random: Random, at: float, workers: Sequence[str]) -> Sequence[Fault]:
    """Workers come and go under the queue, and the scheduler dies right after."""
    worker = random.choice(workers)
    return [
        KillWorker(at, worker, random.uniform(0.1, 8.0)),
        StoreStalls(at + random.uniform(0.0, 8.0), random.uniform(0.1, 3.0)),
        KillScheduler(at + random.uniform(0.0, 12.0), random.uniform(0.1, 4.0)),
    ]


def while_a_worker_is_lost(random: Random, at: float, workers: Sequence[str]) -> Sequence[Fault]:
    """Calls do not reach a worker, which is found out while the store stalls and its reports still arrive."""
    return [
        Partition(at, random.choice(workers), 25.0, True, False),
        StoreStalls(at + random.uniform(8.0, 15.0), random.uniform(4.0, 10.0)),
        KillScheduler(at + random.uniform(18.0, 30.0), random.uniform(0.1, 4.0)),
    ]


CRASHES = (in_a_commit, in_a_commit, behind_a_cut, in_a_dispatch, while_a_worker_is_lost)
