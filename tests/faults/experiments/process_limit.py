"""A machine that can start no process, beside a healthy one: it takes no job, says why, and fails none."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

from tests.faults.daemons import Broken, Cluster, Daemon, wait_until, zygote_of
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run, Skipped
from tests.processes import children

#: The user of the limited machine: the limit does not apply to root.
USER = 64321

#: Runs a command as that user, who may read what root may, such as a Python in root's home.
AS_USER = ["setpriv", f"--reuid={USER}", "--clear-groups", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]

#: Jobs by selector while the machine is limited; more than the healthy worker has at that moment.
JOBS = 20

#: The most seconds for which a worker that took no job is not offered another, plus some to notice.
OFFERED_AGAIN = 75.0


class Experiment(Plan):
    number = 27
    name = "process-limit"
    rounds = 5
    quick_rounds = 1

    def possible(self) -> None:
        if os.geteuid() != 0 or not (shutil.which("setpriv") and shutil.which("prlimit")):
            raise Skipped("it takes root, setpriv and prlimit to have a worker of another user")
        python = [sys.executable, "-c", "import twisted"]
        if subprocess.run([*AS_USER, "env", *python], check=False, capture_output=True).returncode:
            raise Skipped("another user can't run this Python")

    def go(self, run: Run) -> None:
        for folder in (run.folder.parent, run.folder):
            folder.chmod(0o711)
        # Filtered jobs run bash. A worker looks for a command with access(2), which ignores capabilities.
        plain = {"unattended": 0.0, "timeouts": 0.0, "limits": 0.0}  # otherwise jobs are not filtered
        run.use(Cluster(run.folder), Mix(rate=5.0, named=0.0, core=0.0, filtered=1.0, **plain))
        run.load.evidence.chmod(0o777)
        cluster = run.cluster
        cluster.start(workers=1)
        short = cluster.add_worker(prefix=AS_USER)
        os.chown(short.folder, USER, -1)
        cluster.join(short)
        cluster.wait_online()
        for number in run.rounds():
            self._round(run, short, number)
        run.verdict()

    def _round(self, run: Run, short: Daemon, number: int) -> None:
        api = run.cluster.api
        run.go_on(1.0, 2.0)
        wait_until(lambda: zygote_of(short), f"{short.name} has started its zygote")
        run.fault(f"{short.name} can start no process")
        _limit(short, 1)
        made = [api.call("POST", "/v1/jobs", {"selector": {}, "command": "true"})[1] for _ in range(JOBS)]
        for job in [api.get(f"/v1/jobs/{job['id']}?wait=60") or job for job in made]:
            good = job["state"] == "succeeded" and job["worker_name"] != short.name
            run.demand(good, "E27", f"a job beside a machine that can start none is {job}", job["id"])
        status, refused = api.call("POST", "/v1/jobs", {"worker": short.name, "command": "true"})
        run.demand(status == 503, "E27", f"a start on {short.name}, which can start none, is {status}: {refused}")
        reason = self._reason(run, short)
        run.demand(reason, "E27", f"{short.name} does not say why it takes no job")
        run.note(f"the machine that can start no process says: {reason}")
        run.demand(run.cluster.online(), "E27", "a worker that can start no process is not online")
        _limit(short, resource.getrlimit(resource.RLIMIT_NPROC)[1])
        healed = run.heal("processes can be started again")

        def takes_work() -> bool:
            status, job = api.call("POST", "/v1/jobs?wait=5", {"worker": short.name, "command": "true"})
            return status == 201 and job["state"] == "succeeded"

        wait_until(takes_work, f"{short.name} runs jobs again", OFFERED_AGAIN)
        wait_until(lambda: not self._reason(run, short), f"{short.name} has no reason left", OFFERED_AGAIN)
        run.converge(healed)

    @staticmethod
    def _reason(run: Run, worker: Daemon) -> str | None:
        document = run.cluster.api.get(f"/v1/workers/{worker.name}")
        return document["reason"] if document else None


def _limit(worker: Daemon, processes: int) -> None:
    """Limit the processes of the zygote and its shims. Existing ones continue."""
    zygote = zygote_of(worker)
    assert zygote is not None
    _limit_process(zygote, processes)  # first, so that its next forks inherit the limit
    for pid in children(zygote):
        _limit_process(pid, processes)


def _limit_process(pid: int, processes: int) -> None:
    # A process that may not change other users' limits does so as that user.
    limit = ["prlimit", "--pid", str(pid), f"--nproc={processes}:"]
    done = subprocess.run([*AS_USER, *limit], check=False, capture_output=True, text=True)
    if done.returncode and Path(f"/proc/{pid}").exists():
        raise Broken(f"the limit of {pid} can't be set: {done.stderr}")
