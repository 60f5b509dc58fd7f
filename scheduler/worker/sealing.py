"""Ids that are being sealed: found to be those of jobs, or used up, so that no start of them runs any more."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.deferreds import Shared
from scheduler.errors import NotFound, SchedulerError
from scheduler.messages import JobStatus
from scheduler.threads import Pool
from scheduler.worker.recovery import RecoveredSpool
from scheduler.worker.spools import Spools


class Sealing:
    """Called on the reactor thread."""

    _log = Logger()

    def __init__(self, pool: Pool, spools: Spools, take: Callable[[RecoveredSpool], JobStatus]) -> None:
        """``take`` is called with a job that was found though this process did not know it; answers how it is."""
        self._pool = pool
        self._spools = spools
        self._take = take
        self._under_way = Shared()

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._under_way

    def seal(self, job_id: str) -> Deferred[JobStatus]:
        """Of an id that is no known job's; see ``IJobRunner.seal``."""
        return self._under_way.join(job_id, lambda: self._seal(job_id))

    def _seal(self, job_id: str) -> Deferred[JobStatus]:
        sealed = self._pool.run(self._spools.seal_thd, job_id)
        return sealed.addCallback(self._found_or_sealed, job_id).addErrback(self._failed, job_id)

    def _found_or_sealed(self, found: RecoveredSpool | None, job_id: str) -> JobStatus:
        if found is None:
            raise NotFound("job", job_id)
        return self._take(found)

    def _failed(self, failure: Failure, job_id: str) -> Failure:
        if failure.check(SchedulerError) is None:
            self._log.failure("job {job_id} is not sealed", failure, job_id=job_id)
        return failure
