"""The jobs that wait for a worker, so that the next one for any worker is found at once.

Jobs with the same requirement stand in one line, ordered by priority, then by arrival. Of the first jobs of all lines
that it serves (``scheduler.cluster.jobs.line_index``), a worker gets the one with the highest priority, then the
earliest arrival. So a line that no worker can serve holds up no other, however many jobs wait in it.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, insort
from itertools import chain, count

from scheduler.cluster.jobs.line_index import LineIndex, Place, WaitingLine
from scheduler.cluster.requirement import Requirement
from scheduler.model import Job, Worker


class Lines:
    """All jobs that wait, in their lines; there is one ``Lines`` for each scheduler."""

    def __init__(self) -> None:
        #: The lines.
        self.index = LineIndex()
        # job id -> where it stands
        self._places: dict[str, tuple[WaitingLine, Place]] = {}
        # job id -> number of arrival, kept as long as the job may come back
        self._arrivals: dict[str, int] = {}
        self._numbers = count()

    @property
    def idle(self) -> bool:
        """Whether no job waits, nor may come back to its place."""
        return self.index.idle and not (self._places or self._arrivals)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._places

    def add(self, job: Job) -> bool:
        """Have the job wait, at its earlier place if it had one; whether it is the only one in its line."""
        assert job.target is not None
        line = self.index.open(Requirement.of(job.spec, job.target))
        number = self._arrivals.setdefault(job.id, next(self._numbers))
        place = (-job.terms.priority, number, job.id)
        alone = not line.places
        insort(line.places, place)
        self._places[job.id] = line, place
        return alone

    def leave(self, job_id: str) -> None:
        """Take the job out of its line, if it stands there; it may come back to its place."""
        if job_id not in self._places:
            return
        line, place = self._places.pop(job_id)
        del line.places[bisect_left(line.places, place)]
        if not line.places:
            self.index.close(line)

    def forget(self, job_id: str) -> None:
        """Take the job out of its line for good."""
        self.leave(job_id)
        self._arrivals.pop(job_id, None)

    def first(self, worker: Worker, free: bool) -> str | None:
        """The id of the job that is next for that worker; without a ``free`` slot, only a job that names the worker."""
        lines = chain(self.index.naming(worker), self.index.selecting(worker) if free else ())
        place = min((line.places[0] for line in lines), default=None)
        return None if place is None else place[2]

    def before(self, worker: Worker, priority: int) -> bool:
        """Whether a job waits for a slot of that worker that goes before a newcomer of that priority."""
        return any(line.places[0][0] <= -priority for line in self.index.selecting(worker))

    def before_all(self, requirement: Requirement, priority: int) -> bool:
        """Whether one line tells that ``before`` is true of every worker that meets a requirement, which names none."""
        return any(line.places[0][0] <= -priority for line in self.index.covering(requirement))

    def named(self, worker: Worker) -> bool:
        """Whether a job that names that worker waits."""
        return next(self.index.naming(worker), None) is not None

    def standing(self, job: Job) -> tuple[Requirement, Place]:
        """The requirement of a queued job, and its place, or the place that it would have if it waited now."""
        if job.id in self._places:
            line, place = self._places[job.id]
            return line.requirement, place
        assert job.target is not None
        number = self._arrivals.get(job.id, sys.maxsize)
        return Requirement.of(job.spec, job.target), (-job.terms.priority, number, job.id)
