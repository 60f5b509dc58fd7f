"""The known faults of the product, each with a plan that shows it."""

from __future__ import annotations

from scheduler.model import Target
from tests.simulation import known_identity
from tests.simulation.acts import Drain, Submit
from tests.simulation.faults.processes import KillScheduler, StopWorker
from tests.simulation.faults.store import StoreFails
from tests.simulation.judge import Violation
from tests.simulation.known import Known
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.plan import Plan, PlannedWorker


def _became_unknown(violation: Violation, plan: Plan) -> bool:
    return "and is ['unknown'" in violation.what


_DURABILITY = (
    Known(
        name="an end is shown that is not durable",
        why=(
            "While the store fails, an end that a worker reports is shown at once. When the scheduler ends before it "
            "is saved, the job is unknown after the restart, until its worker reports the end again."
        ),
        rules=("a final state stays",),
        causes=(("StoreFails", "StoreStalls"), ("KillScheduler", "StopScheduler")),
        looks_right=_became_unknown,
        plan=Plan(
            length=55.0,
            workers=(PlannedWorker("w1"),),
            faults=(StoreFails(46.0, 2.0, share=1.0, though_committed=0.0), KillScheduler(48.0, down=1.0)),
            acts=(Submit(35.0, "t1", JobPlan(12.0, 0, 0), Target(worker="w1")),),
        ),
    ),
    Known(
        name="a drain is lost when a worker leaves",
        why="A worker that is stopped with no job deregisters and is forgotten, and with it that it was drained.",
        rules=("a drain stays",),
        causes=(("StopWorker",),),
        plan=Plan(
            length=10.0,
            workers=(PlannedWorker("w1"),),
            faults=(StopWorker(2.0, "w1", down=1.0),),
            acts=(Drain(1.0, "w1"),),
        ),
    ),
)

KNOWN: tuple[Known, ...] = (*_DURABILITY, *known_identity.KNOWN)
