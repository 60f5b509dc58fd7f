"""One run of one experiment: its folder, its seed, its cluster and load, what is measured, and the verdict."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random

from attrs import define, evolve, field, frozen

from tests.faults import checker, evidence, history
from tests.faults.agreement import Agreement
from tests.faults.case import Violation
from tests.faults.daemons import Cluster, reap_orphans
from tests.faults.history import History
from tests.faults.load import Load
from tests.faults.mix import USUAL, Mix


class Skipped(Exception):
    """The experiment can't be made here; says why."""


class Disagreed(Exception):
    """The sides do not agree, which the history says: time for the verdict."""


@frozen
class Setting:
    """How a run shall be."""

    seed: int
    #: Kills, pauses, partitions: as often.
    rounds: int
    #: Multiplies how long faults last.
    scale: float = 1.0
    #: Multiplies what is allowed to take time, for machines that are busy with other things.
    patience: float = 1.0


@define
class Figures:
    """What is measured; times in seconds, one for each time it happened."""

    rounds: int = 0
    jobs: int = 0
    acknowledged: int = 0
    lost: int = 0
    duplicated: int = 0
    serving: list[float] = field(factory=list)
    taken_back: list[float] = field(factory=list)
    converged: list[float] = field(factory=list)
    #: What else was timed, by what it was.
    measured: dict[str, list[float]] = field(factory=dict)
    #: What else is worth telling.
    notes: list[str] = field(factory=list)


