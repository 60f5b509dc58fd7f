"""``python -m tests.faults``: runs experiments and prints the figures; exit status 1 on any violation."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from pathlib import Path
from random import Random

from attrs import frozen

from tests.faults import experiments, table
from tests.faults.daemons import Broken
from tests.faults.run import Disagreed, Figures, Plan, Run, Setting, Skipped
from tests.processes import become_subreaper, end_children


@frozen
class Result:
    """The result of one experiment that was possible here."""

    number: int
    name: str
    figures: Figures
    violations: int


def main() -> int:
    """Run the chosen experiments, and return the exit status."""
    plans = experiments.load()
    options = _options(plans)
    folder = Path(tempfile.mkdtemp(prefix="scheduler-faults-"))
    print(f"seed {options.seed}, scale {options.scale:g}; folder {folder}", flush=True)
    chosen = [plan for plan in plans if _chosen(plan, options)]
    began = time.monotonic()
    made = (_side_by_side if options.lanes > 1 else _one_by_one)(chosen, folder, options)
    results = sorted((result for result in made if result is not None), key=lambda result: result.number)
    failed = sum(result.violations > 0 for result in results)
    figures = table.markdown([(result.number, result.name, result.figures) for result in results])
    took = f"{time.monotonic() - began:.0f} s; violations in {failed} of {len(results)} experiments"
    print(f"\n{figures}\n\n{took}")
    if options.record is not None:
        kernel = ".".join(platform.release().split(".")[:2])
        python = f"{os.cpu_count()} cores, Linux {kernel}, Python {platform.python_version()}"
        settings = f"Seed {options.seed}, scale {options.scale:g}, {python}, {date.today()}; {took}."
        table.record(options.record, f"{settings}\n\n{figures}")
    if not failed and not options.keep:
        shutil.rmtree(folder)
    return 1 if failed else 0


def _one_by_one(plans: Sequence[Plan], folder: Path, options: argparse.Namespace) -> Iterator[Result | None]:
    become_subreaper()
    for plan in plans:
        yield _one(plan.number, folder / plan.name, options)


def _side_by_side(plans: Sequence[Plan], folder: Path, options: argparse.Namespace) -> Iterator[Result | None]:
    """Run the experiments in processes, each the subreaper of its daemons. Results come in the order of their ends."""
    processes = ProcessPoolExecutor(options.lanes, multiprocessing.get_context("fork"), become_subreaper)
    with processes:
        running = [processes.submit(_one, plan.number, folder / plan.name, options) for plan in plans]
        for each in as_completed(running):
            yield each.result()


def _options(plans: Sequence[Plan]) -> argparse.Namespace:
    names = "  ".join(f"{plan.number} {plan.name}" for plan in plans)
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__, epilog=f"Experiments: {names}")
    parser.add_argument("names", nargs="*", help="of experiments, or their numbers; or all")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of everything that is random")
    parser.add_argument("--rounds", type=int, help="of each experiment; otherwise its own number")
    parser.add_argument("--scale", type=float, help="multiplies how long faults last (1)")
    parser.add_argument("--patience", type=float, help="multiplies what may take time (1)")
    parser.add_argument("--lanes", type=int, default=1, help="experiments at a time (1); each slows the others")
    parser.add_argument("--quick", action="store_true", help="the short subset: few rounds, scale 0.05, patience 4")
    parser.add_argument("--keep", action="store_true", help="keep the folders of runs without a violation too")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the figures into that document")
    options = parser.parse_args()
    if options.names == ["all"]:
        options.names = []
    known = {str(plan.number) for plan in plans} | {plan.name for plan in plans}
    if unknown := set(options.names) - known:
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}; there are: {names}")
    options.scale = options.scale or (0.05 if options.quick else 1.0)
    options.patience = options.patience or (4.0 if options.quick else 1.0)
    return options


def _chosen(plan: Plan, options: argparse.Namespace) -> bool:
    if options.names:
        return plan.name in options.names or str(plan.number) in options.names
    return bool(plan.quick_rounds) or not options.quick


def _one(number: int, folder: Path, options: argparse.Namespace) -> Result | None:
    """Run one experiment; ``None`` if it is not possible here."""
    (plan,) = (plan for plan in experiments.load() if plan.number == number)
    rounds = options.rounds or (plan.quick_rounds if options.quick else 0) or plan.rounds
    seed = Random(f"{options.seed} {plan.name}").getrandbits(32)
    title = f"{plan.number:2} {plan.name}"
    print(f"{title}: {rounds} rounds", flush=True)
    began = time.monotonic()
    run = Run(folder, Setting(seed, rounds, options.scale, options.patience))
    try:
        plan.possible()
        plan.go(run)
    except Disagreed:
        run.verdict()
    except Skipped as why:
        print(f"{title}: skipped: {why}", flush=True)
        return None
    except Broken as problem:
        run.demand(False, f"E{plan.number}", str(problem))
    except Exception:
        run.demand(False, f"E{plan.number}", traceback.format_exc())
    finally:
        run.end()
        end_children()
    said = [f"{title}: {time.monotonic() - began:.0f} s, {len(run.violations)} violations"]
    said += [f"   {violation}" for violation in run.violations[:20]]
    if run.violations:
        again = f"--seed {options.seed} --rounds {rounds} --scale {options.scale:g} --patience {options.patience:g}"
        said.append(f"   kept: {folder}\n   again: python -m tests.faults {again} {plan.name}")
    elif not options.keep:
        shutil.rmtree(folder)
    print("\n".join(said), flush=True)
    return Result(plan.number, plan.name, run.figures, len(run.violations))


if __name__ == "__main__":
    sys.exit(main())
