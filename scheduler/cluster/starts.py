"""Starts: from the choice of a worker to its answer.

A start goes: choose a worker, commit the job as ``starting``, call the worker,
record the answer, answer. When the call shows that nothing was sent the job is
dropped, as if it had never been; when it may have arrived the job is
``unknown`` until its worker reports.
"""

from __future__ import annotations

import uuid

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from scheduler import failpoints
from scheduler.cluster import lifecycle
from scheduler.cluster.keys import Keys
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.placement import Candidate, place
from scheduler.cluster.sharing import shielded
from scheduler.errors import (
    Conflict,
    DeadlineExceeded,
    ShuttingDown,
    StartUnanswered,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
)
from scheduler.interfaces import IWorkerClient, RequestKey
from scheduler.model import IdempotencyKey, Job, JobSpec, JobState, JobStatus, Target, Terms, Worker, WorkerState


class Starts:
    """All starts under way; each runs to its end, whoever asked for it."""

    _log = Logger()

    def __init__(self, ledger: Ledger, client: IWorkerClient) -> None:
        self._ledger = ledger
        self._registry = ledger.registry
        self._client = client
        self.keys = Keys(ledger.registry)
        self._under_way: dict[str, Deferred[Job]] = {}
        self._closed = False

    async def submit(self, spec: JobSpec, target: Target, terms: Terms, key: RequestKey | None) -> Job:
        """See ``IScheduler.submit``."""
        known = self.keys.find(key) if key is not None else None
        if known is not None:
            return self._replay(known)
        with self.keys.in_use(key):
            return await self._submit(spec, target, terms, key)

    def _replay(self, key: IdempotencyKey) -> Job:
        if key.answer is not None:
            return key.answer
        job = self._registry.job(key.job_id)
        if job.state in {JobState.STARTING, JobState.UNKNOWN}:
            raise StartUnanswered(job.worker_name or "", job.id)
        return job

    async def _submit(self, spec: JobSpec, target: Target, terms: Terms, key: RequestKey | None) -> Job:
        if self._closed:
            raise ShuttingDown()
        worker = self._choose(spec, target)
        job = Job(
            id=str(uuid.uuid4()),
            spec=spec,
            state=JobState.STARTING,
            created_at=self._ledger.now(),
            worker_id=worker.id,
            worker_name=worker.name,
            target=target,
            terms=terms,
        )
        start = Deferred.fromCoroutine(self._start(worker, job, key))
        self._under_way[job.id] = start
        try:
            return await shielded(start)
        finally:
            del self._under_way[job.id]

    def under_way(self, job_id: str) -> bool:
        """Whether this process waits for the answer to the start of that job."""
        return job_id in self._under_way

    async def again(self, job: Job) -> None:
        """Send the start of a job once more, to the same worker, which runs it once under its id.

        Of an error nothing follows: as before, nobody can say yet whether a start arrived. ``Conflict``: the id was
        used up before, and the job is ``lost``.
        """
        worker = self._registry.reachable(job)
        start = Deferred.fromCoroutine(self._again(worker, job))
        self._under_way[job.id] = start
        try:
            await shielded(start)
        finally:
            del self._under_way[job.id]

    async def _again(self, worker: Worker, job: Job) -> Job:
        try:
            status = await self._client.start_job(worker, job)
        except Conflict:
            lost = lifecycle.lost(self._registry.job(job.id), "no record", self._ledger.now())
            await self._ledger.update_job(lost)
            raise
        return await self._started(worker, job, status)

    def answered(self, job_id: str) -> Deferred[Job] | None:
        """Fires, or fails, like the start of that job; ``None``: it is not under way."""
        start = self._under_way.get(job_id)
        return None if start is None else shielded(start)

    def close(self) -> Deferred[None]:
        """Take no more; fires when every start under way has been answered."""
        self._closed = True
        starts = [shielded(start) for start in self._under_way.values()]
        return DeferredList(starts, consumeErrors=True).addCallback(lambda _: None)

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def _choose(self, spec: JobSpec, target: Target) -> Worker:
        if target.worker is None:
            candidates = [Candidate(worker, self._registry.load(worker.id)) for worker in self._registry.workers()]
            return place(spec, target.selector or {}, candidates)
        worker = self._registry.worker(target.worker)
        if worker.draining:
            raise Conflict(f"worker {worker.name!r} is draining and takes no new jobs")
        if worker.classic and not spec.classic:
            raise Unsupported(worker.name, "more than a command and a path")
        if worker.state is not WorkerState.ONLINE:
            raise Unreachable(worker.name)
        return worker

    async def _start(self, worker: Worker, job: Job, key: RequestKey | None) -> Job:
        await self._ledger.add_job(job, None if key is None else IdempotencyKey(key.key, key.fingerprint, job.id))
        failpoints.hit("scheduler.after-commit-before-rpc")
        try:
            status = await self._client.start_job(worker, job)
        except (Unreachable, DeadlineExceeded) as error:
            if isinstance(error, Unreachable) and not error.sent:
                await self._ledger.drop_job(job)
                raise
            await self._unanswered(job)
            raise StartUnanswered(worker.name, job.id) from error
        except (Unavailable, Unsupported):
            await self._ledger.drop_job(job)
            raise
        except WorkerFault as fault:
            if worker.classic:
                failed = lifecycle.failed(self._registry.job(job.id), str(fault), self._ledger.now())
                await self._ledger.update_job(failed)
            else:
                await self._unanswered(job)  # it may have come up all the same; the next heartbeat tells
            raise
        failpoints.hit("scheduler.after-rpc-before-record")
        return await self._started(worker, job, status)

    async def _unanswered(self, job: Job) -> None:
        now = self._registry.job(job.id)
        await self._ledger.update_job(lifecycle.unknown(now, "the start was not answered", self._ledger.now()))

    async def _started(self, worker: Worker, job: Job, status: JobStatus) -> Job:
        current = self._registry.job(job.id)  # a heartbeat may have been faster
        now = self._ledger.now()
        if status.job_id != job.id:
            current = evolve(current, remote_id=status.job_id)
        started = lifecycle.reported(current, evolve(status, started_at=status.started_at or now), now)
        key = self._registry.key_of(job.id)
        await self._ledger.update_jobs([started], keys=[] if key is None else [evolve(key, answer=started)])
        self._log.info(
            "job {job_id} on {worker}: {state}", job_id=job.id, worker=worker.name, state=started.state.value
        )
        failpoints.hit("scheduler.before-answer")
        return started
