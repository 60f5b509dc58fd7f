"""Profiles: kinds of runs, each with its own mix of faults and of what clients do; a seed gives the plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from scheduler.model import QueueTerms, Retry, Target
from tests.simulation.acts import Drain, Submit
from tests.simulation.faults import network, processes, store
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.plan import Act, Fault, Plan, PlannedWorker
from tests.simulation.scenarios import SCENARIOS

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
        random.choice((0.5, 3.0, 12.0)),
        random.choice((0.0, 0.05, 0.3)),
        random.choice((0.0, 0.05, 0.3)),
    )


def _store_fails(random: Random, at: float, worker: str) -> Fault:
    return store.StoreFails(at, random.uniform(0.5, 20.0), random.choice((0.3, 1.0)), random.choice((0.0, 0.3, 1.0)))


def _store_stalls(random: Random, at: float, worker: str) -> Fault:
    return store.StoreStalls(at, random.uniform(0.5, 15.0))


def _shortage(random: Random, at: float, worker: str) -> Fault:
    return processes.Shortage(at, worker, random.uniform(0.5, 15.0))


_NETWORK = (_partition, _partition, _storm, _storm)
_STORE = (_store_fails, _store_stalls, _store_fails)
_PROCESSES = (_kill_scheduler, _stop_scheduler, _kill_worker, _kill_worker, _stop_worker, _reboot, _freeze)

PROFILES: dict[str, Sequence[MakeFault]] = {
    "network": _NETWORK,
    "store": (*_STORE, _kill_scheduler),
    "processes": _PROCESSES,
    "identity": (_kill_scheduler, _kill_worker, _stop_worker, _partition, _storm),
    "all": (*_NETWORK, *_STORE, *_PROCESSES, _shortage),
}

#: Of the faults of a profile, the share that is planned as scenarios of identity.
SCENARIO_SHARE = {"identity": 0.7, "all": 0.08}


def make_plan(seed: int, profile: str) -> Plan:
    """The plan of that seed."""
    random = Random(f"plan {profile} {seed}")
    workers = [
        PlannedWorker(f"w{number}", random.choice((1, 2, 4)), {"kind": random.choice(("a", "b"))})
        for number in range(1, random.randint(2, 4))
    ]
    planned: list[Fault] = []
    for _ in range(random.randint(1, 6)):
        planned += _faults(random, profile, [worker.name for worker in workers])
    acts = [_submit(random, number, workers) for number in range(random.randint(5, 30))]
    if random.random() < 0.4:
        worker = random.choice(workers).name
        at = random.uniform(2.0, LENGTH - 20.0)
        acts.append(Drain(at, worker))
        if random.random() < 0.7:
            acts.append(Drain(at + random.uniform(2.0, 18.0), worker, resume=True))
    return Plan(
        LENGTH,
        tuple(workers),
        tuple(sorted(planned, key=lambda fault: fault.at)),
        tuple(sorted(acts, key=lambda act: act.at)),
        slow=random.choice((0.0, 0.02, 0.2)),
    )


def _faults(random: Random, profile: str, workers: Sequence[str]) -> Sequence[Fault]:
    """One fault, or those of a scenario."""
    scenario = profile in SCENARIO_SHARE and random.random() < SCENARIO_SHARE[profile]
    make = None if scenario else random.choice(PROFILES[profile])
    at = random.uniform(5.0, LENGTH - 5.0)
    if make is None:
        return [fault for fault in random.choice(SCENARIOS)(random, at, workers) if fault.at < LENGTH]
    return [make(random, at, random.choice(workers))]


def _submit(random: Random, number: int, workers: Sequence[PlannedWorker]) -> Act:
    job = JobPlan(
        round(random.choice((0.05, 1.0, 5.0, 20.0)) * random.uniform(0.5, 1.5), 2), random.choice((0, 0, 1, 7)), 0
    )
    selector = random.choice((None, {}, {}, {"kind": "a"}))
    target = Target(worker=random.choice(workers).name) if selector is None else Target(selector=selector)
    retry = Retry(random.randint(1, 2), random.choice((0.0, 2.0))) if random.random() < 0.2 else None
    waits = selector is not None or random.random() < 0.5
    terms = QueueTerms(
        queue_timeout=random.choice((5.0, 600.0)) if waits else 0.0,
        priority=random.choice((0, 0, 5)),
        retry=retry,
    )
    return Submit(
        at=random.uniform(1.0, LENGTH - 10.0) if random.random() < 0.7 else 10.0 + number * 0.01,
        ticket=f"t{number}",
        job=job,
        target=target,
        terms=terms,
        key=f"k{number}" if random.random() < 0.6 else None,
        stop_after=random.uniform(0.0, 10.0) if random.random() < 0.2 else None,
        query_after=random.uniform(0.0, 5.0) if random.random() < 0.3 else None,
        wait=random.uniform(1.0, 60.0) if random.random() < 0.3 else None,
    )
