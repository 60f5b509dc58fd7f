"""A daemonized scheduler is asked to end under a hundred open streams: it drains in time and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

from tests.faults.client import CUT, Bytes, End
from tests.faults.daemons import wait_until
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run
from tests.processes import alive

#: Open streams, and seconds within which a scheduler ends in any case.
STREAMS = 100
ENDED = 12.0


class Experiment(Plan):
    number = 23
    name = "daemonized"
    rounds = 5
    quick_rounds = 1

    def go(self, run: Run) -> None:
        run.start(workers=1, mix=Mix(rate=4.0, filtered=0.0))  # the long job's output must flow while it runs
        for number in run.rounds():
            self._round(run, number)
        run.verdict()

    def _round(self, run: Run, number: int) -> None:
        scheduler = run.cluster.scheduler
        run.load.pause()
        run.fault("SIGTERM of the scheduler")
        scheduler.kill(signal.SIGTERM)
        pid_file = scheduler.state / "scheduler.pid"
        began = subprocess.run(
            scheduler.command("-l", str(scheduler.log)), cwd=scheduler.folder, timeout=60, check=False
        )
        run.demand(began.returncode == 0, "E23", f"twistd ended with {began.returncode}")
        wait_until(run.cluster.serving, "the daemon serves")
        pid = int(pid_file.read_text())
        run.cluster.wait_online()
        job = run.load.ticket(run.random, f"long{number}", 6.0, "w1")
        run.demand(job, "E23", "the first start was not answered")
        streams = [_Stream(run, job or "", at) for at in range(STREAMS)]
        wait_until(lambda: all(stream.reached for stream in streams), "all streams flow")
        run.go_on(0.2, 0.5)
        at = run.fault("SIGTERM of a daemon")
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid or not alive(pid), "the daemon ends")
        took = time.monotonic() - at
        run.within(took, ENDED, f"the end under {STREAMS} streams", "E23")
        run.demand(not pid_file.exists(), "E23", "the pid file is still there")
        for stream in streams:
            stream.thread.join(30)
        run.demand(not any(stream.ended for stream in streams), "E23", "a stream ended as if the job had")
        run.converge(run.restart_scheduler())


class _Stream:
    """A follower, raw or by events, until it is cut."""

    def __init__(self, run: Run, job: str, number: int) -> None:
        self.reached = 0
        self.ended = False
        self._run = run
        self._job = job
        self._source = run.cluster.api.events if number % 2 else run.cluster.api.follow
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            for item in self._source(self._job, 0, 60):
                if isinstance(item, Bytes):
                    self.reached = item.offset + len(item.data)
                elif isinstance(item, End):
                    self.ended = True
        except CUT:
            pass
