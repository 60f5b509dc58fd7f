"""The known faults of the product, each with a plan that shows it."""

from __future__ import annotations

from scheduler.model import QueueTerms, Target
from scheduler.worker.endings import WORKER_ENDED
from tests.simulation import known_core, known_identity, known_set_back
from tests.simulation.acts import Drain, Submit
from tests.simulation.faults.network import Partition, Storm
from tests.simulation.faults.processes import KillWorker, StopWorker
from tests.simulation.follow import Follow, Read
from tests.simulation.judge import Violation
from tests.simulation.known import Known
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.plan import Fault, Plan, PlannedWorker
from tests.simulation.rules.output import BEGUN_UNHEARD, NEVER_BEGAN
from tests.simulation.steps import Step, Stop

ANY = Target(selector={})

#: Every message takes up to a second.
SLOW = Storm(15.0, 15.0, slow=1.0, slowest=1.0, lost_requests=0.0, lost_answers=0.0)

#: Some messages take up to three seconds, most of them no time.
UNEVEN = Storm(15.0, 15.0, slow=0.3, slowest=3.0, lost_requests=0.0, lost_answers=0.0)


def _had_written(violation: Violation, plan: Plan) -> bool:
    return violation.what.endswith(BEGUN_UNHEARD) and not _not_found(violation, plan)


def _not_found(violation: Violation, plan: Plan) -> bool:
    return violation.what.endswith(f" not found, {BEGUN_UNHEARD}")


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

_OUTPUT = (
    Known(
        name="the output of a job whose start was not answered",
        why=(
            "A job that left the queue is `starting` until its worker has answered, for 10 s at most. It runs "
            "meanwhile, and whoever reads its output without following it is told that there is none."
        ),
        rules=("P3 there", "P3 as written"),
        causes=(),
        looks_right=_had_written,
        plan=_queued(6.0, 600, *(Read(10.0 + tenths / 10, 0, 40) for tenths in range(40))),
    ),
    Known(
        name="the output of a job that was looked for before it began",
        why=(
            "A client begins to follow a job while it is `starting`. Its worker is asked for the output, and has no "
            "such job yet. Where this answer comes after the end of the job it is taken for the last word: the client "
            "is told that there is no output."
        ),
        rules=("P3 there",),
        causes=(),
        looks_right=_not_found,
        plan=_queued(
            0.05, 8, Follow(0.5), *(Follow(10.0 + tenths / 10, begin=2) for tenths in range(40)), faults=(UNEVEN,)
        ),
    ),
    Known(
        name="the output of a job that was stopped before it began",
        why=(
            "A job is stopped while it is `starting`, and its start never left. Later that worker is asked for its "
            "output, and has no such job: a client that follows is told that there is none, where the output of a job "
            "that failed before it began is empty."
        ),
        rules=("P3 there",),
        causes=(),
        looks_right=lambda violation, plan: violation.what.endswith(NEVER_BEGAN),
        plan=Plan(
            length=40.0,
            workers=(PlannedWorker("w1"), PlannedWorker("w2")),
            faults=(Partition(10.0, "w1", 15.0, True, True), Partition(10.0, "w2", 15.0, True, True)),
            acts=(Submit(11.0, "t1", JobPlan(1.0, 0, 0), ANY, QueueTerms(60.0), then=(Stop(1.0), Follow(20.0))),),
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
    *_OUTPUT,
    *_STARTS,
    *known_core.KNOWN,
    *known_identity.KNOWN,
    *known_set_back.KNOWN,
)
