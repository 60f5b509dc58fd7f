"""kill -9 of a job's shim: the job is lost, none of its processes is left, and no exit code is invented."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from tests.faults import evidence
from tests.faults.case import FINAL
from tests.faults.client import CUT
from tests.faults.daemons import Daemon, wait_until
from tests.faults.evidence import Run as Process
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run
from tests.processes import alive, parent_of


class Experiment(Plan):
    number = 5
    name = "kill-shim"
    rounds = 40
    quick_rounds = 4

    def go(self, run: Run) -> None:
        run.start(mix=Mix(shortest=1.0))
        for _ in run.rounds():
            run.go_on(0.2, 0.8)
            self._kill_one(run, one_live(run))
        run.converge(run.heal("nothing is killed any more"))
        run.verdict()

    def _kill_one(self, run: Run, process: Process) -> None:
        shim = shim_of(process)
        if shim is None:
            return
        killed = run.fault("kill -9 shim", jobs=(process.job,))
        with contextlib.suppress(ProcessLookupError):
            os.kill(shim, signal.SIGKILL)
        wait_until(lambda: ended(run, process.job), f"{process.job} is final")
        heartbeat = run.cluster.lease / 3
        run.within(time.monotonic() - killed, heartbeat + 1, "knowing that a shim is dead", "E5")
        wait_until(lambda: not alive(process.pid), f"{process.job} is gone")


def ended(run: Run, job: str) -> bool:
    """Whether a job is over, and perhaps already removed by a client."""
    try:
        status, document = run.cluster.api.call("GET", f"/v1/jobs/{job}")
    except CUT:
        return False
    return status == 404 or document.get("state") in FINAL


def live_runs(run: Run, worker: Daemon | None = None) -> list[Process]:
    """Unfinished processes of the load; only those of ``worker``, if given."""
    return [
        ran
        for ran in evidence.runs(run.load.evidence)
        if ran.code is None and alive(ran.pid) and (worker is None or spool(worker, ran.job).exists())
    ]


def one_live(run: Run, worker: Daemon | None = None) -> Process:
    """An unfinished process, once there is one."""
    found: list[Process] = []

    def look() -> bool:
        found[:] = live_runs(run, worker)
        return bool(found)

    wait_until(look, "a job runs")
    return run.random.choice(found)


def spool(worker: Daemon, job: str) -> Path:
    """A job's folder on the worker."""
    return worker.state / "jobs" / job


def shim_of(process: Process) -> int | None:
    """The pid of the shim of a job of the load, whose scripts all end in ``exec``."""
    parent = parent_of(process.pid)
    return parent if parent != os.getpid() else None
