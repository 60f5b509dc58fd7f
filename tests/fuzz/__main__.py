"""``python -m tests.fuzz``: sends random hostile input to real daemons, and prints what it tried and found.

The exit status is 1 if a promise was broken. ``--seed`` repeats a run; with ``--only`` and ``--case`` one case of it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

from attrs import define, field

from tests.faults.daemons import Broken
from tests.fuzz.generators import Generator, all_generators
from tests.fuzz.target import Target
from tests.processes import become_subreaper, end_children

#: Findings of one generator that are printed; further ones are counted.
PRINTED_MAX = 5

#: Seconds of cases of one generator between two checks.
ROUND_SECONDS = 5.0


@define
class Tried:
    """The cases of one generator: their number, how often each outcome came, and the findings."""

    generator: Generator
    cases: int = 0
    outcomes: Counter[str] = field(factory=Counter)
    findings: list[str] = field(factory=list)


class Run:
    """A run of all chosen generators against one target."""

    def __init__(self, target: Target, options: argparse.Namespace) -> None:
        self._target = target
        self._seed: int = options.seed
        chosen = [each for each in all_generators(target) if options.only in (None, each.name)]
        self.tried = [Tried(generator, options.case) for generator in chosen]
        self._first: int = options.case

    def go(self, seconds: float) -> None:
        """Send cases for so many seconds, or one of each generator for 0."""
        deadline = time.monotonic() + seconds
        while True:
            for tried in self.tried:
                self._round(tried, max(0.0, min(ROUND_SECONDS, deadline - time.monotonic())))
            if time.monotonic() >= deadline or not all(daemon.alive() for daemon in self._target.cluster.daemons):
                return

    def _round(self, tried: Tried, seconds: float) -> None:
        first, end = tried.cases, time.monotonic() + seconds
        while True:
            number, tried.cases = tried.cases, tried.cases + 1
            outcome = tried.generator.run(Random(f"{self._seed} {tried.generator.name} {number}"))
            tried.outcomes[outcome.kind] += 1
            if outcome.fault:
                self._found(tried, outcome.fault, f"--case {number} --seconds 0")
            if time.monotonic() >= end:
                break
        for fault in self._target.check():
            self._found(tried, fault, f"--case {first} --seconds {seconds:.0f}")
        self._target.tidy()

    def finish(self) -> None:
        """Demand that the daemons come to rest, and still run a job."""
        if not self.tried:
            return
        for fault in (*self._target.rest(), *self._target.check()):
            self._found(self.tried[0], f"at the end: {fault}", "")
        try:
            self._target.run_job()
        except Exception as error:
            self._found(self.tried[0], f"at the end: {error!r}", "")

    def _found(self, tried: Tried, fault: str, cases: str) -> None:
        """Note and print a finding; ``cases`` are the options that repeat only its cases."""
        only = f' --only "{tried.generator.name}" {cases}' if cases else ""
        tried.findings.append(fault)
        if len(tried.findings) > PRINTED_MAX:
            return
        print(
            f"\nFOUND by {tried.generator.name}: {fault}\nagain: python -m tests.fuzz --seed {self._seed}{only}\n",
            flush=True,
        )

    def table(self) -> str:
        """A row for each generator."""
        lines = ["| generator | cases | outcomes | findings |", "| --- | --- | --- | --- |"]
        for tried in self.tried:
            outcomes = ", ".join(f"{kind} {count}" for kind, count in tried.outcomes.most_common())
            lines.append(
                f"| {tried.generator.name} | {tried.cases - self._first} | {outcomes} | {len(tried.findings)} |"
            )
        return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="for which cases are sent (300)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of everything that is random")
    parser.add_argument("--only", metavar="GENERATOR", help="one generator")
    parser.add_argument("--case", type=int, default=0, help="the first case (0)")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="scheduler-fuzz-"))
    print(f"seed {options.seed}; folder {folder}", flush=True)
    become_subreaper()
    target, began = Target(folder), time.monotonic()
    try:
        target.start()
        print(f"before: {target.usage()}", flush=True)
        run = Run(target, options)
        if not run.tried:
            parser.error(f"no such generator; there are: {', '.join(each.name for each in all_generators(target))}")
        run.go(options.seconds)
        run.finish()
        print(f"after: {target.usage()}")
    except Broken as problem:
        print(f"the daemons do not start: {problem}")
        return 1
    finally:
        end_children()
    findings = sum(len(tried.findings) for tried in run.tried)
    print(f"\n{run.table()}\n\nseed {options.seed}: {time.monotonic() - began:.0f} s, {findings} findings")
    if not findings:
        shutil.rmtree(folder)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
