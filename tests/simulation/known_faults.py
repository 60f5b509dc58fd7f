"""The known faults of the product, each with a plan that shows it."""

from __future__ import annotations

from scheduler.model import QueueTerms, Target
from scheduler.worker.endings import WORKER_ENDED
from tests.simulation import known_identity, known_set_back
from tests.simulation.acts import Drain, Submit
from tests.simulation.faults.network import Storm
from tests.simulation.faults.processes import KillWorker, StopWorker
from tests.simulation.known import Known
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.plan import Fault, Plan, PlannedWorker
from tests.simulation.steps import Step

ANY = Target(selector={})

#: Every message takes up to a second.
SLOW = Storm(15.0, 15.0, slow=1.0, slowest=1.0, lost_requests=0.0, lost_answers=0.0)


def _queued(seconds: float, lines: int, *then: Step, faults: tuple[Fault, ...] = (SLOW,)) -> Plan:
    """Four jobs by selector that run from 9 s to 20 s, and four that wait for them."""
    return Plan(
        length=40.0,
        workers=(PlannedWorker("w1", 4),),
        faults=faults,
        acts=(
            *(Submit(9.0, f"t{number}", JobPlan(11.0, 0, 0), ANY) for number in range(4)),
            *(
                Submit(10.0, f"t{number}", JobPlan(seconds, 0, lines), ANY, QueueTerms(60.0), then=then)
                for number in range(4, 8)
            ),
        ),
        slow=0.0,
    )


_DURABILITY = (
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

_STARTS = (
    Known(
        name="a job that its worker did not begin",
        why=(
            "The worker of a queued job is killed between making its folder and beginning it. The job has failed, "
            "`not started: the worker ended first`, where it could be started again."
        ),
        rules=("P1 runs",),
        causes=(("KillWorker", "StopWorker", "RestartElsewhere", "TakeAddress"),),
        looks_right=lambda violation, plan: violation.what.endswith(f": {WORKER_ENDED}"),
        plan=_queued(1.0, 0, faults=tuple(KillWorker(20.015 + n / 50, "w1", down=0.0) for n in range(10))),
    ),
)

KNOWN: tuple[Known, ...] = (
    *_DURABILITY,
    *_STARTS,
    *known_identity.KNOWN,
    *known_set_back.KNOWN,
)
