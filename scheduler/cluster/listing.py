"""Pages of jobs, newest first.

A filter may match nothing, and there may be 100,000 jobs. So one page looks at ``EXAMINED_PER_PAGE`` jobs at most and
says where the next page begins: a listing never holds up the reactor. If the filter allows it, only a part of the jobs
is looked at: those created within its bounds, those that are not over, or those with the same prefix of their ids.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping, Sequence

from scheduler.cluster.filters import WorkerNames, cursor_after, place_of, selects
from scheduler.model import FINAL, Job, Worker
from scheduler.views import JobFilter, JobPage

#: Jobs that are looked at for one page, which takes about 10 ms.
EXAMINED_PER_PAGE = 10_000

#: Characters by which ids are indexed; no ``id_prefix`` is shorter. For UUIDs this makes 4096 lists at most.
INDEXED_PREFIX = 3

#: ``created_at`` and id of a job.
Place = tuple[float, str]


class Listing:
    """Lists the jobs of a mapping. Each change of the mapping has to be reported to it."""

    def __init__(self, jobs: Mapping[str, Job], find_worker: Callable[[str], Worker]) -> None:
        """``find_worker`` finds the worker that has an id or name now, or raises ``NotFound``."""
        self._jobs = jobs
        self._find_worker = find_worker
        self._worker_names = WorkerNames()
        # places, ascending: of all jobs, of those that are not over, and of those with the same first characters
        self._all: list[Place] = []
        self._open: list[Place] = []
        self._by_prefix: dict[str, list[Place]] = {}

    def put(self, job: Job, before: Job | None) -> None:
        """Add a job, or replace ``before``, the same job as it was before."""
        self._worker_names.replace(before, job)
        place = (job.created_at, job.id)
        if before is None:
            insort(self._all, place)
            insort(self._by_prefix.setdefault(job.id[:INDEXED_PREFIX], []), place)
        was_open = before is not None and not before.over
        if was_open and job.over:
            _remove(self._open, place)
        elif not (was_open or job.over):
            insort(self._open, place)

    def remove(self, job: Job) -> None:
        self._worker_names.replace(job, None)
        place, prefix = (job.created_at, job.id), job.id[:INDEXED_PREFIX]
        _remove(self._all, place)
        _remove(self._by_prefix[prefix], place)
        if not self._by_prefix[prefix]:
            del self._by_prefix[prefix]
        if not job.over:
            _remove(self._open, place)

    def matching(self, which: JobFilter) -> Iterator[Job]:
        """All jobs that the filter selects, newest first. Raises ``NotFound`` if it names an unknown worker.

        Do not change the registry meanwhile.
        """
        worker = self._worker_names.meant_by(which, self._find_worker)
        return (job for job in self._walk(which, None) if selects(which, worker, job))

    def page(self, which: JobFilter, limit: int, cursor: str | None) -> JobPage:
        """At most ``limit`` jobs the filter selects, newest first, from ``cursor`` on.

        A page with a ``next`` may have fewer jobs, or none: the limit of jobs to look at was reached. Raises
        ``NotFound`` if the filter names an unknown worker, ``Invalid`` for a bad cursor.
        """
        worker = self._worker_names.meant_by(which, self._find_worker)
        jobs: list[Job] = []
        last: Job | None = None
        for examined, job in enumerate(self._walk(which, None if cursor is None else place_of(cursor))):
            selected = selects(which, worker, job)
            if last is not None and (examined == EXAMINED_PER_PAGE or (selected and len(jobs) == limit)):
                return JobPage(tuple(jobs), cursor_after(last))
            if selected:
                jobs.append(job)
            last = job
        return JobPage(tuple(jobs))

    def _walk(self, which: JobFilter, before: Place | None) -> Iterator[Job]:
        """The jobs to look at, newest first; only those before the place ``before``, if given."""
        places = self._places(which)
        begin = 0 if which.created_after is None else bisect_left(places, (which.created_after, ""))
        ends = [] if before is None else [before]
        if which.created_before is not None:
            ends.append((which.created_before, ""))
        end = bisect_left(places, min(ends)) if ends else len(places)
        for index in range(end - 1, begin - 1, -1):
            yield self._jobs[places[index][1]]

    def _places(self, which: JobFilter) -> Sequence[Place]:
        if which.id_prefix is not None:
            return self._by_prefix.get(which.id_prefix[:INDEXED_PREFIX], ())
        if which.orphan or (which.states and not which.states & FINAL):
            return self._open
        return self._all


def _remove(places: list[Place], place: Place) -> None:
    del places[bisect_left(places, place)]
