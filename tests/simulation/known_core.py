"""The known faults of core workers, each with a plan that shows it."""

from __future__ import annotations

import re

from scheduler.model import QueueTerms, Target, WorkerState
from tests.simulation.acts import Submit
from tests.simulation.faults.network import Storm
from tests.simulation.faults.processes import Freeze, KillScheduler, KillWorker
from tests.simulation.faults.store import StoreStalls
from tests.simulation.judge import Violation
from tests.simulation.known import Known
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.plan import Act, Fault, Plan, PlannedCoreWorker, PlannedWorker
from tests.simulation.rules.core import AGAIN
from tests.simulation.steps import Stop

#: Why a core worker registers once more: it is started anew, or an answer did not come in time.
STARTED_ANEW = ("KillWorker", "StopWorker", "Reboot")
UNANSWERED = ("Storm", "Partition", "Freeze", "StoreStalls", "KillScheduler", "StopScheduler")


def _displaced(violation: Violation, plan: Plan) -> bool:
    return f"(forgotten), and its worker {AGAIN}" in violation.what


def _other_entries(violation: Violation, plan: Plan) -> bool:
    """There are entries at its address, all online, and it does not have the id of one that is the only one."""
    (held,) = re.findall(r"\((\w+)\) is", violation.what)
    entries = re.findall(r"'(\w+) (\w+)'", violation.what)
    online = all(state == WorkerState.ONLINE.value for _, state in entries)
    return bool(entries) and online and entries != [(held, WorkerState.ONLINE.value)]


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
        name="a core worker registers again: lost",
        why=(
            "A core worker registers without an id each time that it starts, and when it had no answer. The entry "
            "at its address is displaced, and all jobs of it are lost, though they run, or ended there."
        ),
        rules=("core jobs are kept",),
        causes=((*STARTED_ANEW, *UNANSWERED),),
        looks_right=_displaced,
        plan=_a_plan((KillWorker(15.0, "c1", 1.0),), (Submit(9.0, "t1", JobPlan(30.0, 0, 0), Target(worker="c1")),)),
    ),
    Known(
        name="a core worker registers again: entries",
        why=(
            "Two registrations from one address wait at once, as the scheduler was frozen or the store stalls. Each "
            "looks for entries at its address before that of the other is there: both stay, and both are online. "
            "Where the first one comes after the second it displaces that, and the worker has an id that is gone. So "
            "it has where the database was set back to an entry from before it registered again."
        ),
        rules=("core workers stay",),
        causes=(("Freeze", "StoreStalls", "Storm", "RestoreDatabase", "Failover"),),
        looks_right=_other_entries,
        plan=_a_plan((Freeze(10.0, "", 10.0), KillWorker(11.0, "c1", 1.0), KillWorker(15.0, "c1", 1.0))),
    ),
    Known(
        name="a stop of a core job that was not saved",
        why=(
            "While the store fails a job can be stopped all the same. Where the scheduler is killed before the stop is "
            "saved, nothing tells any more that it was asked for: a core worker says only that the job was ended by a "
            "signal, and it has failed."
        ),
        rules=("checker P4",),
        causes=(("StoreFails", "StoreStalls"), ("KillScheduler", "StopScheduler")),
        looks_right=lambda violation, plan: violation.what.startswith("ended by SIGTERM, and nobody sent that"),
        plan=_a_plan(
            (StoreStalls(15.0, 10.0), KillScheduler(23.0, 1.0)),
            (Submit(9.0, "t1", JobPlan(30.0, 0, 0), Target(worker="c1"), terms=QueueTerms(unattended_timeout=8.0)),),
        ),
    ),
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
