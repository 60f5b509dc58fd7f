"""Small worlds, for tests of their parts."""

from __future__ import annotations

from scheduler.cluster.registry import Registry
from scheduler.terms import Target
from tests.simulation.acts import Submit
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.plan import Act, Fault, Plan, PlannedWorker
from tests.simulation.world import World


def a_world(*faults: Fault, acts: tuple[Act, ...] = (), workers: tuple[str, ...] = ("w1", "w2")) -> World:
    """A world that has begun, with only these faults and acts, and without slow messages."""
    world = World(1, Plan(90.0, [PlannedWorker(name) for name in workers], faults, acts, slow=0.0))
    world.begin()
    return world


def job_of(seconds: float, at: float, worker: str, ticket: str = "t") -> Submit:
    """A client that wants a job on that worker, without waiting."""
    return Submit(at, ticket, JobPlan(seconds, 0, 0), Target(worker=worker))


def registry(world: World) -> Registry:
    """The registry of the world's scheduler."""
    assert world.scheduler is not None
    return world.scheduler.parts.ledger.registry


def broken(world: World) -> str:
    """The name of the broken rule; ``""``: none."""
    return "" if world.judge.violation is None else world.judge.violation.rule
