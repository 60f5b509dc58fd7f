"""Removals that clients ask for: of an ended job, with its output.

Theory of operation. The job's worker goes first. That a removal was asked for is committed
(``remove_requested_at``) before the worker is told, and the job is removed here once the
worker has said that nothing is left of it. So whoever dies in between, the removal is
carried out, and there is never output of a job that nobody knows. A worker that could not
be told yet is told when it comes online, and every ``RETRY_INTERVAL_SECONDS``, as of stops.

A job that no known worker has, or that ran on a core worker, is removed at
once: nobody can be told, or nothing is to be removed there. So is a job of a worker of an
earlier version, which can't be told: it keeps the output as long as that of any other job.

A removed job leaves a ``RemovedJob``, with the key of its request. A report of it that a
worker sends later is acknowledged, and the worker is told to remove the job, instead of
making it anew.
"""

from __future__ import annotations

from functools import partial

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from scheduler.cluster.changes import Change, JobChanged
from scheduler.cluster.jobs.flights import Flights
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.reach import Reach
from scheduler.daemon import failpoints
from scheduler.deferreds import Rounds, Shared
from scheduler.errors import (
    DeadlineExceeded,
    JobNotEnded,
    NotFound,
    SchedulerError,
    StoreFailed,
    Unavailable,
    Unsupported,
)
from scheduler.interfaces import IWorkerClient
from scheduler.model import Job, RemovedJob, Worker


class Removals:
    """Removes jobs for clients; there is one for each scheduler."""

    _log = Logger()

    def __init__(self, ledger: Ledger, client: IWorkerClient, flights: Flights, reach: Reach) -> None:
        self._ledger = ledger
        self._registry = ledger.registry
        self._client = client
        self._flights = flights
        self._reach = reach
        self._under_way = Shared()
        self._rounds = Rounds("removing the jobs")

    @property
    def idle(self) -> bool:
        """Whether no removal is being carried out."""
        return self._under_way.idle and self._rounds.idle

    def retry(self) -> None:
        """Carry out what waits for workers that are online, or not known any more."""
        for worker_id in self._registry.jobs.awaited_by_removals():
            self._begin_round(worker_id)

    async def remove(self, job_id: str) -> bool:
        """See ``IScheduler.remove``."""
        job = await self._flights.settled(job_id)
        if not job.over:
            raise self._ledger.endings.failure(job_id) or JobNotEnded(job_id, job.state.value)
        if self._holder(job) is not None and job.remove_requested_at is None:
            await self._ledger.amend(job, partial(evolve, remove_requested_at=self._ledger.now()))
            failpoints.hit("scheduler.after-removal-commit")
        return await self._carry_out(job_id)

    def hear(self, change: Change) -> None:
        if not isinstance(change, JobChanged):
            self._begin_round(change.ref.id)

    def _begin_round(self, worker_id: str) -> None:
        if self._can_ask(worker_id) and self._registry.jobs.removing(worker_id):
            self._rounds.begin(worker_id, partial(self._round, worker_id))

    def reported_again(self, worker: Worker, job_ids: list[str]) -> None:
        """Tell the worker once more to remove jobs which it reports, and which were removed here."""
        telling = Deferred.fromCoroutine(self._tell(worker, job_ids))
        telling.addErrback(lambda reason: self._log.failure("telling about removed jobs went wrong", reason))

    async def _tell(self, worker: Worker, job_ids: list[str]) -> None:
        for job_id in job_ids:
            try:
                await self._client.remove_job(worker, job_id)
            except SchedulerError as error:  # its end is acknowledged, so it goes with the others of its age
                self._log.info("removed job {job_id} stays with its worker: {why}", job_id=job_id, why=str(error))

    async def _round(self, worker_id: str) -> None:
        for job in self._registry.jobs.removing(worker_id):
            if job.id in self._under_way:
                continue
            try:
                if not await self._carry_out(job.id) and not self._can_ask(worker_id):
                    return  # it is tried again
            except SchedulerError as error:
                self._log.warn("job {job_id} is not removed: {why}", job_id=job.id, why=str(error))

    def _can_ask(self, worker_id: str) -> bool:
        return self._registry.workers.find(worker_id) is None or self._registry.presences.of(worker_id).is_online

    def _holder(self, job: Job) -> Worker | None:
        """The worker that has to be told to remove the job; ``None``: there is none."""
        worker = self._registry.workers.find(job.worker_id)
        return None if worker is None or worker.is_core else worker

    def _carry_out(self, job_id: str) -> Deferred[bool]:
        return self._under_way.join(job_id, lambda: Deferred.fromCoroutine(self._remove(job_id)))

    async def _remove(self, job_id: str) -> bool:
        """Remove the job; whether it is removed. Raises errors after which it does not help to try again."""
        job = self._registry.jobs.find(job_id)
        if job is None:
            return True
        if self._holder(job) is not None:
            try:
                await self._client.remove_job(self._reach.worker_of(job), job.id_on_worker)
            except NotFound:
                pass
            except Unsupported as error:
                self._log.info("the output of removed job {job_id} stays: {why}", job_id=job_id, why=str(error))
            except JobNotEnded as error:
                await self._ledger.amend(job, partial(evolve, remove_requested_at=None))
                raise JobNotEnded(job_id, error.state) from None
            except (Unavailable, DeadlineExceeded):
                return False
            failpoints.hit("scheduler.after-removal-rpc")
        # If the job was removed before, and came back, its key is in the rest from then.
        key = self._registry.removed.get(job_id, job).key
        try:
            await self._ledger.decide(job.ref, RemovedJob(job_id, self._ledger.now(), key))
        except StoreFailed:
            if job.remove_requested_at is None:
                raise
            return False
        self._log.info("job {job_id} is removed", job_id=job_id)
        return True
