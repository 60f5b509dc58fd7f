"""Random kills, pauses and cuts for a while; afterwards the numbers of threads and files, and the memory, are as
before.
"""

from __future__ import annotations

import contextlib
import signal
import time

from attrs import frozen

from tests.faults import network
from tests.faults.daemons import Daemon
from tests.faults.experiments import partition
from tests.faults.mix import Mix
from tests.faults.network import Link
from tests.faults.run import Plan, Run, Skipped
from tests.processes import descriptors, memory, threads

#: The allowed increase of a process per hundred rounds, and in all, because pools and caches fill. The pool of followed
#: streams keeps a thread for each that was ever followed at once: two for each of the eight starters.
MORE = {"threads": (5.0, 20.0), "files": (10.0, 10.0), "memory": (30.0, 15.0)}

#: The fewest measurements of one process for a slope.
ENOUGH = 6


@frozen
class Measurement:
    """A measurement of one process, at rest, after so many rounds."""

    round: int
    threads: int
    files: int
    memory: float

    def __str__(self) -> str:
        return f"{self.threads} threads, {self.files} files, {self.memory:.0f} MiB"


class Experiment(Plan):
    number = 26
    name = "soak"
    rounds = 40

    def go(self, run: Run) -> None:
        measured: dict[tuple[str, int], list[Measurement]] = {}
        with contextlib.ExitStack() as stack:
            link = self._start(run, stack)
            for number in run.rounds():
                self._round(run, link)
                for daemon in run.cluster.daemons:
                    pid = daemon.pid
                    now = Measurement(number, threads(pid), descriptors(pid), memory(pid))
                    measured.setdefault((daemon.name, pid), []).append(now)
            self._flat(run, measured)
            run.verdict()
            run.end()

    @staticmethod
    def _start(run: Run, stack: contextlib.ExitStack) -> Link | None:
        mix = Mix(rate=5.0, starters=8, longest=4.0)
        try:
            network.possible()
        except Skipped as why:
            run.note(f"without cuts of the network: {why}")
            run.start(mix=mix)
            return None
        link = stack.enter_context(network.link())
        partition.start(run, link, mix)
        return link

    def _round(self, run: Run, link: Link | None) -> None:
        run.go_on(0.5, 2.0)
        faults = [_kill_scheduler, _kill_worker, _pause_worker, _pause_scheduler]
        # A process that lives long shows its leaks, so kills are the rarer half.
        faults += [_pause_worker, _pause_scheduler] + ([_cut, _cut, _cut] if link else [])
        healed = run.random.choice(faults)(run, link)
        run.pause(0.0, 1.0)
        run.converge(healed)

    @staticmethod
    def _flat(run: Run, measured: dict[tuple[str, int], list[Measurement]]) -> None:
        for (name, _), row in measured.items():
            later = row[2:]  # pools and caches fill first
            if len(later) < ENOUGH:
                continue
            for what, (rise, spare) in MORE.items():
                slope = _slope([(at.round, float(getattr(at, what))) for at in later]) * 100
                grown = getattr(later[-1], what) - getattr(later[0], what)
                said = f"{name} has {grown:g} more {what} after {len(later)} rounds"
                run.demand(slope <= rise or grown <= spare, "E26", said)
            run.note(f"{name}: {later[0]}; after {len(later)} rounds {later[-1]}")


def _slope(points: list[tuple[int, float]]) -> float:
    """The slope of the line through the points (least squares)."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def _kill_scheduler(run: Run, _: Link | None) -> float:
    run.fault("kill -9 scheduler")
    run.cluster.scheduler.kill()
    run.pause(0.0, 2.0)
    return run.restart_scheduler()


def _kill_worker(run: Run, _: Link | None) -> float:
    worker = run.random.choice(run.cluster.workers)
    run.fault(f"kill -9 {worker.name}")
    worker.kill()
    run.pause(0.0, 5.0)
    worker.start()
    return run.heal(f"{worker.name} listens")


def _pause_worker(run: Run, _: Link | None) -> float:
    return _pause(run, run.random.choice(run.cluster.workers))


def _pause_scheduler(run: Run, _: Link | None) -> float:
    return _pause(run, run.cluster.scheduler)


def _pause(run: Run, daemon: Daemon) -> float:
    run.fault(f"SIGSTOP {daemon.name}")
    daemon.send(signal.SIGSTOP)
    run.pause(1.0, 8.0)
    daemon.send(signal.SIGCONT)
    return run.heal(f"SIGCONT {daemon.name}")


def _cut(run: Run, link: Link | None) -> float:
    assert link is not None
    run.fault("cut off w1")
    link.cut()
    time.sleep(run.random.uniform(1.0, 8.0))
    link.mend()
    return run.heal("w1 is joined again")
