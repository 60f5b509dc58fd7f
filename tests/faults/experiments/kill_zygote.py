"""kill -9 of the process that forks the shims, while jobs are started."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from tests.faults.daemons import wait_until, zygote_of
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run

#: Seconds that the next start may take.
NEXT_START = 1.0


class Experiment(Plan):
    number = 4
    name = "kill-zygote"
    rounds = 50

    def go(self, run: Run) -> None:
        run.start(workers=1, mix=Mix(rate=10.0, starters=4))
        (worker,) = run.cluster.workers
        for number in run.rounds():
            run.go_on(0.3, 0.8)
            wait_until(lambda: zygote_of(worker), "there is a zygote")
            zygote = zygote_of(worker)
            assert zygote is not None
            run.fault("kill -9 zygote")
            with contextlib.suppress(ProcessLookupError):
                os.kill(zygote, signal.SIGKILL)
            began = time.monotonic()
            job = run.load.ticket(run.random, f"next{number}", 0.2, worker.name)
            run.demand(job, "E4", "the next start was not answered")
            run.within(time.monotonic() - began, NEXT_START, "the next start", "E4")
        run.converge(run.heal("nothing is killed any more"))
        run.verdict()
