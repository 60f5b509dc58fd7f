"""A daemon has more connections than it may have files: it refuses, does not spin, and recovers."""

from __future__ import annotations

import contextlib
import resource
import socket
import time

from tests.faults.daemons import Daemon, wait_until
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run
from tests.processes import cpu, descriptors

#: Files that a daemon may have open, and connections to it.
LIMIT = 256
CONNECTIONS = 400


class Experiment(Plan):
    number = 25
    name = "descriptors"
    rounds = 2

    def go(self, run: Run) -> None:
        run.start(workers=2, mix=Mix(rate=4.0))
        for number in run.rounds():
            if number % 2 == 0:
                self._round(run, run.cluster.scheduler, "http")
            else:
                self._round(run, run.cluster.workers[0], "grpc")
        run.verdict()

    def _round(self, run: Run, daemon: Daemon, server: str) -> None:
        run.go_on(0.5, 1.0)
        before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        base = descriptors(daemon.pid)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (LIMIT, before[1]))
        host, _, port = daemon.endpoints[server].rpartition(":")
        run.fault(f"{CONNECTIONS} connections to {daemon.name}, which may have {LIMIT} files")
        with contextlib.ExitStack() as stack:
            for _ in range(CONNECTIONS):
                connection = stack.enter_context(socket.socket())
                connection.setblocking(False)
                connection.connect_ex((host, int(port)))
            time.sleep(1.0)
            used, since = cpu(daemon.pid), time.monotonic()
            time.sleep(run.lasting(10, 3))
            share = (cpu(daemon.pid) - used) / (time.monotonic() - since)
            run.demand(descriptors(daemon.pid) >= LIMIT - 10, "E25", f"{daemon.name} has files left")
        run.figures.measured.setdefault(f"share of a processor of {daemon.name}", []).append(share)
        run.demand(share < 0.8, "E25", f"{daemon.name} spins: {share:.0%} of a processor")
        run.demand(daemon.alive(), "E25", f"{daemon.name} has ended")
        healed = run.heal("the connections are gone")
        wait_until(lambda: descriptors(daemon.pid) < base + 40, f"{daemon.name} closes what is gone")
        run.converge(healed)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
