"""Prove that the simulator finds mutations: ``python -m tests.simulation.mutations [NAME...]``.

Each mutation is searched for in the seeds of its profile, from 1 on. ``--recorded`` tries only the seed that the last
``--record`` stored, which takes seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence

from tests.simulation.mutations.mutation import Mutation, Outdated
from tests.simulation.mutations.search import MOST_SEEDS, RECORDED, find_all
from tests.simulation.mutations.table import MUTATIONS


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.simulation.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a mutation; all, where none is given")
    parser.add_argument("--seeds", type=int, default=MOST_SEEDS, metavar="N", help="look in the first N seeds")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--list", action="store_true", help="say what each of them breaks")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--recorded", action="store_true", help="try only the recorded seeds")
    how.add_argument("--record", action="store_true", help="keep the seeds that are found")
    arguments = parser.parse_args(argv)
    known = {mutation.name: mutation for mutation in MUTATIONS}
    if strange := [name for name in arguments.names if name not in known]:
        parser.error(f"no mutation of the name {strange[0]!r}; there are {', '.join(known)}")
    chosen = [known[name] for name in arguments.names] or list(MUTATIONS)
    if arguments.list:
        for mutation in chosen:
            print(f"{mutation.name}: {mutation.promise}")
        return 0
    if outdated := [text for text in map(_outdated, chosen) if text]:
        print("\n".join(outdated))
        return 1
    recorded: dict[str, int] = json.loads(RECORDED.read_text())
    if arguments.recorded:
        wanted: list[tuple[Mutation, Iterable[int]]] = [(each, _recorded(recorded, each)) for each in chosen]
    else:
        wanted = [(each, range(1, arguments.seeds + 1)) for each in chosen]
    began, missed = time.perf_counter(), 0
    for (mutation, _), result in zip(wanted, find_all(wanted, arguments.processes), strict=True):
        shown = f"{mutation.name:<54} {mutation.profile:<10}"
        if result.seed is None:
            missed += 1
            others = ", ".join(f"{rule!r} in seed {seed}" for rule, seed in result.others.items())
            print(f"{shown} NOT FOUND{f', but {others}' if others else ''}: {mutation.promise}", flush=True)
        else:
            recorded[mutation.name] = result.seed
            print(f"{shown} seed {result.seed:>3}  {result.rule}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} mutations found in {time.perf_counter() - began:.0f} s")
    if missed and arguments.recorded:
        print("A seed finds something else when plans change: search again with --record.")
    if arguments.record:
        kept = {name: recorded[name] for name in known if name in recorded}
        RECORDED.write_text(json.dumps(kept, indent=2) + "\n")
    return 1 if missed else 0


def _outdated(mutation: Mutation) -> str:
    """Why the mutation does not fit the code; ``""``: it fits."""
    try:
        mutation.source()
    except Outdated as error:
        return str(error)
    return ""


def _recorded(recorded: dict[str, int], mutation: Mutation) -> list[int]:
    return [recorded[mutation.name]] if mutation.name in recorded else []


if __name__ == "__main__":
    sys.exit(main())
