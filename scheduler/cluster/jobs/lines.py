"""The jobs that wait for a worker, so that the next one for any worker is found at once.

Jobs with the same requirement (``scheduler.cluster.requirement``) stand in one line, ordered by priority, then by
arrival. A worker is served by the lines that name it, and by those whose selector it matches. Of their first jobs it
gets the one with the highest priority, then the earliest arrival. So a line that no worker can serve holds up no other,
however many jobs wait in it.

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
    """All lines of waiting jobs; there is one ``Lines`` for each scheduler."""

    def __init__(self) -> None:
        self._lines: dict[Requirement, WaitingLine] = {}
        # worker's id or name -> its lines; dicts, for their order
        self._named: dict[str, dict[WaitingLine, None]] = {}
        # label -> lines of selectors that are filed under it
        self._filed: dict[Label | None, dict[WaitingLine, None]] = {}
        # job id -> where it stands
        self._places: dict[str, tuple[Requirement, Place]] = {}
        # job id -> number of arrival, kept as long as the job may come back
        self._arrivals: dict[str, int] = {}
        self._numbers = count()
        #: A number that changes whenever a line is added.
        self.version = 0

    @property
    def idle(self) -> bool:
        """Whether no job waits, nor may come back to its place."""
        return not (self._lines or self._named or self._filed or self._places or self._arrivals)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._places

    def add(self, job: Job) -> bool:
        """Have the job wait, at its earlier place if it had one; whether it is the only one in its line."""
        assert job.target is not None
        requirement = Requirement.of(job.spec, job.target)
        line = self._lines.get(requirement) or self._open(requirement)
        number = self._arrivals.setdefault(job.id, next(self._numbers))
        place = (-job.terms.priority, number, job.id)
        alone = not line.places
        insort(line.places, place)
        self._places[job.id] = line.requirement, place
        return alone

    def leave(self, job_id: str) -> None:
        """Take the job out of its line, if it stands there; it may come back to its place."""
        requirement, place = self._places.pop(job_id, (None, None))
        if requirement is None or place is None:
            return
        line = self._lines[requirement]
        del line.places[bisect_left(line.places, place)]
        if not line.places:
            self._close(line)

    def forget(self, job_id: str) -> None:
        """Take the job out of its line for good."""
        self.leave(job_id)
        self._arrivals.pop(job_id, None)

    def first(self, worker: Worker, free: bool) -> str | None:
        """The id of the job that is next for that worker; without a ``free`` slot, only a job that names the worker."""
        lines = chain(self._naming(worker), self._selecting(worker) if free else ())
        places = [line.places[0] for line in lines if line.requirement.met_by(worker)]
        return min(places)[2] if places else None

    def before(self, worker: Worker, priority: int) -> bool:
        """Whether a job waits for a slot of that worker that goes before a newcomer of that priority."""
        return any(
            line.places[0][0] <= -priority and line.requirement.met_by(worker) for line in self._selecting(worker)
        )

    def before_all(self, requirement: Requirement, priority: int) -> bool:
        """Whether one line tells that ``before`` is true of every worker that meets a requirement, which names none."""
        return any(
            line.places[0][0] <= -priority and line.requirement.covers(requirement)
            for label in (None, *requirement.labels)
            for line in self._filed.get(label, ())
        )

    def named(self, worker: Worker) -> bool:
        """Whether a job that names that worker waits."""
        return any(line.requirement.met_by(worker) for line in self._naming(worker))

    def standing(self, job: Job) -> tuple[Requirement, Place]:
        """The requirement of a queued job, and its place, or the place that it would have if it waited now."""
        found = self._places.get(job.id)
        if found is not None:
            return found
        assert job.target is not None
        number = self._arrivals.get(job.id, sys.maxsize)
        return Requirement.of(job.spec, job.target), (-job.terms.priority, number, job.id)

    def competing(self, requirement: Requirement, workers: Iterable[Worker]) -> list[WaitingLine]:
        """The line of that requirement, if there is one, and all others that one of these workers serves, too."""
        lines = {
            line: None
            for worker in workers
            for line in chain(self._naming(worker), self._selecting(worker))
            if line.requirement.met_by(worker)
        }
        own = self._lines.get(requirement)
        return list(lines if own is None else lines | {own: None})

    def competing_for_many(self, requirement: Requirement, registry: Registry) -> list[WaitingLine]:
        """Like ``competing``, with all workers that meet a requirement that names none: for more workers than lines."""
        found = []
        for line in self._lines.values():
            if line.requirement.worker is None:
                serves = registry.candidates.any(requirement.joined(line.requirement), tuple(Standing))
            else:
                named = registry.called(line.requirement.worker)
                serves = any(requirement.met_by(worker) and line.requirement.met_by(worker) for worker in named)
            if serves or line.requirement == requirement:
                found.append(line)
        return found

    def demands(self) -> list[Requirement]:
        """The requirements of all lines, once each."""
        return list(self._lines)

    def lines(self) -> int:
        """The number of lines."""
        return len(self._lines)

    def waits_for(self, requirement: Requirement) -> bool:
        """Whether a job with that requirement waits."""
        return requirement in self._lines

    @staticmethod
    def ahead(lines: Iterable[WaitingLine], place: Place) -> int:
        """The number of jobs in these lines that go before a job at that place."""
        return sum(bisect_left(line.places, place) for line in lines)

    def _naming(self, worker: Worker) -> Iterator[WaitingLine]:
        for name in {worker.id, worker.name}:
            yield from self._named.get(name, ())

    def _selecting(self, worker: Worker) -> Iterator[WaitingLine]:
        yield from self._filed.get(None, ())
        for label in worker.labels.items():
            yield from self._filed.get(label, ())

    def _open(self, requirement: Requirement) -> WaitingLine:
        line = WaitingLine(requirement)
        if requirement.worker is None:
            line.label = min(
                requirement.labels, key=lambda label: (len(self._filed.get(label, ())), label), default=None
            )
        self._lines[requirement] = line
        self.version += 1
        self._beside(line)[line] = None
        return line

    def _close(self, line: WaitingLine) -> None:
        del self._lines[line.requirement]
        beside = self._beside(line)
        del beside[line]
        if not beside and line.requirement.worker is not None:
            del self._named[line.requirement.worker]
        elif not beside:
            del self._filed[line.label]

    def _beside(self, line: WaitingLine) -> dict[WaitingLine, None]:
        """The lines that are filed where this one is."""
        if line.requirement.worker is not None:
            return self._named.setdefault(line.requirement.worker, {})
        return self._filed.setdefault(line.label, {})
