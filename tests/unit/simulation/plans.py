"""Plans for tests of what is done with runs, with planted faults: what these break the product does not."""

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
    """A worker is stopped and started again, and the scheduler takes it for one that is not drained."""

    def strike(self, world: World) -> None:
        StopWorker.strike(self, world)
        world.loop.after(self.down + 1.0, self._undrain, world)

    def _undrain(self, world: World) -> None:
        assert world.scheduler is not None
        ledger = world.scheduler.parts.ledger
        for worker in ledger.registry.named(self.worker):
            ledger.see(evolve(worker, draining=False))


#: Nothing goes wrong.
CALM = Plan(
    length=20.0,
    workers=(PlannedWorker("w1"), PlannedWorker("w2")),
    faults=(),
    acts=(Submit(2.0, "t1", JobPlan(1.0, 0, 0), Target(selector={})),),
)

#: A worker that is drained leaves, and comes back without the drain.
DRAIN = evolve(CALM, faults=(StopUndrained(5.0, "w1", down=1.0),), acts=(*CALM.acts, Drain(4.0, "w1")))


@frozen
class BreakRule:
    """A rule is broken for the job of a ticket, if there is one by then, as if something had gone wrong."""

    at: float
    rule: str
    ticket: str

    def __str__(self) -> str:
        return f"the rule {self.rule!r} is broken"

    def strike(self, world: World) -> None:
        for job_id in world.judge.facts.tickets[self.ticket].jobs:
            world.judge.broken(self.rule, f"job {job_id}, on purpose", job_id)


#: Something that nobody knows of breaks a rule, after a failover and a restart of the scheduler.
END = evolve(
    CALM,
    length=55.0,
    faults=(Failover(10.0, 10.0), KillScheduler(40.0, down=1.0), BreakRule(45.0, "a final state stays", "t2")),
    acts=(*CALM.acts, Submit(8.0, "t2", JobPlan(5.0, 0, 0), Target(worker="w2"))),
)

#: Both.
BOTH = evolve(END, faults=(*DRAIN.faults, *END.faults), acts=(*END.acts, Drain(4.0, "w1")))

KNOWN_DRAIN = Known("drain lost", "Why it is.", ("a drain stays",), (("StopUndrained",),), DRAIN)


def make(seed: int, profile: str) -> Plan:
    """One of the above, by its name, the same for each seed."""
    return {"calm": CALM, "drain": DRAIN, "end": END, "both": BOTH}[profile]
