"""SIGSTOP of a worker, and SIGCONT much later: requests to the others are not affected, and nothing runs twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence

from tests.faults import history
from tests.faults.daemons import wait_until
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run

#: Seconds below which any p99 is acceptable, however good it was before.
GOOD = 0.5


class Experiment(Plan):
    number = 7
    name = "stop-worker"
    rounds = 2
    quick_rounds = 1

    def go(self, run: Run) -> None:
        run.start(workers=3, mix=Mix(rate=10.0, starters=16, named=1.0, workers=("w1", "w2", "w3"), keys=0.3))
        for _ in run.rounds():
            self._round(run)
        run.verdict()

    def _round(self, run: Run) -> None:
        stopped, *others = run.cluster.workers
        run.load.resume()
        began = time.monotonic()
        time.sleep(run.lasting(20, 3))
        at = run.fault(f"SIGSTOP {stopped.name}")
        stopped.send(signal.SIGSTOP)
        states = run.cluster.api.worker_states
        wait_until(lambda: states().get(stopped.name) == "unreachable", "a stopped worker is unreachable")
        time.sleep(max(0.0, at + run.lasting(60, 5) - time.monotonic()))
        ended = time.monotonic()
        run.demand({states().get(other.name) for other in others} == {"online"}, "E7", "the others are not online")
        stopped.send(signal.SIGCONT)
        run.converge(run.heal(f"SIGCONT {stopped.name}"))
        names = [other.name for other in others]
        before, meanwhile = _p99(run, names, began, at), _p99(run, names, at, ended)
        run.figures.measured.setdefault("p99 of starts, before", []).append(before)
        run.within(meanwhile, max(2 * before, GOOD), "p99 of starts on the other workers, meanwhile", "E7")


def _p99(run: Run, workers: Sequence[str], since: float, until: float) -> float:
    """The p99 of starts on these workers that were answered with 201 in that time; seconds."""
    times = sorted(
        event.t - event.began
        for event in history.read(run.history.path)
        if event.op == "start" and event.status == 201 and event.worker in workers and since <= event.began < until
        if event.asked is None  # otherwise it waited for the job's end
    )
    return times[int(len(times) * 0.99)] if times else 0.0
