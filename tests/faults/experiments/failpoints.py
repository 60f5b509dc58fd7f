"""kill -9 of a process at an exact point: between commit and call, between call and record, before a rename, etc."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from random import Random

from scheduler.daemon.failpoints import POINTS
from tests.faults import evidence
from tests.faults.daemons import Broken, Daemon, wait_until
from tests.faults.experiments.kill_shim import one_live, shim_of
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run

#: Seconds within which a point must be passed; otherwise the round counts as one without a fault.
PASSED = 12.0


class Experiment(Plan):
    number = 2
    name = "failpoints"
    rounds = 4 * len(POINTS)

    def go(self, run: Run) -> None:
        run.start(mix=Mix(rate=8.0, longest=1.0))
        spare = run.cluster.add_worker(more='keep_spool = "1s"\n')  # spools are removed during the run
        run.history.add("keeps", worker=spare.name, seconds=1.0)
        run.cluster.join(spare)
        run.cluster.wait_online()
        points = sorted(POINTS)
        missed: dict[str, int] = {}
        for number in range(run.setting.rounds):
            point = points[number % len(points)]
            if self._round(run, point):
                run.figures.rounds += 1
            else:
                missed[point] = missed.get(point, 0) + 1
        for point, count in missed.items():
            run.note(f"{point} was not passed in {count} rounds")
        run.verdict()

    def _round(self, run: Run, point: str) -> bool:
        program = point.partition(".")[0]
        target = self._target(run, point)
        often = point.startswith("scheduler.") or "spool-rename" in point or "answer" in point
        armed = {"SCHEDULER_FAILPOINTS": f"{point}:{run.random.randint(1, 3) if often else 1}"}
        ended = {ran.job for ran in evidence.runs(run.load.evidence) if ran.code is not None}
        run.fault(f"{target.name} dies at {armed['SCHEDULER_FAILPOINTS']}")
        target.kill()
        with contextlib.suppress(Broken):  # it may die while it starts
            target.start(armed)
        run.load.resume()
        passed = self._await_death(run, target, point)
        run.load.hold()
        if program == "shim":
            # Each of its jobs dies with its shim, at its end.
            run.load.pause()
            run.fault("shims died at their ends", jobs=tuple((run.cluster.api.jobs() or {}).keys() - ended))
        target.kill()
        if target is run.cluster.scheduler:
            healed = run.restart_scheduler()
        else:
            target.start()
            healed = run.heal(f"{target.name} listens")
        run.converge(healed)
        return passed

    @staticmethod
    def _target(run: Run, point: str) -> Daemon:
        if point.startswith("scheduler."):
            return run.cluster.scheduler
        return run.cluster.workers[-1] if point == "worker.before-spool-removed" else run.cluster.workers[0]

    @staticmethod
    def _await_death(run: Run, target: Daemon, point: str) -> bool:
        if point.startswith("shim."):
            lost = _lost(run)
            return _passed(lambda: _lost(run) >= lost + 3, point)
        if point == "worker.before-exit-rename":  # passed only for a job whose shim is gone
            ran = one_live(run, target)
            if shim := shim_of(ran):
                run.fault("kill -9 shim", jobs=(ran.job,))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(shim, signal.SIGKILL)
        if point == "scheduler.after-dequeue-commit":  # passed only for jobs that wait for a worker
            worker = run.cluster.workers[0]
            worker.kill()
            states = run.cluster.api.worker_states
            wait_until(
                lambda: not target.alive() or states().get(worker.name) == "unreachable",  # a job may wait already
                f"{worker.name} is unreachable",
            )
            # The scheduler may die before it has answered all of these. Their threads then ask the next one.
            asking = [
                threading.Thread(
                    target=run.load.ticket,
                    args=(Random(run.random.random()), f"waits{run.figures.rounds}-{count}", 0.2, worker.name, True),
                    daemon=True,
                )
                for count in range(4)
            ]
            for each in asking:
                each.start()
            wait_until(
                lambda: not (target.alive() and any(each.is_alive() for each in asking)), "jobs wait for a worker"
            )
            worker.start()
        return _passed(lambda: not target.alive(), point)


def _lost(run: Run) -> int:
    """The lost jobs, each with its shim, as far as the scheduler answers."""
    return sum(job["state"] == "lost" for job in (run.cluster.api.jobs() or {}).values())


def _passed(died: Callable[[], bool], point: str) -> bool:
    try:
        wait_until(died, point, PASSED, pause=0.1)
    except Broken:
        return False
    return True
