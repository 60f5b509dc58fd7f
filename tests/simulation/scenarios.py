"""Planned faults of identity and of addresses, some of which show only together with others.

A scenario gives a few faults. Each can be left out of the plan by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from tests.simulation.faults.addresses import NewAddress, RestartElsewhere, SwapAddresses, TakeAddress
from tests.simulation.faults.identity import (
    ClockStep,
    CloneFolder,
    Failover,
    LoseFolder,
    RegistrationUnanswered,
    RestoreDatabase,
    SameName,
)
from tests.simulation.faults.network import Partition
from tests.simulation.faults.processes import KillScheduler, KillWorker
from tests.simulation.faults.store import StoreFails
from tests.simulation.plan import Fault

#: (randomness, time of the first fault in seconds, names of the workers) -> faults
Scenario = Callable[[Random, float, Sequence[str]], Sequence[Fault]]


def _down(random: Random) -> float:
    """Seconds: mostly short, sometimes longer than a lease."""
    return random.uniform(0.1, 3.0) if random.random() < 0.7 else random.uniform(3.0, 40.0)


def _elsewhere(random: Random, at: float, worker: str) -> RestartElsewhere:
    return RestartElsewhere(at, worker, _down(random), random.random() < 0.5)


def new_address(random: Random, at: float, workers: Sequence[str]) -> Sequence[Fault]:
    """The address of a machine changes, alone."""
    return [NewAddress(at, random.choice(workers))]


def moved(random: Random, at: float, workers: Sequence[str]) -> Sequence[Fault]:
    """A worker is started again elsewhere, alone."""
    return [_elsewhere(random, at, random.choice(workers))]


def moved_unsaved(random: Random, at: float, workers: Sequence[str]) -> Sequence[Fault]:
    """The store fails while a worker moves, and the scheduler is killed before it can save that."""
    elsewhere = RestartElsewhere(at, random.choice(workers), random.uniform(0.1, 2.0), random.random() < 0.5)
    fails = StoreFails(at - random.uniform(0.0, 0.5), random.uniform(3.0, 15.0), 1.0, 0.0)
    return [fails, elsewhere, KillScheduler(at + elsewhere.down + random.uniform(0.05, 4.0), random.uniform(0.1, 8.0))]


def swapped(random: Random, at: float, workers: Sequence[str]) -> Sequence[Fault]:
    """Two machines swap their addresses."""
    if len(workers) < 2:
        return new_address(random, at, workers)
    return [SwapAddresses(at, *random.sample(workers, 2))]


def taken(random: Random, at: float, workers: Sequence[str]) -> Sequence[Fault]:
    """A machine gets the address of a dead one."""
    if len(workers) < 2:
        return new_address(random, at, workers)
    dead, worker = random.sample(workers, 2)
    return [TakeAddress(at, dead, worker, _down(random), random.random() < 0.5)]


def lost_folder(random: Random, at: float, workers: Sequence[str]) -> Sequence[Fault]:
    """A machine is set up anew; the answer to its first registration may be lost."""
    lost = LoseFolder(at, random.choice(workers), _down(random), random.random() < 0.3)
    if random.random() < 0.5:
        return [lost]
    return [lost, *_unanswered(random, at + lost.down, lost.worker)]


def first_unanswered(random: Random, at: float, workers: Sequence[str]) -> Sequence[Fault]:
    """The answer to the first registration of a worker is lost."""
    return _unanswered(random, 0.0, random.choice(workers))


def _unanswered(random: Random, at: float, worker: str) -> Sequence[Fault]:
    unanswered = RegistrationUnanswered(at, worker, random.choice((2.0, 15.0)))
    if random.random() < 0.5:
        return [unanswered]
    down = random.uniform(0.1, 2.0)
    return [unanswered, RestartElsewhere(at + random.uniform(3.0, 9.0), worker, down, random.random() < 0.5)]


def cloned(random: Random, at: float, workers: Sequence[str]) -> Sequence[Fault]:
    """A copy of a state folder is in use, too."""
    return [CloneFolder(at, random.choice(workers), random.uniform(1.0, 60.0), random.random() < 0.5)]


def same_name(random: Random, at: float, workers: Sequence[str]) -> Sequence[Fault]:
    """Two workers have one name; the first may be cut off when the second comes."""
    named = SameName(at, random.choice(workers), random.uniform(1.0, 60.0))
    if random.random() < 0.5:
        return [named]
    return [
        Partition(max(0.0, at - random.uniform(0.1, 40.0)), named.worker, random.uniform(5.0, 60.0), True, True),
        named,
    ]


def restored(random: Random, at: float, workers: Sequence[str]) -> Sequence[Fault]:
    """A backup of the database is used; a worker may have moved since."""
    restore = RestoreDatabase(at, random.uniform(0.5, 40.0), random.uniform(0.1, 8.0))
    if random.random() < 0.5:
        return [restore]
    return [restore, _elsewhere(random, at + random.uniform(0.0, restore.seconds), random.choice(workers))]


def fallen_back(random: Random, at: float, workers: Sequence[str]) -> Sequence[Fault]:
    """A standby that was behind takes over, and the scheduler is killed some time later."""
    failover = Failover(at, random.uniform(0.2, 20.0))
    after = at + failover.behind + random.choice((random.uniform(0.1, 5.0), random.uniform(15.0, 40.0)))
    return [failover, KillScheduler(after, random.uniform(0.1, 8.0))]


def wrong_clock(random: Random, at: float, workers: Sequence[str]) -> Sequence[Fault]:
    """A wall clock is wrong while something is started anew."""
    worker = random.choice(workers)
    by = random.choice((-1.0, 1.0)) * random.choice((2.0, 60.0, 3600.0, 86400.0))
    step = ClockStep(at, random.choice((worker, "")), by, random.uniform(1.0, 60.0))
    if random.random() < 0.5:
        return [step]
    again = at + random.uniform(0.1, step.seconds)
    return [step, random.choice((KillScheduler(again, 1.0), KillWorker(again, worker, 1.0)))]


SCENARIOS: Sequence[Scenario] = (
    new_address,
    moved,
    moved_unsaved,
    swapped,
    taken,
    lost_folder,
    first_unanswered,
    cloned,
    same_name,
    restored,
    fallen_back,
    wrong_clock,
)
