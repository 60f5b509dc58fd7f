"""Permissions: the workers and jobs that a principal may see and drive, which are those within its reach.

A token may be limited to the workers that have certain labels. Other workers are beyond its reach, and so are their
jobs. The rule for a job:

- A job on a known worker is within reach if this worker is.
- A job without a worker yet is within reach if the worker that it names is, or if it can only start within reach: its
  selector includes all the labels.
- If the job's worker is not known any more, its labels are not either. The job is within reach if its selector includes
  all the labels, or if the same principal submitted it.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from scheduler.errors import BeyondReach, NoMatch, NotFound, Refused
from scheduler.model import Job, Worker
from scheduler.security.principals import Principal
from scheduler.terms import Target


@frozen
class Permissions:
    """The permissions of a principal; ``find`` finds a worker by id or name, or raises ``NotFound``."""

    _principal: Principal
    _find: Callable[[str], Worker]

    @property
    def is_limited(self) -> bool:
        """Whether any worker can be beyond reach."""
        return bool(self._principal.reach)

    def covers_worker(self, worker: Worker) -> bool:
        """Whether the worker is within reach."""
        return self._principal.reach.items() <= worker.labels.items()

    def covers_job(self, job: Job) -> bool:
        """Whether the job is within reach."""
        if not self.is_limited:
            return True
        target = job.target
        selector = None if target is None else target.selector
        stays_within = selector is not None and self._principal.reach.items() <= selector.items()
        if job.worker_id is None and stays_within:
            return True
        named = target.worker if job.worker_id is None and target is not None else job.worker_id
        if named is not None:
            try:
                return self.covers_worker(self._find(named))
            except NotFound:
                if job.created_by == str(self._principal):
                    return True
        return stays_within

    def check_worker(self, name: str) -> None:
        """Raise ``Refused`` if the worker with that id or name is beyond reach, ``NotFound`` if there is none."""
        if self.is_limited and not self.covers_worker(self._find(name)):
            raise Refused(f"worker {name!r} is beyond the reach of {self._principal}")

    def check_job(self, job: Job) -> Job:
        """The job. Raises ``BeyondReach`` if it is beyond reach."""
        if not self.covers_job(job):
            raise BeyondReach("job", job.id)
        return job

    def limited(self, target: Target) -> Target:
        """The target, with a selector that also has the labels of the reach. A worker is named by its id.

        So a job that waits does not follow a worker's name, or a worker that changes its labels, beyond the reach.
        Raises ``NoMatch`` if the selector contradicts the labels; for a named worker raises what ``check_worker`` does.
        """
        if not self.is_limited:
            return target
        if target.worker is not None:
            self.check_worker(target.worker)
            return Target(worker=self._find(target.worker).id, selector=self._principal.reach)
        selector = dict(target.selector or {})
        for key, value in self._principal.reach.items():
            if selector.setdefault(key, value) != value:
                raise NoMatch(
                    f"no worker matches: the selector wants {key}={selector[key]}, and {self._principal} reaches only "
                    f"workers with {key}={value}"
                )
        return Target(selector=selector)
