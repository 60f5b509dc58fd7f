"""Two faults at once, drawn from the seed: each begins while the other lasts, and either may be over first."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence

from attrs import frozen

from tests.faults import volume
from tests.faults.daemons import Cluster, Daemon, wait_until, zygote_of
from tests.faults.experiments.full_store import moved_to
from tests.faults.experiments.kill_machine import kill_all
from tests.faults.experiments.kill_scheduler import intact
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run, Skipped
from tests.faults.volume import Volume

#: Seconds between the two, and for which both last.
APART = 1.0
BOTH = 6.0


@frozen
class Fault:
    """A fault that is mended later."""

    name: str
    #: The harmed process or thing. Two faults at once have different ones.
    target: str
    strike: Callable[[], None]
    mend: Callable[[], object]


class Experiment(Plan):
    number = 30
    name = "two-faults"
    rounds = 40
    quick_rounds = 1

    def go(self, run: Run) -> None:
        with contextlib.ExitStack() as stack:
            disk = self._start(run, stack)
            seen: dict[tuple[str, str], None] = {}
            for _ in run.rounds():
                first, second = _two(run, disk)
                seen[first.name, second.name] = None
                self._round(run, first, second)
            run.note(f"{len(seen)} pairs of faults")
            run.verdict()
            intact(run, run.cluster.scheduler)
            run.end()

    @staticmethod
    def _start(run: Run, stack: contextlib.ExitStack) -> Volume | None:
        cluster, disk = Cluster(run.folder), None
        try:
            volume.possible()
        except Skipped as why:
            run.note(f"without full disks: {why}")
        else:
            disk = stack.enter_context(volume.mounted(run.folder / "volume", "64m"))
            moved_to(cluster.scheduler, disk)
        run.use(cluster, Mix(rate=6.0, starters=8, longest=3.0))
        cluster.start(workers=2)
        return disk

    @staticmethod
    def _round(run: Run, first: Fault, second: Fault) -> None:
        run.go_on(0.5, 1.5)
        run.fault(first.name)
        first.strike()
        run.pause(0.0, APART)
        run.fault(second.name)
        second.strike()
        run.pause(0.0, run.lasting(BOTH, 1.0))
        healing = run.random.sample((first, second), 2)
        healing[0].mend()
        run.pause(0.0, APART)
        healing[1].mend()
        for daemon in run.cluster.daemons:
            wait_until(daemon.listens, f"{daemon.name} listens")
        wait_until(run.cluster.serving, "the scheduler serves")
        healed = run.heal(f"{first.name}, and {second.name}, are over")
        run.pause(0.0, 0.5)
        run.converge(healed)


def _two(run: Run, disk: Volume | None) -> Sequence[Fault]:
    """Two faults of all kinds that do not interfere."""
    faults = list(_kinds(run, disk))
    first = run.random.choice(faults)
    return first, run.random.choice([fault for fault in faults if fault.target != first.target])


def _kinds(run: Run, disk: Volume | None) -> Sequence[Fault]:
    scheduler = run.cluster.scheduler
    faults = [_killed(scheduler), _stopped(run, scheduler)]
    for worker in run.cluster.workers:
        faults += [_killed(worker), _stopped(run, worker), _zygote(worker), _machine(run, worker)]
    if disk is not None:
        faults.append(Fault("the disk of the database is full", "disk", disk.fill, disk.empty))
    return faults


def _killed(daemon: Daemon) -> Fault:
    """Its addresses can't be written while the disk is full, so the wait for them comes after both faults."""
    return Fault(f"kill -9 {daemon.name}", daemon.name, daemon.kill, lambda: daemon.start(wait=False))


def _stopped(run: Run, daemon: Daemon) -> Fault:
    def go_on() -> None:
        daemon.send(signal.SIGCONT)
        run.heal(f"SIGCONT {daemon.name}")

    return Fault(f"SIGSTOP {daemon.name}", daemon.name, lambda: daemon.send(signal.SIGSTOP), go_on)


def _zygote(worker: Daemon) -> Fault:
    def kill() -> None:
        zygote = zygote_of(worker)
        if zygote is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(zygote, signal.SIGKILL)

    return Fault(f"kill -9 zygote of {worker.name}", worker.name, kill, lambda: None)


def _machine(run: Run, worker: Daemon) -> Fault:
    return Fault(f"kill -9 of all that is {worker.name}", worker.name, lambda: kill_all(run, worker), worker.start)
