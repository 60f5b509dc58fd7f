"""The known faults of the product, each with a plan that shows it."""

from __future__ import annotations

from scheduler.model import QueueTerms, Target
from tests.simulation import known_core, known_identity, known_set_back
from tests.simulation.acts import Drain, Submit
from tests.simulation.faults.network import Storm
from tests.simulation.faults.processes import KillScheduler, StopWorker
from tests.simulation.faults.store import StoreFails
from tests.simulation.follow import Read
from tests.simulation.judge import Violation
from tests.simulation.known import Known
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.plan import Plan, PlannedWorker
from tests.simulation.rules.output import BEGUN_UNHEARD

ANY = Target(selector={})

READS = tuple(Read(10.0 + tenths / 10, 0, 40) for tenths in range(40))


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

_OUTPUT = (
    Known(
        name="the output of a job whose start was not answered",
        why=(
            "A job that left the queue is `starting` until its worker has answered, for 10 s at most. It runs "
            "meanwhile, and whoever reads its output without following it is told that there is none."
        ),
        rules=("P3 there", "P3 as written"),
        causes=(),
        looks_right=lambda violation, plan: violation.what.endswith(BEGUN_UNHEARD),
        plan=Plan(
            length=40.0,
            workers=(PlannedWorker("w1", 4),),
            faults=(Storm(15.0, 15.0, slow=1.0, slowest=1.0, lost_requests=0.0, lost_answers=0.0),),
            acts=(
                *(Submit(9.0, f"t{number}", JobPlan(11.0, 0, 0), ANY) for number in range(4)),
                *(
                    Submit(10.0, f"t{number}", JobPlan(6.0, 0, 600), ANY, QueueTerms(60.0), then=READS)
                    for number in range(4, 8)
                ),
            ),
        ),
    ),
)

KNOWN: tuple[Known, ...] = (*_DURABILITY, *_OUTPUT, *known_core.KNOWN, *known_identity.KNOWN, *known_set_back.KNOWN)
