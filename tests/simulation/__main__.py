"""``python -m tests.simulation``: runs seeds and prints the findings; exit status 1 on any new violation."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from attrs import evolve
from twisted.logger import globalLogBeginner

from tests.simulation.known_faults import KNOWN
from tests.simulation.profiles import PROFILES, make_plan
from tests.simulation.rounds import Rounds, run_rounds
from tests.simulation.search import Scope, search
from tests.simulation.selection import ALL, parse
from tests.simulation.summary import Summary, record
from tests.simulation.world import World

#: The seeds of each profile that are run by default.
FIRST, LAST = 1, 20

#: The whole scope: all known faults and all profiles.
SCOPE = Scope(KNOWN, tuple(PROFILES), make_plan)


def main(arguments: Sequence[str] | None = None, scope: Scope = SCOPE) -> int:
    """Run the command line, and return the exit status."""
    options = _options(arguments, scope)
    if options.seed is not None:
        return _one(options, scope)
    return _many(options, evolve(scope, profiles=tuple(options.profile or scope.profiles)))


def _options(arguments: Sequence[str] | None, scope: Scope) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--profile", choices=scope.profiles, action="append", help="instead of every profile")
    parser.add_argument("--seeds", metavar="FIRST-LAST", help=f"run at least these ({FIRST}-{LAST})")
    parser.add_argument("--seconds", type=float, default=0.0, help="go on with the next seeds for so long in all (0)")
    parser.add_argument("--fresh", action="store_true", help=f"begin with new seeds: {LAST} of each profile at least")
    parser.add_argument("--processes", type=int, default=1, help="that run seeds (1)")
    parser.add_argument("--digests", action="store_true", help="print what the trace of each run comes to")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the figures into that document")
    parser.add_argument("--seed", type=int, help="run one, of one profile, and show what happened")
    parser.add_argument("--keep", metavar="NAMES", help="with --seed: leave out all other parts of the plan")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME.FIELD=VALUE", help="with --seed: change values")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every line of the trace")
    options = parser.parse_args(arguments)
    if options.seed is not None and len(options.profile or ()) != 1:
        parser.error("--seed needs one --profile")
    if options.seed is None and (options.keep is not None or options.set or options.trace):
        parser.error("--keep, --set and --trace need --seed")
    if options.fresh and options.seeds:
        parser.error("--fresh chooses the seeds: leave out --seeds")
    try:
        options.selection = parse(options.keep, options.set)
        if options.seed is not None:
            options.selection.of(scope.make(options.seed, options.profile[0]))
        options.first, options.last = _range(options.seeds, options.fresh)
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    return options


def _range(seeds: str | None, fresh: bool) -> tuple[int, int]:
    """The seeds that are run in any case. Fresh ones begin with the time, far from those of the tests."""
    if fresh:
        now = int(time.time())
        return now, now + LAST - FIRST
    if seeds is None:
        return FIRST, LAST
    first, _, last = seeds.partition("-")
    return int(first), int(last or first)


def _one(options: argparse.Namespace, scope: Scope) -> int:
    """Run one seed, and print its result."""
    (profile,) = options.profile
    seed, selection = options.seed, options.selection
    result = search(scope, profile, seed, selection, shrunk=selection == ALL)
    if options.trace:
        print("\n".join(World(seed, selection.of(scope.make(seed, profile))).run().trace.lines()), end="\n\n")
    for finding in result.findings:
        print(f"known: {finding.known}\n{finding.report}" if finding.known else finding.report, end="\n\n")
    print(f"{result.jobs} jobs, {result.events} events, {len(result.findings)} violations; digest {result.digest}")
    return 1 if any(not finding.known for finding in result.findings) else 0


def _many(options: argparse.Namespace, scope: Scope) -> int:
    """Run seeds, and then each known fault, to see whether it still occurs."""
    began = time.monotonic()
    until = began + options.seconds
    print(f"seeds from {options.first}, profiles {', '.join(scope.profiles)}", flush=True)
    rounds = Rounds(options.first, options.last, lambda: time.monotonic() < until)
    summary, last = Summary(), options.first
    for result in run_rounds(scope, rounds, options.processes):
        summary.add(result)
        last = result.seed
        if options.digests:
            print(f"{result.profile} {result.seed} {result.digest}")
        for finding in result.findings:
            if not finding.known:
                print(f"\n{result.profile}, seed {result.seed}: {finding.report}\n", flush=True)
    gone = [known for known in scope.known if not known.occurs()]
    for known in gone:
        print(f"{known.name!r} no longer occurs: take it off the list of known faults", flush=True)
    took = f"seeds {options.first} to {last} of each profile, {time.monotonic() - began:.0f} s"
    print(f"\n{summary.markdown()}\n\n{took}")
    if options.record is not None:
        record(options.record, f"{datetime.now(UTC).date()}: {took}.\n\n{summary.markdown()}")
    return 1 if summary.total.new or gone else 0


if __name__ == "__main__":
    # Rules judge the log. Twisted would otherwise print it, too.
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    sys.exit(main())
