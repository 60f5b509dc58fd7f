"""kill -9 of a worker, of its zygote and of all its shims at once: only the jobs' processes are left.

When the worker is back, each of these jobs is ``lost`` and none of its processes is left. Jobs that had ended keep
their ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

from tests.faults.daemons import Daemon, wait_until, zygote_of
from tests.faults.evidence import exit_record, spool_folders
from tests.faults.experiments.kill_shim import ended, live_runs
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run
from tests.processes import alive


class Experiment(Plan):
    number = 29
    name = "kill-machine"
    rounds = 20

    def go(self, run: Run) -> None:
        run.start(mix=Mix(rate=10.0, starters=4, longest=4.0))
        for number in run.rounds():
            self._round(run, run.cluster.workers[number % len(run.cluster.workers)])
        run.verdict()

    @staticmethod
    def _round(run: Run, worker: Daemon) -> None:
        run.go_on(1.0, 2.0)
        run.fault(f"kill -9 of all that is {worker.name}")
        kill_all(run, worker)
        live = live_runs(run, worker)
        run.pause(0.0, 0.5)
        worker.start()
        healed = run.heal(f"{worker.name} listens")
        for process in live:
            wait_until(lambda job=process.job: ended(run, job), f"{process.job} is final")
            wait_until(lambda pid=process.pid: not alive(pid), f"{process.job} is gone")
        run.figures.measured.setdefault("ending what the jobs left", []).append(time.monotonic() - healed)
        run.converge(healed)


def kill_all(run: Run, worker: Daemon) -> None:
    """Kill a worker's processes except its jobs, which are destroyed by that. ``worker`` is not started again."""
    zygote = zygote_of(worker)
    worker.send(signal.SIGSTOP)  # so that it starts nothing while the others are killed
    for pid in [zygote, *_shims(worker)]:
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    worker.kill()
    known = (run.cluster.api.jobs() or {}).values()
    theirs = {job["id"] for job in known if job["worker_name"] == worker.name and not job["finished_at"]}
    theirs |= {folder.name for folder in spool_folders(worker.state) if exit_record(folder) is None}
    run.fault(f"the shims of {worker.name} are dead", jobs=tuple(sorted(theirs)))


def _shims(worker: Daemon) -> Iterator[int]:
    """The shims of unfinished jobs, according to their locks."""
    for folder in spool_folders(worker.state):
        if exit_record(folder) is None:
            words = (folder / "lock").read_bytes().strip(b"\0").split()
            if words:
                yield int(words[0])
