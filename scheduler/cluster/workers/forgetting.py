"""Forgets workers that deregistered longer ago than ``keep`` seconds, and have not registered since.

This does the same as a client's request to forget a worker: the worker's unfinished jobs are lost, and the jobs that
are queued for it fail. A worker that is listed only because of its unfinished jobs is removed once it has none.

The time at which a worker deregistered is stored, by the wall clock, so time passes while the scheduler does not run.
If the clock is set back, no worker is forgotten early: it stays until the clock has caught up. If the clock is set
ahead while this process runs, the change is followed slowly (``scheduler.daemon.cautious_time``). A process begins with
the time of the wall clock.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.cluster.ledger import Ledger
from scheduler.daemon.cautious_time import CautiousTime
from scheduler.daemon.services import Periodic
from scheduler.errors import SchedulerError
from scheduler.model import Worker
from scheduler.units import format_duration

#: Seconds between sweeps, and the workers that one sweep forgets at most.
SWEEP_INTERVAL_SECONDS = 10.0
FORGOTTEN_PER_SWEEP = 100


@define(eq=False, slots=False)
class Forgetting(Periodic):
    """Forgets workers at intervals. ``keep`` in seconds; ``clock`` measures how much time really passed.

    ``forget`` forgets the worker with an id; ``remove`` removes a worker that has no jobs.
    """

    _log = Logger()

    _clock: IReactorTime
    _ledger: Ledger
    _forget: Callable[[str], Deferred[None]]
    _remove: Callable[[Worker], None]
    _keep: float
    #: Ids of the workers that are being forgotten.
    _under_way: set[str] = field(init=False, factory=set)

    def __attrs_post_init__(self) -> None:
        super().__init__(self._clock, SWEEP_INTERVAL_SECONDS, self._look)
        self._time = CautiousTime(self._clock, self._ledger.now)

    @property
    def idle(self) -> bool:
        """Whether no worker is being forgotten."""
        return not self._under_way

    def startService(self) -> None:
        self._time.begin(self._ledger.now())
        super().startService()

    def _look(self) -> None:
        limit = self._time.read() - self._keep
        if self._ledger.store_problem:
            return
        offline = self._ledger.registry.presences.offline_workers()
        over = (worker for worker in offline if self._is_over(worker, limit))
        for worker in islice(over, FORGOTTEN_PER_SWEEP):
            if worker.is_core and not self._has_jobs(worker):
                self._remove(worker)
            else:
                self._begin(worker)

    def _has_jobs(self, worker: Worker) -> bool:
        return self._ledger.registry.jobs.count_unfinished(worker.id) > 0

    def _is_over(self, worker: Worker, limit: float) -> bool:
        """Whether the worker deregistered before ``limit``, and is not being forgotten yet."""
        since = worker.deregistered_at
        if since is None or worker.id in self._under_way:
            return False
        if worker.is_core:
            return not self._has_jobs(worker) or (self._keep > 0 and since <= limit)
        return since <= limit

    def _begin(self, worker: Worker) -> None:
        self._log.info(
            "worker {name} ({worker_id}) is forgotten: it deregistered longer than {keep} ago",
            name=worker.name,
            worker_id=worker.id,
            keep=format_duration(self._keep),
        )
        self._under_way.add(worker.id)
        self._forget(worker.id).addErrback(self._failed, worker.id).addBoth(
            lambda _: self._under_way.discard(worker.id)
        )

    def _failed(self, reason: Failure, worker_id: str) -> None:
        """Log that the worker came back meanwhile, or its removal could not be saved. The next sweep decides again."""
        error = reason.value
        if reason.check(SchedulerError):
            self._log.info("worker {worker_id} is not forgotten: {why}", worker_id=worker_id, why=str(error))
        else:
            self._log.failure("forgetting worker {worker_id} went wrong", reason, worker_id=worker_id)
