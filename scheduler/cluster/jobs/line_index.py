"""The lines in which jobs wait, found by the workers that serve them.

A line has the jobs with one requirement (``scheduler.cluster.requirement``). A worker serves the lines that name it,
and those whose selector it matches.

A line with a selector is filed under one of the selector's labels, the one with the fewest lines; a worker looks under
each of its own labels. The cost of a lookup grows with the lines found there, not with the number of jobs or of other
workers' lines.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import chain

from attrs import define, field

from scheduler.cluster.candidates import Standing
from scheduler.cluster.registry import Registry
from scheduler.cluster.requirement import Label, Requirement
from scheduler.model import Worker

#: (-priority, number of arrival, job id): the least goes first.
Place = tuple[int, int, str]


@define(eq=False)
class WaitingLine:
    """The jobs with one requirement that wait."""

    requirement: Requirement
    #: The label that the line is filed under; ``None``: the requirement has none.
    label: Label | None = None
    places: list[Place] = field(factory=list)


class LineIndex:
    """All lines with jobs in them, by requirement, by the worker that they name, and by label."""

    def __init__(self) -> None:
        self._lines: dict[Requirement, WaitingLine] = {}
        # worker's id or name -> its lines; dicts, for their order
        self._named: dict[str, dict[WaitingLine, None]] = {}
        # label -> lines of selectors that are filed under it
        self._filed: dict[Label | None, dict[WaitingLine, None]] = {}
        #: A number that changes whenever a line is added.
        self.version = 0

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, requirement: Requirement) -> bool:
        return requirement in self._lines

    @property
    def idle(self) -> bool:
        """Whether there is no line."""
        return not (self._lines or self._named or self._filed)

    def requirements(self) -> list[Requirement]:
        """The requirements of all lines, once each."""
        return list(self._lines)

    def open(self, requirement: Requirement) -> WaitingLine:
        """The line of a requirement; a new one if there is none."""
        line = self._lines.get(requirement)
        if line is None:
            line = self._lines[requirement] = WaitingLine(requirement)
            if requirement.worker is None:
                line.label = min(
                    requirement.labels, key=lambda label: (len(self._filed.get(label, ())), label), default=None
                )
            self.version += 1
            self._beside(line)[line] = None
        return line

    def close(self, line: WaitingLine) -> None:
        """Remove a line in which no job waits any more."""
        del self._lines[line.requirement]
        beside = self._beside(line)
        del beside[line]
        if not beside and line.requirement.worker is not None:
            del self._named[line.requirement.worker]
        elif not beside:
            del self._filed[line.label]

    def naming(self, worker: Worker) -> Iterator[WaitingLine]:
        """The lines that name the worker and that it can serve."""
        for name in {worker.id, worker.name}:
            yield from _served(self._named.get(name, ()), worker)

    def selecting(self, worker: Worker) -> Iterator[WaitingLine]:
        """The lines of selectors that the worker matches and that it can serve."""
        for label in (None, *worker.labels.items()):
            yield from _served(self._filed.get(label, ()), worker)

    def covering(self, requirement: Requirement) -> Iterator[WaitingLine]:
        """The lines that every worker can serve that meets the requirement, which names none."""
        for label in (None, *requirement.labels):
            yield from (line for line in self._filed.get(label, ()) if line.requirement.covers(requirement))

    def competing(self, requirement: Requirement, workers: Iterable[Worker]) -> list[WaitingLine]:
        """The line of that requirement, if there is one, and all others that one of these workers serves, too."""
        lines = {line: None for worker in workers for line in chain(self.naming(worker), self.selecting(worker))}
        own = self._lines.get(requirement)
        return list(lines if own is None else lines | {own: None})

    def competing_for_many(self, requirement: Requirement, registry: Registry) -> list[WaitingLine]:
        """Like ``competing``, with all workers that meet a requirement that names none: for more workers than lines."""
        found = []
        for line in self._lines.values():
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
