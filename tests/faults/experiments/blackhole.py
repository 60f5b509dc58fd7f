"""A worker's port neither accepts nor refuses connections: its requests end in time, and others are not affected."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.faults.mix import Mix
from tests.faults.run import Plan, Run

#: Seconds: the deadline of a request, plus the time for its answer.
DEADLINE = 12.0

#: Requests at once; more than there are threads for calls.
REQUESTS = 60


class Experiment(Plan):
    number = 11
    name = "blackhole"
    rounds = 2

    def go(self, run: Run) -> None:
        run.start(workers=2, mix=Mix(rate=6.0, named=1.0, workers=("w2",), keys=0.0))
        for number in run.rounds():
            self._round(run, number)
        run.verdict()

    def _round(self, run: Run, number: int) -> None:
        dead, _ = run.cluster.workers
        host, _, port = dead.endpoints["grpc"].rpartition(":")
        run.go_on(0.5, 1.0)
        run.fault(f"kill -9 {dead.name}, and nobody answers at its port")
        dead.kill()
        with full_backlog(host, int(port)), ThreadPoolExecutor(REQUESTS) as pool:
            began = time.monotonic()
            asked = [
                pool.submit(run.load.ticket, run.random, f"hole{number}-{count}", 0.1, dead.name)
                for count in range(REQUESTS)
            ]
            slowest = 0.0
            while not all(request.done() for request in asked) and time.monotonic() < began + DEADLINE:
                looked = time.monotonic()
                run.demand(run.cluster.serving(), "E11", "another request is not answered")
                slowest = max(slowest, time.monotonic() - looked)
                time.sleep(0.1)
            took = time.monotonic() - began
            run.demand(all(request.done() for request in asked), "E11", f"no answer within {DEADLINE:g} s")
            run.within(slowest, 1.0, "another request", "E11")
        dead.start()
        run.within(took, DEADLINE, f"answering {REQUESTS} requests to a port that is mute", "E11")
        run.converge(run.heal(f"{dead.name} listens"))


@contextlib.contextmanager
def full_backlog(host: str, port: int) -> Iterator[None]:
    """A port at which connections stay unanswered."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        yield
