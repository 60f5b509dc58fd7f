"""A worker's machine gets another address while it runs, as by DHCP: its jobs continue, and it is called there."""

from __future__ import annotations

import time

from tests.faults import network
from tests.faults.daemons import Cluster, wait_until
from tests.faults.mix import Mix
from tests.faults.network import Link
from tests.faults.run import Plan, Run

#: Seconds until a worker is online at another address. Its heartbeat on the dead connection must time out, the next one
#: comes from the new address, and the worker registers again, at most once a minute.
MOVED = 75.0


class Experiment(Plan):
    number = 33
    name = "moving-worker"
    rounds = 4

    def possible(self) -> None:
        network.possible()

    def go(self, run: Run) -> None:
        with network.link() as link:
            run.use(Cluster(run.folder, host=link.here), Mix(rate=4.0, starters=8, longest=3.0, workers=("w1", "w2")))
            cluster = run.cluster
            cluster.start(workers=0)
            cluster.join(cluster.add_worker(host="0.0.0.0", prefix=link.prefix))
            cluster.join(cluster.add_worker(host=link.here))
            cluster.wait_online()
            for number in run.rounds():
                self._round(run, link, killed=number % 2 == 1)
            run.verdict()
            run.end()

    @staticmethod
    def _round(run: Run, link: Link, killed: bool) -> None:
        worker = run.cluster.workers[0]
        run.go_on(1.0, 2.0)
        began = run.fault(f"{worker.name} gets another address")
        link.move()
        if killed:
            run.fault("kill -9 scheduler")
            run.cluster.scheduler.kill()
            run.restart_scheduler()

        def there() -> bool:
            document = run.cluster.api.get(f"/v1/workers/{worker.name}")
            return bool(document) and (document["address"].startswith(f"{link.there}:"), document["state"]) == (
                True,
                "online",
            )

        wait_until(there, f"{worker.name} is online at {link.there}", 2 * MOVED)
        run.within(time.monotonic() - began, MOVED, "being online at another address", "E33")
        job = run.load.ticket(run.random, f"there{run.figures.rounds}", 0.2, worker.name, waits=False)
        run.demand(job, "E33", f"a start on {worker.name} where it is now was not answered")
        run.converge(run.heal(f"{worker.name} is called at its new address"))
