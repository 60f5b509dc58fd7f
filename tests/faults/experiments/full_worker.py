"""The disk of a worker fills up: jobs end visibly, with their true exits, and the worker survives and recovers."""

from __future__ import annotations

import contextlib
import sys

from tests.faults import volume
from tests.faults.client import CUT, Bytes, End, Gone
from tests.faults.daemons import Cluster, Daemon, wait_until
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run
from tests.faults.volume import Volume

#: Prints more than there is room for, ignores the failure, and exits with 0.
DEAF_FILLER = 'trap "" PIPE; head -c 20000000 /dev/zero; exit 0'

#: Prints until it fails; then exits with its own code.
FILLER = """
import os, sys
try:
    while True:
        os.write(1, bytes(65536))
except OSError:
    sys.exit(23)
"""


class Experiment(Plan):
    number = 12
    name = "full-worker"
    rounds = 5
    quick_rounds = 1

    def possible(self) -> None:
        volume.possible()

    def go(self, run: Run) -> None:
        with volume.mounted(run.folder / "volume", "8m") as disk:
            run.use(Cluster(run.folder), Mix(rate=8.0, named=1.0, workers=("w1", "w2"), stdins=0.0))
            cluster = run.cluster
            cluster.start(workers=1)
            small = cluster.add_worker()
            small.state = disk.path / "state"
            small.file.write_text(small.file.read_text().replace('"state"', f'"{small.state}"', 1))
            run.history.add("keeps", worker=small.name, seconds=0.0)  # spools without room are removed
            cluster.join(small)
            cluster.wait_online()
            for _ in run.rounds():
                self._round(run, disk)
            run.verdict()
            run.end()

    def _round(self, run: Run, disk: Volume) -> None:
        api = run.cluster.api
        worker = run.cluster.workers[1]
        run.go_on(0.5, 1.0)
        run.fault(f"the disk of {worker.name} is full")
        self._cut_output(run, worker)
        filler = {"worker": worker.name, "command": sys.executable, "args": ["-c", FILLER]}
        _, job = api.call("POST", "/v1/jobs", filler)
        disk.fill()
        run.pause(1.0, 2.0)
        ended = api.get(f"/v1/jobs/{job['id']}?wait=20")
        run.demand(ended and ended["exit_code"] == 23, "E12", f"a job that filled the disk is {ended}", job["id"])
        run.demand(worker.alive(), "E12", f"{worker.name} has ended")
        run.demand(run.cluster.online(), "E12", "a worker with a full disk is not online")
        status, _ = api.call("POST", "/v1/jobs", {"worker": worker.name, "command": "true"})
        run.note(f"a start on a full disk: {status}")
        run.load.hold()
        disk.empty()
        healed = run.heal("there is room again")
        output = disk.path / "state" / "jobs" / job["id"] / "stdout"
        if output.exists():  # not removed to make room
            output.write_bytes(b"")

        def started() -> bool:
            status, made = api.call("POST", "/v1/jobs?wait=5", {"worker": worker.name, "command": "true"})
            return status == 201 and made["state"] == "succeeded"

        wait_until(started, f"{worker.name} runs jobs again")
        run.converge(healed)

    def _cut_output(self, run: Run, worker: Daemon) -> None:
        """A job that ignores its cut output has succeeded, but its output does not count as complete."""
        api = run.cluster.api
        body = {"worker": worker.name, "command": "sh", "args": ["-c", DEAF_FILLER]}
        status, job, output = api.run(body, {}, timeout=20)
        run.demand(status == 201, "E12", f"a job that will print more than there is room for: {status} {job}")
        if status != 201:
            return
        reached, ended = 0, False
        with contextlib.suppress(*CUT):
            for item in output:
                ended = ended or isinstance(item, End)
                reached = item.offset + len(item.data) if isinstance(item, Bytes) else reached
        job = api.get(f"/v1/jobs/{job['id']}?wait=20")
        error = job["output_error"]
        run.demand(job["state"] == "succeeded" and error, "E12", f"a job whose output was cut is {job}", job["id"])
        run.demand(not ended, "E12", f"a body of {reached} bytes ended properly though {error}", job["id"])
        gone = list(api.follow(job["id"], reached))
        # a start of the load may have removed the output by now, to make room
        said = gone in ([Gone(410, "output-cut")], [Gone(410, "output-pruned")])
        run.demand(said, "E12", f"behind {reached} bytes of cut output comes {gone}", job["id"])
        run.note(f"cut output says: {error}")
