"""kill -9 of a worker with live jobs, which it takes back completely when it returns, at once or late."""

from __future__ import annotations

import itertools
import time

from tests.faults.client import CUT
from tests.faults.daemons import Daemon, wait_until
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run

#: Live jobs on the worker, and seconds from its start until all are taken back.
LIVE = 20
TAKEN_BACK = 2.0

#: Seconds for which the worker is away, in turn.
AWAY = (0.0, 0.0, 5.0, 0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 60.0)


class Experiment(Plan):
    number = 3
    name = "kill-worker"
    rounds = 30
    quick_rounds = 1

    def go(self, run: Run) -> None:
        run.start(mix=Mix(rate=3.0))
        away = itertools.cycle(AWAY)
        for number in run.rounds():
            self._round(run, number, next(away) * run.setting.scale)
        self._new_folder(run)
        run.verdict()

    def _round(self, run: Run, number: int, away: float) -> None:
        worker = run.cluster.workers[number % len(run.cluster.workers)]
        live: list[str] = []
        for count in range(LIVE):
            seconds = away + run.random.uniform(4, 6)
            if job := run.load.ticket(run.random, f"live{number}-{count}", seconds, worker.name):
                live.append(job)
        run.go_on(0.0, 1.0)
        run.fault(f"kill -9 {worker.name}")
        worker.kill()
        time.sleep(away)
        worker.start()
        healed = run.heal(f"{worker.name} listens")
        for job in live:
            wait_until(lambda job=job: asked(run, worker, job), f"{worker.name} answers for job {job}")
        run.figures.taken_back.append(time.monotonic() - healed)
        run.within(run.figures.taken_back[-1], TAKEN_BACK, f"taking {LIVE} jobs back", "E3")
        run.converge(healed)

    @staticmethod
    def _new_folder(run: Run) -> None:
        """A worker that lost its folder is given no old start: its jobs are lost, and run nowhere again."""
        worker = run.cluster.workers[0]
        run.go_on(1.0, 2.0)
        run.fault(f"kill -9 {worker.name}")
        worker.kill()
        run.load.pause()
        there = [job for job in (run.cluster.api.jobs() or {}).values() if job["worker_name"] == worker.name]
        run.load.without_output.update(job["id"] for job in there)
        open_ = tuple(job["id"] for job in there if not job["finished_at"])
        run.fault(f"{worker.name} loses its folder", jobs=open_, outputs=tuple(job["id"] for job in there))
        worker.state.rename(worker.folder / "lost")
        worker.start()
        run.converge(run.heal(f"{worker.name} listens"))


def asked(run: Run, worker: Daemon, job: str) -> bool:
    """Whether the worker answers about a job; ``/query`` of an unfinished job always asks it."""
    try:
        status, _ = run.cluster.api.call("POST", "/query", {"worker_id": worker.name, "job_id": job})
    except CUT:
        return False
    return status == 200