class Run:
    """What an experiment works with; ``end`` whatever happens, and ``verdict`` if it came to its end."""

    def __init__(self, folder: Path, setting: Setting) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.setting = setting
        self.random = Random(setting.seed)
        self.history = History(folder / "history.jsonl")
        self.figures = Figures()
        self.violations: list[Violation] = []
        self.cluster: Cluster
        self.load: Load
        self.agreement: Agreement
        self._used: list[tuple[Cluster, Load]] = []

    def start(self, workers: int = 2, mix: Mix = USUAL) -> None:
        """A cluster whose workers are online, and its load, paused."""
        self.use(Cluster(self.folder), mix)
        self.cluster.start(workers)

    def use(self, cluster: Cluster, mix: Mix = USUAL) -> None:
        """A cluster that is not started, and its load, paused."""
        cluster.api = evolve(cluster.api, odd=self._odd)
        self.cluster = cluster
        self.agreement = Agreement(cluster, self.history)
        self.load = Load(cluster.api, self.history, self.folder, Random(self.random.random()), mix)
        self._used.append((cluster, self.load))
        self.load.start()

    def _odd(self, what: str, error: str) -> None:
        self.history.add("odd", what=what, error=error)

    # faults

    def lasting(self, seconds: float, shortest: float) -> float:
        """Seconds that a fault lasts, scaled, but not shorter."""
        return max(seconds * self.setting.scale, shortest)

    def pause(self, shortest: float, longest: float | None = None) -> None:
        """Wait; between the two, at random."""
        time.sleep(self.random.uniform(shortest, shortest if longest is None else longest))

    def fault(self, what: str, jobs: tuple[str, ...] = (), outputs: tuple[str, ...] = ()) -> float:
        """Write down that something is broken now; ``jobs``, and the output of ``outputs``, may be destroyed by it."""
        return self.history.add("fault", what=what, jobs=jobs, outputs=outputs)

    def set_back(self, what: str, unknown: Iterable[str] = (), adopted: Iterable[str] = ()) -> float:
        """Write down that the database is as it was before.

        Of the jobs ``unknown`` no party knows any more, and of those ``adopted`` only their workers.
        """
        jobs = {"unknown": sorted(unknown), "adopted": sorted(adopted)}
        return self.history.add("fault", what=what, set_back=True, **jobs)

    def heal(self, what: str, began: float | None = None) -> float:
        """Write down that it is whole again, since then at the earliest."""
        return self.history.add("heal", began, what=what)

    def restart_scheduler(self, environment: Mapping[str, str] | None = None) -> float:
        """Start it again and wait until it serves; when that was."""
        began = time.monotonic()
        self.cluster.scheduler.start(environment)
        while not self.cluster.serving():
            self.cluster.scheduler.listens()
            time.sleep(0.01)
        self.figures.serving.append(time.monotonic() - began)
        return self.heal("scheduler serves", began)

    def converge(self, healed: float, idle: bool = False) -> None:
        """Start no more, and wait until both sides agree; ``Disagreed``, as more rounds would show nothing new."""
        self.load.hold()
        seconds = self.agreement.wait(healed, self.setting.patience, idle)
        self.load.pause()
        if seconds is None:
            raise Disagreed
        self.figures.converged.append(seconds)
        reap_orphans(self.cluster.daemons)

    # verdict

    def demand(self, true: object, promise: str, text: str, job: str | None = None) -> None:
        """What an experiment demands beside the promises."""
        if not true:
            self.violations.append(Violation(promise, text, job))

    def within(self, seconds: float, limit: float, what: str, promise: str) -> None:
        """The same, of how long something took, which is in the figures too."""
        self.figures.measured.setdefault(what, []).append(seconds)
        limit *= self.setting.patience
        self.demand(seconds <= limit, promise, f"{what} took {seconds:.2f} s, more than {limit:g} s")

    def verdict(self) -> None:
        """Let all jobs end, look at everything once more and check; into ``violations`` and ``figures``."""
        load, cluster = self.load, self.cluster
        load.settle()
        self.agreement.wait(time.monotonic(), max(self.setting.patience, 3.0), idle=True)
        load.close()
        jobs = cluster.api.jobs() or {}
        for job in jobs.values():
            self.history.see(job, time.monotonic(), "list", "last")
        events = history.read(self.history.path)
        for job in sorted({event.job for event in events if event.acknowledged and event.job} - jobs.keys()):
            load.look(job, "last")
        for job in {event.job for event in events if event.op == "remove" and event.status == 204 and event.job}:
            load.errands.look_for_removed(job)
        events = history.read(self.history.path)
        found = self.evidence(events)
        self.violations += checker.check(events, found)
        self._count(events, found)

    def evidence(self, events: list[history.Event]) -> evidence.Evidence:
        """What is on the disk."""
        runs = tuple(evidence.runs(self.load.evidence))
        tickets = {event.ticket: (event.seed or 0, event.lines or 0) for event in events if event.op == "start"}
        expected = {run.job: tickets[run.ticket] for run in runs if run.ticket in tickets}
        states = {worker.name: worker.state for worker in self.cluster.workers}
        logs = [(daemon.name, daemon.log) for cluster, _ in self._used for daemon in cluster.daemons]
        errors = [
            (name, error)
            for name, log in logs
            if log.exists()
            for error in evidence.log_errors(log.read_text(errors="replace"))
        ]
        copied = {(worker.name, job) for worker in self.cluster.workers for job in worker.copied}
        spools = [spool for spool in evidence.spools(states, expected) if (spool.worker, spool.job) not in copied]
        return evidence.Evidence(runs, tuple(spools), tuple(errors))

    def _count(self, events: list[history.Event], found: evidence.Evidence) -> None:
        broken = [(violation.promise, violation.job) for violation in self.violations]
        self.figures.jobs = len({run.job for run in found.runs} | {event.job for event in events if event.op == "last"})
        self.figures.acknowledged = len({event.job for event in events if event.acknowledged})
        self.figures.lost = len({job for promise, job in broken if promise == "P1"})
        self.figures.duplicated = len({job for promise, job in broken if promise == "P2"})

    def end(self) -> None:
        """End the daemons and, if there was no verdict, the load."""
        for cluster, load in self._used:
            load.give_up()
            cluster.end()

    def note(self, text: str) -> None:
        """Something worth telling once; where this run keeps its files is not."""
        text = text.replace(str(self.folder), "...")
        if text not in self.figures.notes:
            self.figures.notes.append(text)
