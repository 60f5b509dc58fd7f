"""A copy of a worker's state folder, as in a machine's image, is started beside the original while that has jobs.

It is refused while the original answers. With ``--new-id`` it becomes a worker of its own: the jobs in the copy are
neither reported nor touched, and those of the original continue.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.faults.daemons import BIN, Daemon
from tests.faults.evidence import exit_record
from tests.faults.experiments.kill_shim import live_runs
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run, Skipped
from tests.processes import alive

#: Jobs of the original that run throughout, and seconds for which the copy keeps trying.
LIVE = 5
TRYING = 10.0


class Experiment(Plan):
    number = 32
    name = "cloned-folder"
    rounds = 3

    def possible(self) -> None:
        helped = subprocess.run([BIN / "twistd", "worker", "--help"], check=False, capture_output=True, text=True)
        if "--new-id" not in helped.stdout:
            raise Skipped("twistd worker has no --new-id")

    def go(self, run: Run) -> None:
        run.start(mix=Mix(rate=4.0, workers=("w1", "w2")))
        for number in run.rounds():
            self._round(run, number)
        run.verdict()

    def _round(self, run: Run, number: int) -> None:
        original = run.cluster.workers[0]
        trying = run.lasting(TRYING, 3)
        run.load.resume()
        names = [f"live{number}-{count}" for count in range(LIVE)]
        for name in names:
            run.load.ticket(run.random, name, trying + 8, original.name)
        run.pause(0.2, 0.8)
        live = [process for process in live_runs(run, original) if process.ticket in names]
        with _copy_of(run, original, number) as copy:
            run.fault(f"a copy of {original.name} is started")
            copy.start(wait=False)
            until = time.monotonic() + trying
            while time.monotonic() < until:
                self._is_alone(run, original)
                time.sleep(0.1)
        run.heal("the copy is gone")
        self._with_new_id(run, original)
        for process in live:
            ended = exit_record(original.state / "jobs" / process.job) is not None
            run.demand(ended or alive(process.pid), "E32", "was ended by a copy of its worker", process.job)

    @staticmethod
    def _is_alone(run: Run, original: Daemon) -> None:
        """No other process has the original's entry, nor one of its own."""
        document = run.cluster.api.get("/v1/workers")
        if document is None:
            return
        known = {worker.name: worker.endpoints["grpc"] for worker in run.cluster.workers}
        listed = {worker["name"]: worker["address"] for worker in document["workers"]}
        run.demand(listed == known, "E32", f"the workers are {known}, and {listed} are listed")
        states = {worker["name"]: worker["state"] for worker in document["workers"]}
        run.demand(states.get(original.name) == "online", "E32", f"beside a copy {original.name} is {states}")

    @staticmethod
    def _with_new_id(run: Run, original: Daemon) -> None:
        ids = {worker["name"]: worker["id"] for worker in run.cluster.api.get("/v1/workers")["workers"]}
        clone = run.cluster.add_worker()
        _fill(clone, original.state)
        before = _copied_records(clone)
        clone.arguments = ("--new-id",)
        run.cluster.join(clone)
        clone.arguments = ()
        run.cluster.wait_online()
        healed = run.heal(f"{clone.name} is a worker of its own")
        workers = run.cluster.api.get("/v1/workers")["workers"]
        now = {worker["name"]: worker["id"] for worker in workers}
        run.demand(now.pop(clone.name) not in ids.values(), "E32", f"{clone.name} has the id of another: {workers}")
        run.demand(now == ids, "E32", f"the others were {ids}, and are {now}")
        after = _copied_records(clone)
        run.demand(after == before, "E32", f"jobs of the copy were touched: {before}, and now {after}")
        run.converge(healed)


@contextlib.contextmanager
def _copy_of(run: Run, original: Daemon, number: int) -> Iterator[Daemon]:
    """A worker with a copy of the folder, another port and the same name; killed at the end."""
    config = run.cluster.worker_config(original.name)
    copy = Daemon("worker", f"copy of {original.name}", run.folder / f"copy{number}", config)
    _fill(copy, original.state)
    try:
        yield copy
    finally:
        if copy.alive():
            copy.kill()


def _copied_records(clone: Daemon) -> dict[str, Any]:
    """The exit record, if any, of each job in a copy, wherever in its folder the jobs were put."""
    folders = [folder for folder in clone.state.glob("jobs*/*") if folder.name in clone.copied]
    return {folder.name: exit_record(folder) for folder in folders}


def _fill(clone: Daemon, state: Path) -> None:
    """Copy a folder that is in use. Files that vanish meanwhile are left out."""
    with contextlib.suppress(shutil.Error):
        shutil.copytree(state, clone.state, symlinks=True, ignore=shutil.ignore_patterns("*.pid", "*.sock"))
    clone.copied = frozenset(folder.name for folder in (clone.state / "jobs").glob("*"))
