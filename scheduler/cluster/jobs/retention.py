"""Removes jobs that ended longer ago than ``keep`` seconds, a few at a time.

Ages are taken from the wall clock, which can be wrong. So retention uses ``CautiousTime``. It begins
at the newest time found in a job, or at the wall clock's if that is earlier: after a long downtime,
too, jobs are removed gradually, not all at once.

Jobs are looked at in the order of their ends. If none of the first ones is old enough, the next sweep
looks at those after them, and in the end begins again: a job with a time in the future must not keep
those that ended after it.

What is left of a job that a client removed is kept as long after that.
"""

from __future__ import annotations

from itertools import islice

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from scheduler.cluster.ledger import Ledger
from scheduler.daemon.cautious_time import CautiousTime
from scheduler.daemon.services import Periodic
from scheduler.errors import StoreFailed
from scheduler.model import Job

#: Seconds between looks, how many of the jobs that ended first are looked at, and how many may go at a time.
SWEEP_INTERVAL_SECONDS = 10.0
JOBS_EXAMINED_PER_SWEEP = 5_000
REMOVED_PER_SWEEP = 500


class Retention(Periodic):
    """Removes old jobs at intervals. ``keep`` in seconds; ``clock`` measures how much time has really passed."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, ledger: Ledger, keep: float) -> None:
        super().__init__(clock, SWEEP_INTERVAL_SECONDS, self._look)
        self._ledger = ledger
        self._keep = keep
        self._time = CautiousTime(clock, ledger.now)
        # how many of those that ended first the next look passes over
        self._skip = 0

    def startService(self) -> None:
        """Begin; the ledger must be loaded."""
        self._time.begin(max(map(_newest, self._ledger.registry.jobs.finished.all()), default=self._ledger.now()))
        super().startService()

    def _look(self) -> None:
        registry, limit = self._ledger.registry, self._time.read() - self._keep
        if self._ledger.store_problem:
            return
        jobs = list(registry.jobs.finished.first(JOBS_EXAMINED_PER_SWEEP, self._skip))
        over = (job for job in jobs if job.over and _newest(job) < limit)
        gone = [job.ref for job in islice(over, REMOVED_PER_SWEEP)]
        self._skip = self._skip + JOBS_EXAMINED_PER_SWEEP if jobs and not gone else 0
        if gone:
            self._log.info("letting go of {count} jobs that ended longer ago than they are kept", count=len(gone))
        gone += [each.ref for each in islice(registry.removed.values(), REMOVED_PER_SWEEP) if each.removed_at < limit]
        if gone:
            self._ledger.learn(*gone).addErrback(lambda reason: reason.trap(StoreFailed))


def _newest(job: Job) -> float:
    """The end of the job by its worker's clock, or its creation by ours, whichever is later: either may be wrong."""
    return max(job.created_at, job.finished_at or 0.0)
