"""The known faults of who a worker is, and of addresses, each with a plan that shows it."""

from __future__ import annotations

from tests.simulation.faults.addresses import NewAddress
from tests.simulation.known_parts import Entry, a_plan, known, says

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
        "another address while it runs",
        "The address is derived when a worker registers. A worker whose machine gets another one is heard from there "
        "and called at the old one for ever.",
        AGREEMENT,
        (("NewAddress", "TakeAddress", "SwapAddresses"),),
        UNREACHABLE,
        a_plan((NewAddress(10.0, "w1"),)),
    ),
)

KNOWN = known(ENTRIES)
