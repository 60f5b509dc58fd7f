"""A worker and a scheduler of different versions, with upgrades and downgrades under load.

The worker ``w1`` is behind a proxy that removes the fields that earlier versions lack (``tests.faults.older``). So to
the scheduler it is an old worker, and to it the scheduler is an old one. An upgrade removes the proxy.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.daemons import Cluster, Daemon
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run


class Experiment(Plan):
    number = 31
    name = "versions"
    rounds = 20

    def go(self, run: Run) -> None:
        # The proxy can't present the certificate of either side.
        run.use(Cluster(run.folder, secure=False), Mix(rate=6.0, starters=4, longest=3.0, workers=("w1", "w2")))
        cluster = run.cluster
        cluster.start(workers=0)
        direct = cluster.scheduler.endpoints["grpc"]
        with _proxy(direct) as proxy:
            changing, modern = cluster.add_worker(), cluster.add_worker()
            _lead(changing, proxy)
            for worker in (changing, modern):
                cluster.join(worker)
            cluster.wait_online()
            ids, old = _workers(run, "id"), True
            for number in run.rounds():
                run.go_on(0.5, 1.5)
                if number % 2:
                    old = not old
                    healed = self._change(run, changing, proxy if old else direct, old)
                else:
                    healed = self._kill(run)
                run.converge(healed)
                now = _workers(run, "id")
                run.demand(now == ids, "E31", f"the workers were {ids}, and are {now}")
                called = _workers(run, "address")[changing.name]
                run.demand((called != changing.endpoints["grpc"]) is old, "E31", f"{changing.name} is at {called}")
            run.verdict()
            run.end()

    @staticmethod
    def _change(run: Run, worker: Daemon, scheduler: str, old: bool) -> float:
        """Another version of a worker takes over its folder, and its running jobs."""
        run.fault(f"{worker.name} is {'downgraded' if old else 'upgraded'}")
        worker.kill()
        _lead(worker, scheduler)
        worker.start()
        return run.heal(f"{worker.name} listens")

    @staticmethod
    def _kill(run: Run) -> float:
        daemon = run.random.choice(run.cluster.daemons)
        run.fault(f"kill -9 {daemon.name}")
        daemon.kill()
        run.pause(0.0, 1.0)
        if daemon is run.cluster.scheduler:
            return run.restart_scheduler()
        daemon.start()
        return run.heal(f"{daemon.name} listens")


def _workers(run: Run, member: str) -> dict[str, str]:
    """The value of ``member`` of each listed worker, by name."""
    document = run.cluster.api.get("/v1/workers") or {"workers": ()}
    return {worker["name"]: worker[member] for worker in document["workers"]}


def _lead(worker: Daemon, scheduler: str) -> None:
    """Set the scheduler's address of a worker that does not run."""
    before, table, rest = worker.file.read_text().partition("[scheduler]\n")
    _, _, rest = rest.partition("\n")
    worker.file.write_text(f'{before}{table}addr = "{scheduler}"\n{rest}')


@contextmanager
def _proxy(scheduler: str) -> Iterator[str]:
    """The address of a proxy, until the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.older", scheduler], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
