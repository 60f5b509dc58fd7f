"""The known faults of who a worker is, of addresses, and of a database that was set back, each with a plan."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve

from scheduler.model import QueueTerms, Retry, Target
from tests.simulation.acts import Drain, Submit
from tests.simulation.faults.addresses import NewAddress, RestartElsewhere, SwapAddresses
from tests.simulation.faults.identity import (
    CloneFolder,
    Failover,
    LoseFolder,
    RegistrationUnanswered,
    RestoreDatabase,
    SameName,
)
from tests.simulation.faults.network import Partition, Storm
from tests.simulation.faults.processes import KillScheduler, KillWorker
from tests.simulation.faults.store import StoreFails
from tests.simulation.follow import Follow
from tests.simulation.judge import Violation
from tests.simulation.known import Known
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.plan import Act, Fault, Plan, PlannedWorker
from tests.simulation.steps import Query

AGREEMENT, CALL, ENTRY, NAME = (
    "P5 agreement",
    "a call reaches its worker",
    "one entry for each worker",
    "one worker for each name",
)
TRACEBACK, LOST, CODE, OUTPUT_END, OUTPUT, DRAIN, FINAL, KEPT, TWICE, KEY = (
    "no traceback",
    "lost only if destroyed",
    "the code it had",
    "P3 end",
    "P3 there",
    "a drain stays",
    "a final state stays",
    "P1 kept",
    "P2 one run",
    "one job for each key",
)


def says(*texts: str) -> Callable[[Violation, Plan], bool]:
    """Whether the violation says one of these."""
    return lambda violation, plan: any(text in violation.what for text in texts)


def job(at: float, seconds: float, ticket: str = "t0", worker: str = "w1", query_after: float | None = None) -> Submit:
    """For that worker, now or never."""
    then = () if query_after is None else (Query(query_after),)
    return Submit(at, ticket, JobPlan(seconds, 0, 0), Target(worker=worker), then=then)


def following(at: float, seconds: float, after: float) -> Submit:
    """The same; a client follows its output from ``after`` seconds after the answer."""
    return evolve(job(at, seconds), job=JobPlan(seconds, 0, 5), then=(Follow(after),))


def retried(at: float, seconds: float) -> Submit:
    """The same; it fails, and is retried twice at once."""
    return evolve(
        job(at, seconds), job=JobPlan(seconds, 1, 0), terms=QueueTerms(queue_timeout=60.0, retry=Retry(2, 0.0))
    )


def a_plan(faults: tuple[Fault, ...], acts: tuple[Act, ...] = (), workers: tuple[str, ...] = ("w1",)) -> Plan:
    """Of workers with one slot each, in good weather."""
    return Plan(80.0, tuple(PlannedWorker(name, 1) for name in workers), faults, acts, slow=0.0)


UNREACHABLE = says(" unreachable']")
ELSEWHERE = says("and is known at")
TWO = ("w1", "w2")

#: (name, why, rule, causes, looks_right, plan)
ENTRIES = (
    (
        "a move that was not saved",
        "A registration is answered although its save failed. A scheduler that starts with the older record accepts "
        "the heartbeats, as they carry an id only, and calls the worker at its old address for ever.",
        AGREEMENT,
        (("StoreFails", "StoreStalls"), ("RestartElsewhere", "TakeAddress"), ("KillScheduler", "StopScheduler")),
        UNREACHABLE,
        a_plan(
            (StoreFails(10.0, 5.0, 1.0, 0.0), RestartElsewhere(10.5, "w1", 1.0, port=True), KillScheduler(13.0, 1.0))
        ),
    ),
    (
        "a move that the backup does not know",
        "The same with a restored backup, or a standby that was behind.",
        AGREEMENT,
        (("RestoreDatabase", "Failover"), ("RestartElsewhere", "TakeAddress")),
        UNREACHABLE,
        a_plan((RestoreDatabase(10.0, 5.0, 1.0), RestartElsewhere(12.0, "w1", 1.0, port=True))),
    ),
    (
        "a registration that is sent again",
        "The answer to the first registration is lost. The worker sends it again, without an id, from the same "
        "address; the entry that it made is displaced, and all jobs started on it meanwhile are lost, though they run.",
        LOST,
        (("RegistrationUnanswered", "Partition", "Storm"),),
        says("nothing destroyed it (forgotten)"),
        a_plan((RegistrationUnanswered(0.0, "w1", 5.0),), (job(2.0, 30.0),)),
    ),
    (
        "a registration that is sent again, drained",
        "The same: the second entry does not know that the first was drained.",
        DRAIN,
        (("RegistrationUnanswered", "Partition", "Storm"),),
        says("was drained as"),
        a_plan((RegistrationUnanswered(0.0, "w1", 5.0),), (Drain(2.0, "w1"),)),
    ),
    (
        "a registration that is sent again from elsewhere: reports",
        "The answer to the first registration is lost, and the worker is started again at another address. It "
        "registers as another worker; the entry that has its jobs stays for ever, so its reports of them are ignored.",
        AGREEMENT,
        (
            ("RegistrationUnanswered", "Partition", "Storm"),
            ("RestartElsewhere", "NewAddress", "TakeAddress", "SwapAddresses", "RestoreDatabase", "Failover"),
        ),
        says("nobody acknowledges", "is unknown"),
        a_plan(
            (RegistrationUnanswered(0.0, "w1", 5.0), RestartElsewhere(6.0, "w1", 0.5, port=True)), (job(2.0, 10.0),)
        ),
    ),
    (
        "a registration that is sent again from elsewhere: entries",
        "The same: one worker has two entries.",
        (ENTRY, NAME),
        (
            ("RegistrationUnanswered", "Partition", "Storm"),
            ("RestartElsewhere", "NewAddress", "TakeAddress", "SwapAddresses", "RestoreDatabase", "Failover"),
        ),
        says("and those given to its folder are", "are both online as"),
        a_plan((RegistrationUnanswered(0.0, "w1", 5.0), RestartElsewhere(6.0, "w1", 0.5, port=True))),
    ),
    (
        "swapped addresses: lost",
        "Heartbeats carry no address that is compared, so both entries keep theirs. A query for a job of one worker is "
        "answered by the other one, which has no record of it.",
        LOST,
        (("SwapAddresses", "TakeAddress"),),
        says("nothing destroyed it (no record)"),
        a_plan((SwapAddresses(10.0, "w1", "w2"),), (job(5.0, 30.0, query_after=6.0),), TWO),
    ),
    (
        "swapped addresses: calls",
        "The same: the other worker runs what was meant for this one.",
        CALL,
        (("SwapAddresses", "TakeAddress"),),
        says("is taken by another one"),
        a_plan((SwapAddresses(10.0, "w1", "w2"),), (job(11.0, 5.0),), TWO),
    ),
    (
        "swapped addresses: output",
        "The same: the other worker is asked for the output of a job that it does not have.",
        OUTPUT,
        (("SwapAddresses", "TakeAddress"),),
        says("is refused: output of job"),
        a_plan((SwapAddresses(10.0, "w1", "w2"),), (following(5.0, 30.0, 6.0),), TWO),
    ),
    (
        "swapped addresses: entries",
        "The same: both stay online at the address of the other.",
        ENTRY,
        (("SwapAddresses", "TakeAddress"),),
        ELSEWHERE,
        a_plan((SwapAddresses(10.0, "w1", "w2"),), (), TWO),
    ),
    (
        "a newcomer at the address of a live worker",
        "A worker without an id registers at the address that another one registered at. That one is forgotten "
        "without a question, though its heartbeats arrive, and its jobs are lost, though they run.",
        LOST,
        (("LoseFolder",), ("SwapAddresses", "TakeAddress")),
        says("nothing destroyed it (forgotten)"),
        a_plan((SwapAddresses(10.0, "w1", "w2"), LoseFolder(12.0, "w2", 1.0, move=False)), (job(5.0, 60.0),), TWO),
    ),
    (
        "a registration that arrives late",
        "A registration is on its way while its worker is started again elsewhere, and registers there. The late one "
        "counts: the worker is called where it was, and its heartbeats are accepted.",
        AGREEMENT,
        (("Storm",), ("RestartElsewhere",)),
        UNREACHABLE,
        a_plan(
            (
                Storm(10.0, 1.0, 1.0, 12.0, 0.0, 0.0),
                RestartElsewhere(10.2, "w1", 0.1, port=True),
                RestartElsewhere(12.0, "w1", 0.1, port=True),
            )
        ),
    ),
    (
        "another address while it runs",
        "The address is derived when a worker registers. A worker whose machine gets another one is heard from there "
        "and called at the old one for ever.",
        AGREEMENT,
        (("NewAddress", "TakeAddress", "SwapAddresses"),),
        UNREACHABLE,
        a_plan((NewAddress(10.0, "w1"),)),
    ),
    (
        "a cloned folder: lost",
        "Both register under one id. The copy takes the jobs of the folder for its own, finds that they do not run on "
        "its machine, and reports them as lost, though they run on the other.",
        (LOST, OUTPUT_END),
        (("CloneFolder",),),
        says("nothing destroyed it (rebooted)", "nothing destroyed it (no record)", "end (the job is lost)"),
        a_plan((CloneFolder(10.0, "w1", 5.0),), (job(5.0, 20.0),)),
    ),
    (
        "a cloned folder: calls",
        "The same: who registered last gets the calls.",
        CALL,
        (("CloneFolder",),),
        says("is taken by another one"),
        a_plan((CloneFolder(10.0, "w1", 20.0),), (job(15.0, 5.0),)),
    ),
    (
        "a cloned folder: address",
        "The same: when the copy is gone the entry has its address still.",
        AGREEMENT,
        (("CloneFolder",),),
        UNREACHABLE,
        a_plan((CloneFolder(10.0, "w1", 5.0),)),
    ),
    (
        "two workers with one name",
        "A second worker may take the name of one that is unreachable, which is online again with its next heartbeat.",
        NAME,
        (("SameName",),),
        says("are both online as"),
        a_plan((Partition(10.0, "w1", 40.0, True, True), SameName(45.0, "w1", 30.0))),
    ),
    (
        "a database set back: jobs that ended",
        "Jobs that ended and were acknowledged since are in spools alone, and nobody asks for these.",
        (KEPT, OUTPUT),
        (("RestoreDatabase", "Failover"),),
        says("is not there any more", " not found"),
        a_plan((RestoreDatabase(10.0, 10.0, 1.0),), (job(12.0, 2.0),)),
    ),
    (
        "a database set back: ends",
        "The same over a standby that was behind: rows without a spec are dropped, older rows count.",
        FINAL,
        (("RestoreDatabase", "Failover"),),
        says("and is"),
        a_plan((Failover(10.0, 10.0), KillScheduler(40.0, 1.0)), (job(8.0, 5.0),)),
    ),
    (
        "a database set back: attempts",
        "The next attempt of a job has an id that follows from the job's. Where it began after the backup, its worker "
        "reports it, and asking about the job before it makes it again, as queued: an error in the middle of either.",
        TRACEBACK,
        (("RestoreDatabase", "Failover"),),
        says("may not become"),
        a_plan((RestoreDatabase(9.9, 3.6, 1.0),), (retried(9.8, 2.5),)),
    ),
    (
        "a database set back: runs again",
        "A job that is queued in the backup, and ran since, is started on another worker, or has failed when "
        "its time is over. Its key starts another job, as its worker does not know it.",
        (TWICE, KEY, CODE),
        (("RestoreDatabase", "Failover"),),
        says("runs for the 2. time", "one request came to the jobs", "it says no exit code ("),
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

KNOWN = tuple(
    Known(
        name=name,
        why=why,
        rules=(rule,) if isinstance(rule, str) else rule,
        causes=causes,
        plan=plan,
        looks_right=looks,
    )
    for name, why, rule, causes, looks, plan in ENTRIES
)
