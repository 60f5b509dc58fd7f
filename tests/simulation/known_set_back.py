"""The known faults of databases that were set back, each with a plan that shows it."""

from __future__ import annotations

from attrs import evolve

from scheduler.model import QueueTerms, Target
from tests.simulation.acts import Drain, Submit
from tests.simulation.faults.identity import Failover, RestoreDatabase
from tests.simulation.faults.processes import KillScheduler, KillWorker
from tests.simulation.known_parts import TWO, Entry, a_plan, job, known, retried, says
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.steps import Remove

CODE, OUTPUT, DRAIN, REMOVAL, FINAL, KEPT, STORED, STOP, TWICE, KEY, TRACEBACK, INDICES, TRUE, AGREEMENT = (
    "the code it had",
    "P3 there",
    "a drain stays",
    "a removal holds",
    "a final state stays",
    "P1 kept",
    "shown is stored",
    "a stop is kept",
    "P2 one run",
    "one job for each key",
    "no traceback",
    "indices",
    "P4 true",
    "P5 agreement",
)

#: Each sets a database back.
SET_BACK = ("RestoreDatabase", "Failover")

ENTRIES: tuple[Entry, ...] = (
    (
        "a database set back: jobs that ended",
        "Jobs that ended and were acknowledged since are in spools alone, and nobody asks for these.",
        (KEPT, OUTPUT, STORED, STOP),
        (SET_BACK,),
        says("is not there any more", " not found", "and is gone"),
        a_plan((RestoreDatabase(10.0, 10.0, 1.0),), (job(12.0, 2.0),)),
    ),
    (
        "a database set back: ends",
        "The same over a standby that was behind: rows without a spec are dropped, older rows count.",
        FINAL,
        (SET_BACK,),
        says("and is"),
        a_plan((Failover(10.0, 10.0), KillScheduler(40.0, 1.0)), (job(8.0, 5.0),)),
    ),
    (
        "a database set back: drains",
        "A standby that was behind does not know of a drain, and the scheduler does not save it again.",
        DRAIN,
        (("Failover",),),
        says("and is not any more"),
        a_plan((Failover(10.0, 10.0), KillScheduler(40.0, 1.0)), (Drain(12.0, "w1"),)),
    ),
    (
        "a database set back: removals",
        "The same of a removal: the job is there again, and its output is not.",
        REMOVAL,
        (("Failover",),),
        says("was removed, and is there"),
        a_plan(
            (Failover(10.0, 5.0), KillScheduler(40.0, 1.0)),
            (evolve(job(5.0, 1.0), then=(Remove(6.0),)),),
        ),
    ),
    (
        "a database set back: attempts",
        "The next attempt of a job has an id that follows from the job's. Where it began after the backup, its worker "
        "reports it, and asking about the job before it makes it again, as queued and new: an error in the middle of "
        "either, or a list that is not in order any more.",
        (TRACEBACK, INDICES),
        (SET_BACK,),
        says("may not become", "not listed newest first"),
        a_plan((RestoreDatabase(9.9, 3.4, 1.0),), (retried(9.8, 2.0),)),
    ),
    (
        "a database set back: runs again",
        "A job that is queued in the backup, and ran since, is started on another worker, or has failed when "
        "its time is over. Its key starts another job, as its worker does not know it.",
        (TWICE, KEY, CODE, TRUE, AGREEMENT),
        (SET_BACK,),
        says(
            "runs for the 2. time",
            "one request came to the jobs",
            "a key came with another body",
            "it says no exit code (",
            "it still runs",
            "and nobody acknowledges",
        ),
        a_plan(
            (RestoreDatabase(10.0, 40.0, 1.0), KillWorker(45.0, "w1", 30.0)),
            (
                job(4.0, 20.0),
                job(4.0, 40.0, "t1", "w2"),
                Submit(5.0, "t2", JobPlan(5.0, 0, 0), Target(selector={}), QueueTerms(queue_timeout=600.0)),
            ),
            TWO,
        ),
    ),
)

KNOWN = known(ENTRIES)
