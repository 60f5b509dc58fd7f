"""A worker's network is cut: its jobs continue, the other worker serves, and both sides agree after the mending."""

from __future__ import annotations

import time

from tests.faults import network
from tests.faults.daemons import Cluster, wait_until
from tests.faults.mix import Mix
from tests.faults.network import Link
from tests.faults.run import Plan, Run

#: Seconds that the cut lasts, in turn.
CUT = (30.0, 10.0, 60.0)


class Experiment(Plan):
    number = 9
    name = "partition"
    rounds = 4
    quick_rounds = 1

    def possible(self) -> None:
        network.possible()

    def go(self, run: Run) -> None:
        with network.link() as link:
            start(run, link, Mix(rate=6.0, starters=8, longest=run.lasting(8, 3)))
            for number in run.rounds():
                self._round(run, link, run.lasting(CUT[number % len(CUT)], 4))
            run.verdict()
            run.end()

    def _round(self, run: Run, link: Link, seconds: float) -> None:
        far, near = run.cluster.workers
        run.go_on(1.0, 2.0)
        at = run.fault(f"cut off {far.name}")
        link.cut()
        states = run.cluster.api.worker_states
        wait_until(lambda: states().get(far.name) == "unreachable", "a worker that is cut off is unreachable")
        time.sleep(max(0.0, at + seconds - time.monotonic()))
        run.demand(states().get(near.name) == "online", "E9", "the other worker is not online")
        link.mend()
        run.converge(run.heal(f"{far.name} is joined again"))


def start(run: Run, link: Link, mix: Mix) -> None:
    """Start a scheduler here, ``w1`` there and ``w2`` here."""
    run.use(Cluster(run.folder, host=link.here), mix)
    cluster = run.cluster
    cluster.start(workers=0)
    cluster.join(cluster.add_worker(host=link.there, prefix=link.prefix))
    cluster.join(cluster.add_worker(host=link.here))
    cluster.wait_online()
