"""``python -m tests.faults``: make experiments, print what was measured; exit status 1 on any violation."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from random import Random

from tests.faults import experiments, table
from tests.faults.daemons import Broken, become_subreaper, end_children
from tests.faults.experiments import Plan
from tests.faults.run import Disagreed, Run, Setting, Skipped


def main() -> int:
    """Exit status."""
    plans = experiments.load()
    options = _options(plans)
    become_subreaper()
    folder = Path(tempfile.mkdtemp(prefix="scheduler-faults-"))
    print(f"seed {options.seed}, scale {options.scale:g}; folder {folder}", flush=True)
    chosen = [plan for plan in plans if _chosen(plan, options)]
    done: list[tuple[Plan, Run]] = []
    failed = []
    began = time.monotonic()
    for plan in chosen:
        run = _one(plan, folder / plan.name, options)
        if run is None:
            continue
        done.append((plan, run))
        if run.violations:
            failed.append(plan)
        elif not options.keep:
            shutil.rmtree(run.folder)
    figures = table.markdown([(plan.number, plan.name, run.figures) for plan, run in done])
    took = f"{time.monotonic() - began:.0f} s; violations in {len(failed)} of {len(done)} experiments"
    print(f"\n{figures}\n\n{took}")
    if options.record is not None:
        kernel = ".".join(platform.release().split(".")[:2])
        python = f"{os.cpu_count()} cores, Linux {kernel}, Python {platform.python_version()}"
        settings = f"Seed {options.seed}, scale {options.scale:g}, {python}, {date.today()}; {took}."
        table.record(options.record, f"{settings}\n\n{figures}")
    if not failed and not options.keep:
        shutil.rmtree(folder)
    return 1 if failed else 0


def _options(plans: Sequence[Plan]) -> argparse.Namespace:
    names = "  ".join(f"{plan.number} {plan.name}" for plan in plans)
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__, epilog=f"Experiments: {names}")
    parser.add_argument("names", nargs="*", help="of experiments, or their numbers; or all")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of everything that is random")
    parser.add_argument("--rounds", type=int, help="of each experiment; otherwise its own number")
    parser.add_argument("--scale", type=float, help="multiplies how long faults last (1)")
    parser.add_argument("--patience", type=float, help="multiplies what may take time (1)")
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


def _one(plan: Plan, folder: Path, options: argparse.Namespace) -> Run | None:
    """Make one; ``None`` if it is not possible here."""
    rounds = options.rounds or (plan.quick_rounds if options.quick else 0) or plan.rounds
    seed = Random(f"{options.seed} {plan.name}").getrandbits(32)
    print(f"{plan.number:2} {plan.name}: {rounds} rounds ", end="", flush=True)
    began = time.monotonic()
    run = Run(folder, Setting(seed, rounds, options.scale, options.patience))
    try:
        plan.possible()
        plan.go(run)
    except Disagreed:
        run.verdict()
    except Skipped as why:
        print(f"skipped: {why}", flush=True)
        return None
    except Broken as problem:
        run.demand(False, f"E{plan.number}", str(problem))
    except Exception:
        run.demand(False, f"E{plan.number}", traceback.format_exc())
    finally:
        run.end()
        end_children()
    print(f"{time.monotonic() - began:.0f} s, {len(run.violations)} violations", flush=True)
    for violation in run.violations[:20]:
        print(f"   {violation}", flush=True)
    if run.violations:
        again = f"--seed {options.seed} --rounds {rounds} --scale {options.scale:g} --patience {options.patience:g}"
        print(f"   kept: {folder}\n   again: python -m tests.faults {again} {plan.name}", flush=True)
    return run


if __name__ == "__main__":
    sys.exit(main())
