"""The disk of the scheduler's database fills up: new work is refused, reads are served, and it recovers by itself.

A job that ends meanwhile is not shown as ended before its end is saved. In every other round the scheduler is killed
before there is room again: the shown states must still be true.
"""

from __future__ import annotations

import time

from tests.faults import volume
from tests.faults.daemons import Cluster, Daemon, wait_until
from tests.faults.experiments.kill_scheduler import intact
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run, Skipped
from tests.faults.volume import Volume


class Experiment(Plan):
    number = 13
    name = "full-store"
    rounds = 4

    def possible(self) -> None:
        volume.possible()

    def go(self, run: Run) -> None:
        with volume.mounted(run.folder / "volume", "16m") as disk:
            cluster = Cluster(run.folder)
            moved_to(cluster.scheduler, disk)
            run.use(cluster, Mix(rate=8.0))
            cluster.start(workers=2)
            if not list(cluster.scheduler.state.glob("*.db")):
                raise Skipped("the scheduler has no database")
            self._held: set[str] = set()
            for number in run.rounds():
                self._round(run, disk, killed=bool(number % 2))
            run.note(f"jobs that ended while the store failed, and were not shown so: {len(self._held)}")
            run.verdict()
            intact(run, cluster.scheduler)
            run.end()

    def _round(self, run: Run, disk: Volume, killed: bool) -> None:
        run.go_on(0.5, 1.5)
        run.fault("the disk of the database is full")
        disk.fill()
        self._held |= degraded(run, "E13", run.lasting(10, 3))
        if killed:
            run.fault("kill -9 scheduler")
            run.cluster.scheduler.kill()
        disk.empty()
        recovered(run, "E13", run.restart_scheduler() if killed else run.heal("there is room again"))


def moved_to(daemon: Daemon, disk: Volume) -> None:
    """Move the state of a daemon that was never started to that disk."""
    daemon.state = disk.path / "state"
    daemon.file.write_text(daemon.file.read_text().replace('"state"', f'"{daemon.state}"', 1))


def degraded(run: Run, promise: str, seconds: float) -> set[str]:
    """While the store fails: starts are refused, or accepted by it; reads are answered; readiness gives the reason.

    Returns the ids of the jobs that have ended meanwhile, and are not shown so.
    """
    api = run.cluster.api
    wait_until(lambda: submitted(run) == 503, "a start is refused")
    ready, why = api.call("GET", "/readyz")
    run.demand(ready == 503, promise, f"/readyz is {ready}")
    until = time.monotonic() + seconds
    held: set[str] = set()
    while time.monotonic() < until:
        began = time.monotonic()
        run.demand(api.get("/v1/jobs?limit=5") is not None, promise, "reads are not answered")
        run.within(time.monotonic() - began, 1.0, "a read", promise)
        unfinished = api.get("/v1/jobs?state=starting,running,unknown&limit=500") or {"jobs": []}
        held |= {job["id"] for job in unfinished["jobs"] if "its end can't be saved" in (job["reason"] or "")}
        status = submitted(run)
        run.demand(status in (201, 503, 504), promise, f"a start is answered with {status}")
        time.sleep(0.2)
    run.note(f"/readyz meanwhile: {why.get('error', why) if isinstance(why, dict) else why}")
    return held


def recovered(run: Run, promise: str, healed: float) -> None:
    """When the store works again, starts succeed without a restart."""
    took = wait_until(lambda: submitted(run) == 201, "a start is taken again")
    run.within(took, run.agreement.limit, "taking starts again", promise)
    run.demand(run.cluster.api.call("GET", "/readyz")[0] == 200, promise, "is not ready again")
    run.converge(healed)


def submitted(run: Run) -> int:
    """The status of a start that is no job of the load."""
    return run.cluster.api.call("POST", "/v1/jobs", {"selector": {}, "command": "true"})[0]
