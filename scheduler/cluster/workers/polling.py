"""Jobs of workers that can't tell when one ends: they are asked, about once a second.

A worker that speaks only the core protocol sends no heartbeats, so
the end of its jobs is polled. Each worker has a round of its own, one question
at a time, so one that is slow holds up no other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from scheduler.cluster.registry import Registry
from scheduler.daemon.services import Periodic
from scheduler.daemon.sweep import Sweep
from scheduler.deferreds import Rounds
from scheduler.errors import DeadlineExceeded, SchedulerError, Unavailable
from scheduler.model import Job, WorkerState

#: Seconds between the rounds of one worker.
POLL_INTERVAL_SECONDS = 1.0


class Polling(Periodic):
    """Asks every online core worker about each of its unfinished jobs."""

    def __init__(self, clock: IReactorTime, registry: Registry, query: Callable[[str, str], Deferred[Job]]) -> None:
        """``query`` takes a worker's id and a job's, and records the answer."""
        super().__init__(clock, POLL_INTERVAL_SECONDS, self._look)
        self._registry = registry
        self._sweep = Sweep(clock, self._ask)
        self._query = query
        self._rounds = Rounds("asking about the jobs")

    def stopService(self) -> None:
        super().stopService()
        self._sweep.stop()

    @property
    def idle(self) -> bool:
        """Whether no worker is being asked."""
        return self._rounds.idle

    def _look(self) -> None:
        self._sweep.begin(self._registry.core_workers())

    def _ask(self, worker_id: str) -> None:
        worker = self._registry.find_worker(worker_id)
        if worker is not None and worker.state is WorkerState.ONLINE:
            self._rounds.begin(worker_id, partial(self._round, worker_id))

    async def _round(self, worker_id: str) -> None:
        for job in self._registry.unfinished(worker_id):
            try:
                await self._query(worker_id, job.id)
            except (Unavailable, DeadlineExceeded):
                return  # liveness draws the conclusions
            except SchedulerError:
                continue  # a fault about one job is none about the others
