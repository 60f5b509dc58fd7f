"""Plans for tests of what is done with runs."""

from __future__ import annotations

from attrs import evolve

from scheduler.model import Target
from tests.simulation.acts import Drain, Submit
from tests.simulation.faults.identity import Failover
from tests.simulation.faults.processes import KillScheduler, StopWorker
from tests.simulation.known import Known
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.plan import Plan, PlannedWorker

#: Nothing goes wrong.
CALM = Plan(
    length=20.0,
    workers=(PlannedWorker("w1"), PlannedWorker("w2")),
    faults=(),
    acts=(Submit(2.0, "t1", JobPlan(1.0, 0, 0), Target(selector={})),),
)

#: A worker that is drained leaves, and comes back without the drain.
DRAIN = evolve(CALM, faults=(StopWorker(5.0, "w1", down=1.0),), acts=(*CALM.acts, Drain(4.0, "w1")))

#: The end of a job is shown, is not in the standby that takes over, and not there after a restart of the scheduler.
END = evolve(
    CALM,
    length=55.0,
    faults=(Failover(10.0, 10.0), KillScheduler(40.0, down=1.0)),
    acts=(*CALM.acts, Submit(8.0, "t2", JobPlan(5.0, 0, 0), Target(worker="w2"))),
)

#: Both.
BOTH = evolve(END, faults=(*DRAIN.faults, *END.faults), acts=(*END.acts, Drain(4.0, "w1")))

KNOWN_DRAIN = Known("drain lost", "Why it is.", ("a drain stays",), (("StopWorker",),), DRAIN)


def make(seed: int, profile: str) -> Plan:
    """One of the above, by its name, the same for each seed."""
    return {"calm": CALM, "drain": DRAIN, "end": END, "both": BOTH}[profile]
