"""SIGSTOP of the scheduler, and SIGCONT much later: no worker and no job is given up for that.

This includes a job that a client began to follow meanwhile, which the scheduler could not notice.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time

from tests.faults.client import CUT
from tests.faults.run import Plan, Run

#: Seconds that a job may be unattended, after which it would be stopped.
UNATTENDED = 3.0
STOPPED = 1.5

FOLLOWED = {"worker": "w1", "command": "sleep", "args": ["600"], "unattended_timeout": UNATTENDED}


class Experiment(Plan):
    number = 8
    name = "stop-scheduler"
    rounds = 2

    def go(self, run: Run) -> None:
        run.start()
        for _ in run.rounds():
            run.go_on(1.0, 2.0)
            job = run.cluster.api.call("POST", "/v1/jobs", FOLLOWED)[1]["id"]
            run.fault("SIGSTOP scheduler")
            run.cluster.scheduler.send(signal.SIGSTOP)
            follower = threading.Thread(target=self._follow, args=(run, job), daemon=True)
            follower.start()
            time.sleep(run.lasting(30, 5))
            run.cluster.scheduler.send(signal.SIGCONT)
            healed = run.heal("SIGCONT scheduler")
            time.sleep(STOPPED)
            state = run.cluster.api.get(f"/v1/jobs/{job}")["state"]
            run.demand(state in ("running", "unknown"), "E8", f"a job that a client follows is {state}", job)
            run.load.stop(job)
            follower.join(30)
            run.converge(healed)
        run.verdict()

    @staticmethod
    def _follow(run: Run, job: str) -> None:
        with contextlib.suppress(*CUT):
            for _ in run.cluster.api.follow(job, 0, 60):
                pass
