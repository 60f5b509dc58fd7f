"""A run of an experiment: its folder, seed, cluster and load, its figures, and the verdict."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import ClassVar

from attrs import define, evolve, field, frozen

from tests.faults import checker, evidence, history
from tests.faults.agreement import Agreement
from tests.faults.case import Violation
from tests.faults.daemons import Cluster, reap_orphans
from tests.faults.history import History
from tests.faults.load import Load
from tests.faults.mix import USUAL, Mix


class Skipped(Exception):
    """The experiment can't be made here; the text says why."""


class Disagreed(Exception):
    """The sides do not agree, as recorded in the history, so it is time for the verdict."""


@frozen
class Setting:
    """The parameters of a run."""

    seed: int
    #: The number of rounds, such as kills, pauses or partitions.
    rounds: int
    #: Multiplies the duration of faults.
    scale: float = 1.0
    #: Multiplies time limits, for busy machines.
    patience: float = 1.0


@define
class Figures:
    """The measured figures. Times are in seconds, one for each occurrence."""

    rounds: int = 0
    jobs: int = 0
    acknowledged: int = 0
    lost: int = 0
    duplicated: int = 0
    serving: list[float] = field(factory=list)
    taken_back: list[float] = field(factory=list)
    converged: list[float] = field(factory=list)
    #: Other measured times, by their names.
    measured: dict[str, list[float]] = field(factory=dict)
    #: Other remarks.
    notes: list[str] = field(factory=list)


class Run:
    """The tools of an experiment. Always call ``end``; call ``verdict`` if the experiment reached its end."""

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
        """Make a cluster whose workers are online, and its load, paused."""
        self.use(Cluster(self.folder), mix)
        self.cluster.start(workers)

    def use(self, cluster: Cluster, mix: Mix = USUAL) -> None:
        """Use a cluster that is not started, and make its load, paused."""
        cluster.api = evolve(cluster.api, odd=self._odd)
        self.cluster = cluster
        self.agreement = Agreement(cluster, self.history)
        self.load = Load(cluster.api, self.history, self.folder, Random(self.random.random()), mix)
        self._used.append((cluster, self.load))
        self.load.start()

    def _odd(self, what: str, error: str) -> None:
        self.history.add("odd", what=what, error=error)

    def rounds(self) -> Iterator[int]:
        """The number of each round, which counts from its beginning on."""
        for number in range(self.setting.rounds):
            self.figures.rounds += 1
            yield number

    # faults

    def lasting(self, seconds: float, shortest: float) -> float:
        """Seconds that a fault lasts, scaled, but at least ``shortest``."""
        return max(seconds * self.setting.scale, shortest)

    def pause(self, shortest: float, longest: float | None = None) -> None:
        """Wait for ``shortest`` seconds, or for a random time up to ``longest``."""
        time.sleep(self.random.uniform(shortest, shortest if longest is None else longest))

    def go_on(self, shortest: float, longest: float | None = None) -> None:
        """Resume the load, and wait like ``pause``."""
        self.load.resume()
        self.pause(shortest, longest)

    def fault(self, what: str, jobs: tuple[str, ...] = (), outputs: tuple[str, ...] = ()) -> float:
        """Record that something is broken now, which may destroy ``jobs`` and the output of ``outputs``."""
        return self.history.add("fault", what=what, jobs=jobs, outputs=outputs)

    def set_back(self, what: str, unknown: Iterable[str] = (), adopted: Iterable[str] = ()) -> float:
        """Record that the database was set back.

        No side knows the jobs ``unknown`` any more, and only their workers know the jobs ``adopted``.
        """
        jobs = {"unknown": sorted(unknown), "adopted": sorted(adopted)}
        return self.history.add("fault", what=what, set_back=True, **jobs)

    def heal(self, what: str, began: float | None = None) -> float:
        """Record that the fault is over, since ``began`` at the earliest."""
        return self.history.add("heal", began, what=what)

    def restart_scheduler(self, environment: Mapping[str, str] | None = None) -> float:
        """Start the scheduler again and wait until it serves; the time of that."""
        began = time.monotonic()
        self.cluster.scheduler.start(environment)
        while not self.cluster.serving():
            self.cluster.scheduler.listens()
            time.sleep(0.01)
        self.figures.serving.append(time.monotonic() - began)
        return self.heal("scheduler serves", began)

    def converge(self, healed: float, idle: bool = False) -> None:
        """Stop starting, and wait until both sides agree; ``Disagreed``, since more rounds would show nothing new."""
        self.load.hold()
        seconds = self.agreement.wait(healed, self.setting.patience, idle)
        self.load.pause()
        if seconds is None:
            raise Disagreed
        self.figures.converged.append(seconds)
        reap_orphans(self.cluster.daemons)

    # verdict

    def demand(self, true: object, promise: str, text: str, job: str | None = None) -> None:
        """A demand of the experiment beyond the promises."""
        if not true:
            self.violations.append(Violation(promise, text, job))

    def within(self, seconds: float, limit: float, what: str, promise: str) -> None:
        """A demand on a duration, which is also added to the figures."""
        self.figures.measured.setdefault(what, []).append(seconds)
        limit *= self.setting.patience
        self.demand(seconds <= limit, promise, f"{what} took {seconds:.2f} s, more than {limit:g} s")

    def verdict(self) -> None:
        """Let all jobs end, observe everything once more, and check; sets ``violations`` and ``figures``."""
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
        """The evidence on the disk."""
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
        """End the daemons and, without a verdict, the load."""
        for cluster, load in self._used:
            load.give_up()
            cluster.end()

    def note(self, text: str) -> None:
        """Add a remark once, without the paths of this run's files."""
        text = text.replace(str(self.folder), "...")
        if text not in self.figures.notes:
            self.figures.notes.append(text)


class Plan:
    """An experiment."""

    #: Its number, by which it is also chosen.
    number: ClassVar[int]
    name: ClassVar[str]
    #: Rounds of a full run.
    rounds: ClassVar[int]
    #: Rounds of the short run; 0: it is left out.
    quick_rounds: ClassVar[int] = 0

    def possible(self) -> None:
        """``Skipped`` if it can't be made here."""

    def go(self, run: Run) -> None:
        """Make it up to the point where both sides must agree, and call ``run.verdict``."""
        raise NotImplementedError
