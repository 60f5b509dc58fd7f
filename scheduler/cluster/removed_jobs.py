"""The rests of jobs that clients removed, in the order of removal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from scheduler.model import Ref, RemovedJob


class RemovedJobs:
    """The removed jobs of one registry, which reports every change to it."""

    def __init__(self) -> None:
        self._removed: dict[str, RemovedJob] = {}
        #: All removed jobs by id, as they are now.
        self.by_id: Mapping[str, RemovedJob] = self._removed

    def has(self, job_id: str) -> bool:
        """Whether a client removed the job of that id, and not long ago."""
        return job_id in self._removed

    def all(self) -> Iterator[RemovedJob]:
        """All of them; do not change the registry meanwhile."""
        return iter(self._removed.values())

    def surplus(self, keep: int) -> list[Ref]:
        """The names of these beyond the ``keep`` that were removed last, oldest first."""
        return [removed.ref for removed in islice(self._removed.values(), max(0, len(self._removed) - keep))]

    def put(self, removed: RemovedJob) -> None:
        """Add a job as the last to be removed."""
        self._removed.pop(removed.job_id, None)
        self._removed[removed.job_id] = removed

    def drop(self, job_id: str) -> None:
        """Drop the rest of a job, which is known."""
        del self._removed[job_id]
