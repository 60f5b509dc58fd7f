"""Run seeds: ``python -m tests.simulation --profile all --seeds 1-100``; a failing one is shown."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.profiles import PROFILES, make_plan
from tests.simulation.world import World


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--profile", default="all", choices=PROFILES)
    parser.add_argument("--seeds", default="1-20")
    parser.add_argument("--trace", action="store_true")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    began, jobs, events, failed = time.perf_counter(), 0, 0, 0
    for seed in range(int(first), int(last or first) + 1):
        outcome = World(seed, make_plan(seed, arguments.profile)).run()
        jobs += outcome.jobs
        events += outcome.events
        if arguments.trace:
            print("\n".join(outcome.trace.lines()))
        if outcome.violation is not None:
            failed += 1
            print(f"seed {seed}: {outcome.violation}")
    seconds = time.perf_counter() - began
    print(f"{jobs} jobs, {events} events, {failed} violations in {seconds:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
