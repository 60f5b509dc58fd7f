"""Lets go of jobs whose time is over, a few at a time.

A job is kept so long after its end by the wall clock, which can be wrong: whoever
sets it a year ahead must not lose all jobs in the next minute. So retention has a
time of its own. It starts at the newest time that any job tells of, or at what the
wall clock says if that is earlier, and follows the wall clock at most ``CATCH_UP_FACTOR``
times as fast as seconds really pass. A step of an hour changes nothing; after a
step of a year there is a week to see that the oldest jobs go early and to set the
clock right. After a long holiday of the scheduler, too, jobs go day by day.

The key of a job that a client removed is kept as long after that.
"""

from __future__ import annotations

from itertools import islice

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.cluster.ledger import Ledger
from scheduler.daemon.services import Periodic
from scheduler.errors import StoreFailed
from scheduler.model import Job

#: Seconds between looks, how many of the jobs that ended first are looked at, and how many may go at a time.
SWEEP_INTERVAL_SECONDS = 10.0
JOBS_EXAMINED_PER_SWEEP = 5_000
REMOVED_PER_SWEEP = 500

#: How fast retention's time catches up with the wall clock: a day in six hours.
CATCH_UP_FACTOR = 4.0


class Retention(Periodic):
    """``keep`` in seconds; ``clock`` measures how much time has really passed."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, ledger: Ledger, keep: float) -> None:
        super().__init__(clock, SWEEP_INTERVAL_SECONDS, self._look)
        self._clock = clock
        self._ledger = ledger
        self._keep = keep
        self._now = 0.0
        self._looked = 0.0

    def startService(self) -> None:
        """After the ledger was loaded."""
        wall = self._ledger.now()
        self._now = min(wall, max(map(_newest, self._ledger.registry.finished()), default=wall))
        self._looked = self._clock.seconds()
        super().startService()

    def _look(self) -> None:
        passed = self._clock.seconds() - self._looked
        self._looked += passed
        self._now = min(self._ledger.now(), self._now + CATCH_UP_FACTOR * passed)
        if self._ledger.store_problem:
            return
        registry, limit = self._ledger.registry, self._now - self._keep
        first = registry.finished_first(JOBS_EXAMINED_PER_SWEEP)
        over = (job for job in first if job.over and _newest(job) < limit)
        gone = [job.id for job in islice(over, REMOVED_PER_SWEEP)]
        if gone:
            self._log.info("letting go of {count} jobs that ended longer ago than they are kept", count=len(gone))
            self._ledger.remove_jobs(gone).addErrback(_ignore_store_failure)
        keys = [key.key for key in islice(registry.removed_keys(), REMOVED_PER_SWEEP) if (key.removed_at or 0) < limit]
        if keys:
            self._ledger.remove_keys(keys).addErrback(_ignore_store_failure)


def _newest(job: Job) -> float:
    """When it ended by the clock of its worker, or was made by ours, whichever is later: either may be wrong."""
    return max(job.created_at, job.finished_at or 0.0)


def _ignore_store_failure(reason: Failure) -> None:
    reason.trap(StoreFailed)
