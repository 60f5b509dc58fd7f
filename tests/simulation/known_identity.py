"""The known faults of who a worker is, and of addresses, each with a plan that shows it."""

from __future__ import annotations

from tests.simulation.acts import Drain
from tests.simulation.faults.addresses import NewAddress, RestartElsewhere, SwapAddresses, TakeAddress
from tests.simulation.faults.identity import CloneFolder, LoseFolder, RegistrationUnanswered, SameName
from tests.simulation.faults.network import Partition, Storm
from tests.simulation.faults.processes import Freeze
from tests.simulation.known_parts import TWO, Entry, a_plan, job, known, says

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
        "a newcomer at the address of a live worker",
        "A worker without an id registers at the address that another one registered at. That one is forgotten "
        "without a question, though its heartbeats arrive, and its jobs are lost, though they run.",
        LOST,
        (("LoseFolder",), ("SwapAddresses", "TakeAddress")),
        says("nothing destroyed it (forgotten)"),
        a_plan((SwapAddresses(10.0, "w1", "w2"), LoseFolder(12.0, "w2", 1.0, move=False)), (job(5.0, 60.0),), TWO),
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
