"""Workers that go: those that deregister, and those that go for good.

A worker that deregisters may come back under its id, so it stays listed as offline, and its unfinished jobs become
``unknown``. A worker that goes for good gives up its unfinished jobs, then it is forgotten.

A removal takes a while: starts under way are answered first, and the ends of the jobs are saved. A worker may register
meanwhile. Then it stays, and so do its jobs, unless they are being given up already. A heartbeat meanwhile is answered
by "register again".
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from scheduler.cluster import lifecycle
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.workers.liveness import Liveness
from scheduler.cluster.workers.reconcile import Reconciler
from scheduler.deferreds import Shared, shielded
from scheduler.errors import Conflict, NotFound, StoreFailed, WorkerOnline
from scheduler.interfaces import IWorkerClient
from scheduler.model import Job, JobState, Worker


@define(eq=False, slots=False)
class Departures:
    """Takes workers out of the registry, or shows them as offline; there is one for each scheduler."""

    _log = Logger()

    _ledger: Ledger
    _liveness: Liveness
    _client: IWorkerClient
    _reconciler: Reconciler
    #: Forgets the channel to a worker, and all other state of it in this process.
    _disconnect: Callable[[str], None]
    #: Seconds for which a worker that deregistered stays listed; 0: it is not listed.
    _keep: float

    def __attrs_post_init__(self) -> None:
        # ids of the workers that go, and have not registered since their removal began
        self._going: set[str] = set()
        self._removals = Shared()

    def __contains__(self, worker_id: str) -> bool:
        return worker_id in self._going

    @property
    def idle(self) -> bool:
        """Whether no worker is being removed."""
        return self._removals.idle

    def stay(self, worker_id: str) -> None:
        """Give up the removal of a worker that has registered."""
        self._going.discard(worker_id)

    async def deregister(self, worker: Worker) -> None:
        """The worker deregisters: it stays listed as offline, or is removed."""
        if worker.is_offline:  # it deregisters again, as the answer was lost
            await shielded(self._ledger.learn(worker))
            return
        why = f"worker {worker.name!r} deregistered"
        now = self._ledger.now()
        # A job that is starting is left to the answer of its start.
        unfinished = [
            job for job in self._ledger.registry.jobs.unfinished(worker.id) if job.state is not JobState.STARTING
        ]
        jobs_saved = self._ledger.learn(*(lifecycle.unknown(job, why, now) for job in unfinished))
        jobs_saved.addErrback(lambda _: None)  # then the save that follows fails, too
        has_jobs = self._ledger.registry.jobs.count_unfinished(worker.id) > 0
        stays = has_jobs if worker.is_core else self._keep > 0
        await shielded(self._go_offline(worker) if stays else self._drop(worker))

    def unlist(self, worker: Worker) -> None:
        """Remove a worker that deregistered, and has no jobs any more."""
        self._drop(worker).addErrback(lambda reason: reason.trap(StoreFailed))  # saved later

    async def forget(self, name: str) -> None:
        """See ``IScheduler.forget``."""
        registry = self._ledger.registry
        try:
            worker = registry.workers.get(name)
        except NotFound:
            # One that deregistered is no worker any more, but its jobs wait for it.
            jobs = [*registry.jobs.unfinished(name), *self._queued_for(name)]
            if not jobs:
                raise
            await self._ledger.decide(*map(self._forgotten, jobs))
            return
        if registry.presences.of(worker.id).is_online:
            raise WorkerOnline(worker.name)
        await self.remove(worker, "forgotten")
        await self._ledger.decide(*map(self._forgotten, self._queued_for(worker.id, worker.name)))

    def remove(self, worker: Worker, why: str) -> Deferred[None]:
        """Remove a worker that will not come back under this id; its unfinished jobs are ``lost``, with ``why``.

        Its calls are cut first: jobs whose starts never left are queued again, and not lost. Raises ``Conflict`` if the
        worker has registered meanwhile.
        """
        return self._removals.join(worker.id, lambda: Deferred.fromCoroutine(self._remove(worker, why)))

    async def _remove(self, worker: Worker, why: str) -> None:
        self._going.add(worker.id)
        try:
            self._liveness.reset(worker.id, "it is being forgotten")
            self._client.forget(worker.id)  # ends the calls under way
            await self._reconciler.starts_over(worker.id)
            self._check(worker)
            now = self._ledger.now()
            unfinished = self._ledger.registry.jobs.unfinished(worker.id)
            await self._ledger.decide(*(lifecycle.lost(job, why, now) for job in unfinished))
            self._check(worker)
            if self._ledger.registry.workers.find(worker.id) is not None:  # unless it deregistered meanwhile
                await self._drop(worker)
        finally:
            self._going.discard(worker.id)

    def _check(self, worker: Worker) -> None:
        if worker.id not in self._going:
            raise Conflict(f"worker {worker.name!r} has registered again meanwhile")

    def _queued_for(self, *names: str) -> list[Job]:
        """The jobs that are queued for a worker that had these names, unless another worker has the name now."""
        registry = self._ledger.registry
        left = {name for name in names if not registry.workers.has(name)}
        queued = registry.jobs.unfinished(None)
        return [job for job in queued if job.target is not None and job.target.worker in left]

    def _forgotten(self, job: Job) -> Job:
        now = self._ledger.now()
        if job.state is JobState.QUEUED:
            return lifecycle.failed(job, f"worker {job.worker_name!r} was forgotten", now)
        return lifecycle.lost(job, "forgotten", now)

    def _go_offline(self, worker: Worker) -> Deferred[None]:
        """Show a worker that deregistered as offline, until it comes back or is forgotten."""
        self._disconnect(worker.id)
        self._log.info("worker {name} ({worker_id}) is offline: it deregistered", name=worker.name, worker_id=worker.id)
        return self._ledger.learn(evolve(worker, deregistered_at=self._ledger.now()))

    def _drop(self, worker: Worker) -> Deferred[None]:
        self._disconnect(worker.id)
        self._log.info("worker {name} ({worker_id}) is gone", name=worker.name, worker_id=worker.id)
        return self._ledger.learn(worker.ref)
