"""Plans for tests of the runner, with planted faults that break rules which the production code keeps."""

from __future__ import annotations

from attrs import evolve, frozen

from scheduler.terms import Target
from tests.simulation.acts import Drain, Submit
from tests.simulation.faults.identity import Failover
from tests.simulation.faults.processes import KillScheduler, StopWorker
from tests.simulation.known import Known
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.plan import Plan, PlannedWorker
from tests.simulation.world import World


@frozen
class StopUndrained(StopWorker):
    """A worker is stopped and started again, and the scheduler loses its drain."""

    def strike(self, world: World) -> None:
        StopWorker.strike(self, world)
        world.loop.after(self.down + 1.0, self._undrain, world)

    def _undrain(self, world: World) -> None:
        assert world.scheduler is not None
        ledger = world.scheduler.parts.ledger
        for worker in ledger.registry.workers.named(self.worker):
            ledger.learn(evolve(worker, draining=False))


#: A plan without faults.
CALM = Plan(
    length=20.0,
    workers=(PlannedWorker("w1"), PlannedWorker("w2")),
    faults=(),
    acts=(Submit(2.0, "t1", JobPlan(1.0, 0, 0), Target(selector={})),),
)

#: A drained worker leaves, and returns without the drain.
DRAIN = evolve(CALM, faults=(StopUndrained(5.0, "w1", down=1.0),), acts=(*CALM.acts, Drain(4.0, "w1")))


@frozen
class BreakRule:
    """Breaks a rule for the job of a ticket, if the job exists by then."""

    at: float
    rule: str
    ticket: str

    def __str__(self) -> str:
        return f"the rule {self.rule!r} is broken"

    def strike(self, world: World) -> None:
        for job_id in world.judge.facts.tickets[self.ticket].jobs:
            world.judge.broken(self.rule, f"job {job_id}, on purpose", job_id)


#: An unknown fault breaks a rule, after a failover and a restart of the scheduler.
END = evolve(
    CALM,
    length=55.0,
    faults=(Failover(10.0, 10.0), KillScheduler(40.0, down=1.0), BreakRule(45.0, "a final state stays", "t2")),
    acts=(*CALM.acts, Submit(8.0, "t2", JobPlan(5.0, 0, 0), Target(worker="w2"))),
)

#: ``DRAIN`` and ``END`` together.
BOTH = evolve(END, faults=(*DRAIN.faults, *END.faults), acts=(*END.acts, Drain(4.0, "w1")))

KNOWN_DRAIN = Known("drain lost", "Why it is.", ("a drain stays",), (("StopUndrained",),), DRAIN)


def make(seed: int, profile: str) -> Plan:
    """The plan above of that name, the same for each seed."""
    return {"calm": CALM, "drain": DRAIN, "end": END, "both": BOTH}[profile]
