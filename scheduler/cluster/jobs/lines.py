"""The jobs that wait for a worker, so that the next one for any worker is found at once.

Jobs with the same requirement (``scheduler.cluster.requirement``) stand in one line, ordered by priority, then by
arrival. A worker serves the lines that name it, and those whose selector it matches. Of the first jobs of all these
lines, it gets the one with the highest priority, then the earliest arrival. So a line that no worker can serve holds up
no other, however many jobs wait in it.

A line with a selector is filed under one of the selector's labels, the one with the fewest lines; a worker looks under
each of its own labels. The cost of a lookup grows with the lines found there, not with the number of jobs or of other
workers' lines.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import chain, count

from attrs import define, field

from scheduler.cluster.candidates import Standing
from scheduler.cluster.registry import Registry
from scheduler.cluster.requirement import Label, Requirement
from scheduler.model import Job, Worker

#: (-priority, number of arrival, job id): the least goes first.
Place = tuple[int, int, str]


@define(eq=False)
class WaitingLine:
    """The jobs with one requirement that wait."""

    requirement: Requirement
    #: The label that the line is filed under; ``None``: the requirement has none.
    label: Label | None = None
    places: list[Place] = field(factory=list)


class Lines:
    """All jobs that wait, in their lines; there is one ``Lines`` for each scheduler."""

    def __init__(self) -> None:
        #: All lines with jobs in them.
        self.by_requirement: dict[Requirement, WaitingLine] = {}
        # worker's id or name -> its lines; dicts, for their order
        self._named: dict[str, dict[WaitingLine, None]] = {}
        # label -> lines of selectors that are filed under it
        self._filed: dict[Label | None, dict[WaitingLine, None]] = {}
        #: A number that changes whenever a line is added.
        self.version = 0
        # job id -> where it stands
        self._places: dict[str, tuple[WaitingLine, Place]] = {}
        # job id -> number of arrival, kept as long as the job may come back
        self._arrivals: dict[str, int] = {}
        self._numbers = count()

    @property
    def idle(self) -> bool:
        """Whether no job waits, nor may come back to its place."""
        return not (self.by_requirement or self._named or self._filed or self._places or self._arrivals)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._places

    def add(self, job: Job) -> bool:
        """Have the job wait, at its earlier place if it had one; whether it is the only one in its line."""
        assert job.target is not None
        requirement = Requirement.of(job.spec, job.target)
        line = self.by_requirement.get(requirement)
        if line is None:
            labels = () if requirement.worker is not None else requirement.labels
            label = min(labels, key=lambda label: (len(self._filed.get(label, ())), label), default=None)
            line = self.by_requirement[requirement] = WaitingLine(requirement, label)
            self.version += 1
            self._beside(line)[line] = None
        number = self._arrivals.setdefault(job.id, next(self._numbers))
        place = (-job.terms.priority, number, job.id)
        insort(line.places, place)
        self._places[job.id] = line, place
        return len(line.places) == 1

    def leave(self, job_id: str) -> None:
        """Take the job out of its line, if it stands there; it may come back to its place."""
        if job_id not in self._places:
            return
        line, place = self._places.pop(job_id)
        del line.places[bisect_left(line.places, place)]
        if line.places:
            return
        del self.by_requirement[line.requirement]
        beside = self._beside(line)
        del beside[line]
        if not beside and line.requirement.worker is not None:
            del self._named[line.requirement.worker]
        elif not beside:
            del self._filed[line.label]

    def forget(self, job_id: str) -> None:
        """Take the job out of its line for good."""
        self.leave(job_id)
        self._arrivals.pop(job_id, None)

    def first(self, worker: Worker, free: bool) -> str | None:
        """The id of the job that is next for that worker; without a ``free`` slot, only a job that names the worker."""
        lines = chain(self._naming(worker), self._selecting(worker) if free else ())
        place = min((line.places[0] for line in lines), default=None)
        return None if place is None else place[2]

    def before(self, worker: Worker, priority: int) -> bool:
        """Whether a job waits for a slot of that worker that goes before a newcomer of that priority."""
        return any(line.places[0][0] <= -priority for line in self._selecting(worker))

    def before_all(self, requirement: Requirement, priority: int) -> bool:
        """Whether one line tells that ``before`` is true of every worker that meets a requirement, which names none."""
        lines = chain.from_iterable(self._filed.get(label, ()) for label in (None, *requirement.labels))
        return any(line.places[0][0] <= -priority for line in lines if line.requirement.covers(requirement))

    def named(self, worker: Worker) -> bool:
        """Whether a job that names that worker waits."""
        return next(self._naming(worker), None) is not None

    def standing(self, job: Job) -> tuple[Requirement, Place]:
        """The requirement of a queued job, and its place, or the place that it would have if it waited now."""
        if job.id in self._places:
            line, place = self._places[job.id]
            return line.requirement, place
        assert job.target is not None
        number = self._arrivals.get(job.id, sys.maxsize)
        return Requirement.of(job.spec, job.target), (-job.terms.priority, number, job.id)

    def _naming(self, worker: Worker) -> Iterator[WaitingLine]:
        """The lines that name the worker and that it can serve."""
        for name in {worker.id, worker.name}:
            yield from _served(self._named.get(name, ()), worker)

    def _selecting(self, worker: Worker) -> Iterator[WaitingLine]:
        """The lines of selectors that the worker matches and that it can serve."""
        for label in (None, *worker.labels.items()):
            yield from _served(self._filed.get(label, ()), worker)

    def competing(self, requirement: Requirement, workers: Iterable[Worker]) -> list[WaitingLine]:
        """The line of that requirement, if there is one, and all others that one of these workers serves, too."""
        lines = {line: None for worker in workers for line in chain(self._naming(worker), self._selecting(worker))}
        own = self.by_requirement.get(requirement)
        return list(lines if own is None else lines | {own: None})

    def competing_for_many(self, requirement: Requirement, registry: Registry) -> list[WaitingLine]:
        """Like ``competing``, with all workers that meet a requirement that names none: for more workers than lines."""
        found = []
        for line in self.by_requirement.values():
            if line.requirement.worker is None:
                serves = registry.candidates.any(requirement.joined(line.requirement), tuple(Standing))
            else:
                named = registry.workers.called(line.requirement.worker)
                serves = any(requirement.met_by(worker) and line.requirement.met_by(worker) for worker in named)
            if serves or line.requirement == requirement:
                found.append(line)
        return found

    def _beside(self, line: WaitingLine) -> dict[WaitingLine, None]:
        """The lines that are filed where this one is."""
        if line.requirement.worker is not None:
            return self._named.setdefault(line.requirement.worker, {})
        return self._filed.setdefault(line.label, {})


def ahead(lines: Iterable[WaitingLine], place: Place) -> int:
    """The number of jobs in these lines that go before a job at that place."""
    return sum(bisect_left(line.places, place) for line in lines)


def _served(lines: Iterable[WaitingLine], worker: Worker) -> Iterator[WaitingLine]:
    return (line for line in lines if line.requirement.met_by(worker))
