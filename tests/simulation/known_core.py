"""The known faults of core workers, each with a plan that shows it."""

from __future__ import annotations

from scheduler.model import Target
from tests.simulation.acts import Submit
from tests.simulation.faults.network import Storm
from tests.simulation.known import Known
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.plan import Act, Fault, Plan, PlannedCoreWorker, PlannedWorker
from tests.simulation.steps import Stop


def _a_plan(faults: tuple[Fault, ...], acts: tuple[Act, ...] = ()) -> Plan:
    """Of a core worker whose jobs run on when it is killed."""
    return Plan(
        length=60.0,
        workers=(PlannedWorker("w1", 1),),
        faults=faults,
        acts=acts,
        slow=0.0,
        core_workers=(PlannedCoreWorker("c1", jobs_run_on=True),),
    )


KNOWN = (
    Known(
        name="a start that comes late to a core worker",
        why=(
            "A start is not answered, and still on its way when the worker is asked and knows no such job: the job is "
            "lost. An id can't be sealed at a core worker, so the start runs when it comes, and nothing stops it."
        ),
        rules=("a stop holds",),
        causes=(("Storm",),),
        looks_right=lambda violation, plan: "begins on core" in violation.what,
        plan=_a_plan(
            (Storm(8.9, 1.0, 0.6, 30.0, 0.0, 0.0),),
            tuple(
                Submit(9.0 + number / 10, f"t{number}", JobPlan(5.0, 0, 0), Target(worker="c1"), then=(Stop(1.0),))
                for number in range(6)
            ),
        ),
    ),
)
