"""SIGSTOP of the scheduler, and SIGCONT much later: no worker and no job is given up for that."""

from __future__ import annotations

import signal
import time

from tests.faults.run import Run


class Experiment:
    number = 8
    name = "stop-scheduler"
    rounds = 2
    quick_rounds = 0

    def possible(self) -> None:
        pass

    def go(self, run: Run) -> None:
        run.start()
        for _ in range(run.setting.rounds):
            run.figures.rounds += 1
            run.load.resume()
            run.pause(1.0, 2.0)
            run.fault("SIGSTOP scheduler")
            run.cluster.scheduler.send(signal.SIGSTOP)
            time.sleep(run.lasting(30, 5))
            run.cluster.scheduler.send(signal.SIGCONT)
            run.converge(run.heal("SIGCONT scheduler"))
        run.verdict()
