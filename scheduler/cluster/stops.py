"""Stops: asked of the worker, and over when the worker says that the job has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore, maybeDeferred

from scheduler.cluster import lifecycle
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.sharing import shielded
from scheduler.cluster.starts import Starts
from scheduler.errors import DeadlineExceeded, NotFound
from scheduler.interfaces import IWorkerClient
from scheduler.model import Job

#: Seconds a stop may take beyond the job's own ``stop_grace``.
STOP_MARGIN = 5.0

#: Stops asked for at once when many jobs are stopped together.
STOPS_AT_ONCE = 16


class Stops:
    """Ends jobs."""

    def __init__(self, ledger: Ledger, client: IWorkerClient, starts: Starts) -> None:
        self._ledger = ledger
        self._registry = ledger.registry
        self._client = client
        self._starts = starts

    async def stop(self, job: Job, ask: Callable[..., Deferred[Any]] = maybeDeferred) -> Job:
        """See ``IScheduler.stop``; ``ask`` makes the call to the worker, when it is time."""
        if job.state.final:
            return job
        starting = self._starts.answered(job.id)
        if starting is not None:
            await DeferredList([starting], consumeErrors=True)
            job = self._registry.job(job.id)
            if job.state.final:
                return job
        worker = self._registry.reachable(job)
        await self._ledger.update_job(evolve(job, stop_requested_at=job.stop_requested_at or self._ledger.now()))
        try:
            await ask(self._client.stop_job, worker, job.id_on_worker)
        except NotFound:
            lost = lifecycle.lost(self._registry.job(job.id), "no record", self._ledger.now())
            await self._ledger.update_job(lost)
            return self._registry.job(job.id)
        seconds = job.spec.stop_grace + STOP_MARGIN
        job = await self._ledger.wait(job.id, seconds)
        if not job.state.final:
            raise DeadlineExceeded(f"stop of job {job.id}", seconds, job.id)
        return job

    def stop_all(self, jobs: Iterable[Job]) -> Deferred[None]:
        """Fires when each has ended, or could not be stopped: that shows in its state."""
        asking = DeferredSemaphore(STOPS_AT_ONCE)
        stops = [Deferred.fromCoroutine(self.stop(job, asking.run)) for job in jobs]
        return shielded(DeferredList(stops, consumeErrors=True).addCallback(lambda _: None))
