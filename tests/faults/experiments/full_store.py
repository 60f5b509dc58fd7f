"""The disk of the scheduler's database fills up: new work is refused, reads are served, and it recovers by itself."""

from __future__ import annotations

import time

from tests.faults import volume
from tests.faults.daemons import Cluster, wait_until
from tests.faults.experiments.kill_scheduler import intact
from tests.faults.mix import Mix
from tests.faults.run import Run, Skipped
from tests.faults.volume import Volume


class Experiment:
    number = 13
    name = "full-store"
    rounds = 3
    quick_rounds = 0

    def possible(self) -> None:
        volume.possible()

    def go(self, run: Run) -> None:
        with volume.mounted(run.folder / "volume", "16m") as disk:
            cluster = Cluster(run.folder)
            cluster.scheduler.state = disk.path / "state"
            text = cluster.scheduler.file.read_text()
            cluster.scheduler.file.write_text(text.replace('"state"', f'"{cluster.scheduler.state}"', 1))
            run.use(cluster, Mix(rate=8.0))
            cluster.start(workers=2)
            if not list(cluster.scheduler.state.glob("*.db")):
                raise Skipped("the scheduler has no database")
            for _ in range(run.setting.rounds):
                run.figures.rounds += 1
                self._round(run, disk)
            run.verdict()
            intact(run, cluster.scheduler)
            run.end()

    def _round(self, run: Run, disk: Volume) -> None:
        run.load.resume()
        run.pause(0.5, 1.5)
        run.fault("the disk of the database is full")
        disk.fill()
        degraded(run, "E13", run.lasting(10, 3))
        disk.empty()
        recovered(run, "E13", run.heal("there is room again"))


def degraded(run: Run, promise: str, seconds: float) -> None:
    """While the store fails: starts are refused, unless it took one; reads are answered; readiness says why."""
    api = run.cluster.api
    wait_until(lambda: submitted(run) == 503, "a start is refused")
    ready, why = api.call("GET", "/readyz")
    run.demand(ready == 503, promise, f"/readyz is {ready}")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        run.demand(api.get("/v1/jobs?limit=5") is not None, promise, "reads are not answered")
        run.within(time.monotonic() - began, 1.0, "a read", promise)
        status = submitted(run)
        run.demand(status in (201, 503, 504), promise, f"a start is answered with {status}")
        time.sleep(0.2)
    run.note(f"/readyz meanwhile: {why.get('error', why) if isinstance(why, dict) else why}")


def recovered(run: Run, promise: str, healed: float) -> None:
    """When the store works again, starts do, without a restart."""
    took = wait_until(lambda: submitted(run) == 201, "a start is taken again")
    run.within(took, run.agreement.limit, "taking starts again", promise)
    run.demand(run.cluster.api.call("GET", "/readyz")[0] == 200, promise, "is not ready again")
    run.converge(healed)


def submitted(run: Run) -> int:
    """The answer to a start that is no job of the load."""
    return run.cluster.api.call("POST", "/v1/jobs", {"selector": {}, "command": "true"})[0]
