"""The known faults of who a worker is, and of addresses, each with a plan that shows it."""

from __future__ import annotations

from tests.simulation.acts import Drain
from tests.simulation.faults.addresses import NewAddress, RestartElsewhere, SwapAddresses, TakeAddress
from tests.simulation.faults.identity import CloneFolder, LoseFolder, RegistrationUnanswered, RestoreDatabase, SameName
from tests.simulation.faults.network import Partition, Storm
from tests.simulation.faults.processes import Freeze, KillScheduler
from tests.simulation.faults.store import StoreFails
from tests.simulation.known_parts import TWO, Entry, a_plan, following, job, known, says

AGREEMENT, CALL, ENTRY, NAME, LOST, OUTPUT, OUTPUT_END, DRAIN = (
    "P5 agreement",
    "a call reaches its worker",
    "one entry for each worker",
    "one worker for each name",
    "lost only if destroyed",
    "P3 there",
    "P3 end",
    "a drain stays",
)

UNREACHABLE = says(" unreachable']")
ELSEWHERE = says("and is known at")

ENTRIES: tuple[Entry, ...] = (
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
        "The same: one worker has two entries, or its name is taken by the one that it does not know.",
        (ENTRY, NAME, AGREEMENT),
        (
            ("RegistrationUnanswered", "Partition", "Storm"),
            ("RestartElsewhere", "NewAddress", "TakeAddress", "SwapAddresses", "RestoreDatabase", "Failover"),
        ),
        says("and those given to its folder are", "are both online as", " () is not known"),
        a_plan((RegistrationUnanswered(0.0, "w1", 5.0), RestartElsewhere(6.0, "w1", 0.5, port=True))),
    ),
    (
        "three registrations at once",
        "They were sent one after the other, as none was answered, and wait at once. The second and the third find the "
        "entry of the first, and displace it; neither finds the other, and both entries stay.",
        (NAME, ENTRY),
        (("Freeze", "StoreStalls", "StoreFails", "Storm"),),
        says("are both online as", "and those given to its folder are"),
        a_plan((Freeze(0.05, "", 25.0),)),
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
        "a name that the backup does not know",
        "A worker has another name than in the backup, and nothing in its heartbeats says so. Who has that name now "
        "is refused for ever.",
        (AGREEMENT, ENTRY),
        (("SameName",), ("RestoreDatabase", "Failover")),
        says(" is not known", " unreachable']", "is known as"),
        a_plan((Partition(0.0, "w1", 26.0, True, True), SameName(4.0, "w1", 17.0), RestoreDatabase(20.4, 5.0, 1.0))),
    ),
    (
        "a registration that arrives late: entries",
        "It has no id, as the worker had none yet, and displaces the entry of the worker's next try. When the worker "
        "comes back with the id of that, the late entry stays, with all jobs that were started on it meanwhile. "
        "Until it does, the worker is not known under the id that it has.",
        (ENTRY, AGREEMENT),
        (("Storm",),),
        says("and those given to its folder are", "and nobody acknowledges", ") is not known"),
        a_plan((Storm(0.1, 0.5, 1.0, 30.0, 0.0, 0.0),)),
    ),
    (
        "a newcomer at the address of a worker: drain",
        "It has no id. The worker that had the address is forgotten, and with it that it was drained.",
        DRAIN,
        (("LoseFolder",), ("TakeAddress", "SwapAddresses")),
        says("and is not any more"),
        a_plan(
            (LoseFolder(10.0, "w1", 45.0, move=False), TakeAddress(40.0, "w2", "w1", 20.0, restart=False)),
            (Drain(5.0, "w2"),),
            TWO,
        ),
    ),
    (
        "a newcomer at the address of a live worker: calls",
        "A start is on its way to a worker whose machine is set up anew. The new worker there takes it.",
        CALL,
        (("LoseFolder",),),
        says("is taken by another one"),
        a_plan(
            (LoseFolder(10.0, "w1", 1.0, move=False),),
            tuple(job(10.98 + 0.001 * number, 5.0, f"t{number}") for number in range(30)),
        ),
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
        (("SameName", "LoseFolder"),),
        says("are both online as"),
        a_plan((Partition(10.0, "w1", 40.0, True, True), SameName(45.0, "w1", 30.0))),
    ),
)

KNOWN = known(ENTRIES)
