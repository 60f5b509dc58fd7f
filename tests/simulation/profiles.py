"""Profiles: kinds of runs, each with its own mix of faults and acts; a seed gives the plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from tests.simulation.crashes import CRASHES
from tests.simulation.faults import folders, impostors, network, processes, store, strangers
from tests.simulation.plan import Fault, Plan, PlannedCoreWorker, PlannedWorker
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.workload import MIXED, OUTPUT, QUEUE, Workload, make_acts

#: Seconds in which faults happen.
LENGTH = 90.0

MakeFault = Callable[[Random, float, str], Fault]


def _down(random: Random) -> float:
    """Seconds: mostly short, sometimes longer than a lease."""
    return random.uniform(0.1, 5.0) if random.random() < 0.7 else random.uniform(5.0, 45.0)


def _kill_scheduler(random: Random, at: float, worker: str) -> Fault:
    return processes.KillScheduler(at, random.uniform(0.1, 8.0))


def _stop_scheduler(random: Random, at: float, worker: str) -> Fault:
    return processes.StopScheduler(at, random.uniform(0.1, 8.0))


def _kill_worker(random: Random, at: float, worker: str) -> Fault:
    return processes.KillWorker(at, worker, _down(random))


def _stop_worker(random: Random, at: float, worker: str) -> Fault:
    return processes.StopWorker(at, worker, _down(random))


def _reboot(random: Random, at: float, worker: str) -> Fault:
    return processes.Reboot(at, worker, random.uniform(2.0, 20.0))


def _freeze(random: Random, at: float, worker: str) -> Fault:
    return processes.Freeze(at, random.choice((worker, "")), _down(random))


def _partition(random: Random, at: float, worker: str) -> Fault:
    to_worker, to_scheduler = random.choice(((True, True), (True, False), (False, True)))
    return network.Partition(at, worker, _down(random), to_worker, to_scheduler)


def _storm(random: Random, at: float, worker: str) -> Fault:
    return network.Storm(
        at,
        random.uniform(1.0, 20.0),
        random.uniform(0.1, 0.9),
        random.choice((0.5, 3.0, 12.0, 30.0)),
        random.choice((0.0, 0.05, 0.3)),
        random.choice((0.0, 0.05, 0.3)),
    )


def _unanswered(random: Random, at: float, worker: str) -> Fault:
    call = random.choice(("signal", "signal", "start", "stop", "remove", "seal"))
    return network.Unanswered(at, call, random.uniform(5.0, 40.0), random.random() < 0.7)


def _store_fails(random: Random, at: float, worker: str) -> Fault:
    return store.StoreFails(at, random.uniform(0.5, 20.0), random.choice((0.3, 1.0)), random.choice((0.0, 0.3, 1.0)))


def _store_stalls(random: Random, at: float, worker: str) -> Fault:
    return store.StoreStalls(at, random.uniform(0.5, 15.0))


def _shortage(random: Random, at: float, worker: str) -> Fault:
    return processes.Shortage(at, worker, random.uniform(0.5, 15.0))


def _eviction(random: Random, at: float, worker: str) -> Fault:
    return folders.Eviction(at, worker, _down(random))


def _stranger(random: Random, at: float, worker: str) -> Fault:
    return strangers.RegisterStranger(at, random.uniform(5.0, 40.0))


def _impostor(random: Random, at: float, worker: str) -> Fault:
    if random.random() < 0.4:
        return impostors.ForgedHeartbeat(at, worker)
    seconds, folder, core = random.uniform(5.0, 40.0), random.random() < 0.5, random.random() < 0.3
    return impostors.TakeId(at, worker, seconds, folder, core)


_NETWORK = (_partition, _partition, _storm, _storm, _unanswered)
_STORE = (_store_fails, _store_stalls, _store_fails)
_PROCESSES = (_kill_scheduler, _stop_scheduler, _kill_worker, _kill_worker, _stop_worker, _reboot, _freeze)

PROFILES: dict[str, Sequence[MakeFault]] = {
    "network": _NETWORK,
    "store": (*_STORE, _kill_scheduler, _eviction),
    "processes": _PROCESSES,
    "identity": (_kill_scheduler, _kill_worker, _stop_worker, _partition, _storm, _impostor, _impostor),
    "queue": (*_PROCESSES, *_STORE, _shortage, _shortage, _partition),
    "output": (*_NETWORK, *_PROCESSES, *_PROCESSES, _store_fails),
    "core": (*_NETWORK, *_STORE, *_PROCESSES, *_PROCESSES, _stranger, _stranger, _impostor, _impostor),
    "crashes": (*_PROCESSES, _storm),
    "all": (*_NETWORK, *_STORE, *_PROCESSES, _shortage, _eviction, _stranger, _impostor),
}

#: The share of a profile's faults that is planned as scenarios of identity.
SCENARIO_SHARE = {"identity": 0.7, "all": 0.08}

#: The workloads of profiles that do not have the general one.
WORKLOADS: dict[str, Workload] = {"queue": QUEUE, "output": OUTPUT}


def make_plan(seed: int, profile: str) -> Plan:
    """The plan of that seed."""
    random = Random(f"plan {profile} {seed}")
    slots = (1, 1, 2) if profile == "queue" else (1, 2, 4)
    workers = [
        PlannedWorker(f"w{number}", random.choice(slots), _labels(random)) for number in range(1, random.randint(2, 4))
    ]
    core_workers = _core_workers(random, profile)
    names = [worker.name for worker in (*workers, *core_workers)]
    ours = [worker.name for worker in workers]
    planned: list[Fault] = []
    for _ in range(random.randint(0 if profile == "crashes" else 1, 6)):
        planned += _faults(random, profile, names, ours)
    for _ in range(random.randint(1, 3) if profile == "crashes" else 0):
        struck = random.choice(CRASHES)(random, random.uniform(6.0, LENGTH - 5.0), ours)
        planned += [fault for fault in struck if fault.at < LENGTH]  # at that time all of them are over
    acts = make_acts(random, WORKLOADS.get(profile, MIXED), names, LENGTH)
    return Plan(
        LENGTH,
        tuple(workers),
        tuple(sorted(planned, key=lambda fault: fault.at)),
        tuple(sorted(acts, key=lambda act: act.at)),
        slow=random.choice((0.0, 0.02, 0.2)),
        core_workers=core_workers,
    )


def _faults(random: Random, profile: str, names: Sequence[str], ours: Sequence[str]) -> Sequence[Fault]:
    """A fault of any worker, or those of a scenario, which is about workers of ours."""
    scenario = profile in SCENARIO_SHARE and random.random() < SCENARIO_SHARE[profile]
    make = None if scenario else random.choice(PROFILES[profile])
    at = random.uniform(5.0, LENGTH - 5.0)
    if make is None:
        return [fault for fault in random.choice(SCENARIOS)(random, at, ours) if fault.at < LENGTH]
    return [make(random, at, random.choice(names))]


def _core_workers(random: Random, profile: str) -> tuple[PlannedCoreWorker, ...]:
    most = {"core": 2, "all": 1}.get(profile, 0)
    least = 1 if profile == "core" else 0
    return tuple(
        PlannedCoreWorker(f"c{number}", deregisters=random.random() < 0.5, jobs_run_on=random.random() < 0.5)
        for number in range(1, random.randint(least, most) + 1)
    )


def _labels(random: Random) -> dict[str, str]:
    labels = {"kind": random.choice(("a", "b"))}
    if random.random() < 0.4:
        labels["zone"] = random.choice(("x", "y"))
    return labels
