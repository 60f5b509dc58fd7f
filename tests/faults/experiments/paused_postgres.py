"""The PostgreSQL server with the jobs is paused: like a full disk, with bounded waits, and it recovers by itself."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tests import postgres
from tests.faults.daemons import Cluster
from tests.faults.experiments.full_store import degraded, recovered
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run, Skipped


class Experiment(Plan):
    number = 24
    name = "paused-postgres"
    rounds = 3

    def possible(self) -> None:
        if why := postgres.why_not():
            raise Skipped(why)

    def go(self, run: Run) -> None:
        with own_server() as server:
            run.use(Cluster(run.folder, more=f'[store]\nurl = "{server.url()}"\n'), Mix(rate=8.0))
            run.cluster.start(workers=2)
            for _ in run.rounds():
                self._round(run, server)
            run.verdict()
            run.end()

    def _round(self, run: Run, server: postgres.Server) -> None:
        run.go_on(0.5, 1.5)
        run.fault("SIGSTOP of PostgreSQL")
        server.signal(signal.SIGSTOP)
        degraded(run, "E24", run.lasting(20, 5))
        server.signal(signal.SIGCONT)
        recovered(run, "E24", run.heal("SIGCONT of PostgreSQL"))


@contextmanager
def own_server(fsync: str = "off") -> Iterator[postgres.Server]:
    """A PostgreSQL server of this experiment alone, until the end."""
    server = postgres.Server(fsync)
    try:
        yield server
    finally:
        server.remove()
