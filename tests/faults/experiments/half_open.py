"""A network that lets through one direction only, and a peer that vanishes silently: its resources are freed."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.faults import network
from tests.faults.daemons import wait_until
from tests.faults.experiments.partition import start
from tests.faults.mix import Mix
from tests.faults.network import Link
from tests.faults.run import Plan, Run
from tests.processes import descriptors

#: Seconds until the scheduler has given up a client that vanished silently.
FREED = 60.0

#: Seconds during which heartbeats are lost.
STALLED = 20.0

#: A client that follows a job's output, raw or as events, and reports the first data.
CLIENT = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Accept": sys.argv[2]})
answer = urllib.request.urlopen(request)
answer.read(64)
print("reading", flush=True)
while answer.read(64):
    pass
"""

#: Clients of each kind.
CLIENTS = 3


class Experiment(Plan):
    number = 10
    name = "half-open"
    rounds = 2

    def possible(self) -> None:
        network.possible()

    def go(self, run: Run) -> None:
        with network.link() as link:
            start(run, link, Mix(rate=4.0, starters=8, longest=4.0, filtered=0.0))
            for number in run.rounds():
                self._stall(run, link)
                self._vanish(run, link, number)
            run.verdict()
            run.end()

    def _stall(self, run: Run, link: Link) -> None:
        """The worker's packets are lost, and packets to it arrive."""
        worker = run.cluster.workers[0]
        run.go_on(1.0, 2.0)
        run.fault(f"{worker.name} is heard by nobody")
        link.stall_from_there()
        states = run.cluster.api.worker_states
        wait_until(lambda: states().get(worker.name) == "unreachable", "a worker that is not heard is unreachable")
        time.sleep(run.lasting(STALLED, 3))
        link.flow_from_there()
        run.converge(run.heal(f"{worker.name} is heard again"))

    def _vanish(self, run: Run, link: Link, number: int) -> None:
        """Clients lose their network in the middle of a stream, and are then killed."""
        run.load.pause()
        scheduler = run.cluster.scheduler
        wait_until(lambda: not list(run.agreement.differences(idle=True)), "all jobs have ended")
        job = run.load.ticket(run.random, f"long{number}", 2 * FREED, run.cluster.workers[1].name)
        clients = [
            subprocess.Popen([*link.prefix, sys.executable, "-c", CLIENT, url, accept], stdout=subprocess.PIPE)
            for url, accept in self._streams(run, job)
        ]
        for client in clients:
            assert client.stdout is not None
            client.stdout.readline()
        at = run.fault("clients lose their network, and end")
        link.cut()
        for client in clients:
            client.kill()
            client.wait()
        held = descriptors(scheduler.pid)  # at least one for each client, which has read from it
        # The job's own stream stays open, and so does a follower of the load.
        wait_until(lambda: descriptors(scheduler.pid) <= held - len(clients), "what clients held is freed", 2 * FREED)
        freed = time.monotonic() - at
        link.mend()
        run.within(freed, FREED, "freeing what clients held", "E10")
        run.load.stop(job or "")
        run.converge(run.heal("joined again"))

    @staticmethod
    def _streams(run: Run, job: str | None) -> list[tuple[str, str]]:
        path = f"http://{run.cluster.scheduler.endpoints['http']}/v1/jobs/{job}/output"
        return [(f"{path}?follow=1", "*/*"), (path, "text/event-stream")] * CLIENTS
