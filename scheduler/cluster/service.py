"""What clients can ask of the cluster.

``Cluster`` is the only thing the HTTP API talks to. It decides by the registry,
calls workers through ``IWorkerClient``, and owns every operation it began: a
caller that goes away undoes nothing.

A start goes: choose a worker, commit the job as ``starting``, call the worker,
record the answer, answer. When the call shows that nothing was sent the job is
dropped, as if it had never been; when it may have arrived the job is
``unknown`` until its worker reports.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore, maybeDeferred
from twisted.logger import Logger
from zope.interface import implementer

from scheduler.cluster import lifecycle
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.membership import Membership
from scheduler.cluster.output import Outputs
from scheduler.cluster.placement import Candidate, place
from scheduler.cluster.sharing import Shared, shielded
from scheduler.errors import (
    Conflict,
    DeadlineExceeded,
    NotFound,
    ShuttingDown,
    StartUnanswered,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
)
from scheduler.interfaces import (
    IOutputReader,
    IScheduler,
    IWorkerClient,
    JobFilter,
    JobPage,
    Readiness,
    Target,
    WorkerView,
)
from scheduler.model import Chunk, Job, JobSpec, JobState, JobStatus, Stream, Worker, WorkerState

T = TypeVar("T")

#: Seconds a stop may take beyond the job's own ``stop_grace``.
STOP_MARGIN = 5.0

#: Stops asked for at once when many jobs are stopped together.
STOPS_AT_ONCE = 16


@implementer(IScheduler)
class Cluster:
    """The scheduler itself."""

    _log = Logger()

    def __init__(self, ledger: Ledger, client: IWorkerClient, membership: Membership, outputs: Outputs) -> None:
        self._ledger = ledger
        self._registry = ledger.registry
        self._client = client
        self._membership = membership
        self._outputs = outputs
        self._queries = Shared()
        self._starts: dict[str, Deferred[Job]] = {}
        self._stopping = False

    # -- jobs

    def submit(self, spec: JobSpec, target: Target) -> Deferred[Job]:
        return self._own(self._submit(spec, target))

    def job(self, job_id: str) -> Job:
        return self._registry.job(job_id)

    def jobs(self, which: JobFilter, limit: int, cursor: str | None) -> JobPage:
        return self._registry.page(which, limit, cursor)

    def wait(self, job_id: str, seconds: float) -> Deferred[Job]:
        return self._ledger.wait(job_id, seconds)

    def query(self, worker: str, job_id: str) -> Deferred[Job]:
        return self._own(self._query(self._job_on(worker, job_id)))

    def stop(self, job_id: str, worker: str | None = None) -> Deferred[Job]:
        job = self._job_on(worker, job_id) if worker is not None else self._registry.job(job_id)
        return self._own(self._stop(job))

    def stop_matching(self, which: JobFilter) -> Deferred[tuple[Job, ...]]:
        jobs = [job for job in self._registry.matching(which) if not job.state.final]
        asking = DeferredSemaphore(STOPS_AT_ONCE)
        stops = [Deferred.fromCoroutine(self._stop(job, asking.run)) for job in jobs]

        def as_they_are(_: object) -> tuple[Job, ...]:
            return tuple(self._registry.find_job(job.id) or job for job in jobs)

        # Each failure shows in the state of its job.
        return shielded(DeferredList(stops, consumeErrors=True).addCallback(as_they_are))

    # -- workers

    def workers(self) -> tuple[WorkerView, ...]:
        return tuple(self._view(worker) for worker in self._registry.workers())

    def worker(self, name: str) -> WorkerView:
        return self._view(self._registry.worker(name))

    def drain(self, name: str) -> Deferred[WorkerView]:
        return self._own(self._set_draining(name, True))

    def resume(self, name: str) -> Deferred[WorkerView]:
        return self._own(self._set_draining(name, False))

    def forget(self, name: str) -> Deferred[None]:
        return self._own(self._forget(name))

    # -- output

    def open_output(self, job_id: str, stream: Stream, offset: int) -> IOutputReader:
        return self._outputs.open(job_id, stream, offset)

    def read_output(self, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        return self._outputs.read(job_id, stream, offset, size)

    # -- the process itself

    def readiness(self) -> Readiness:
        reasons = []
        if self._stopping:
            reasons.append("shutting down")
        if self._ledger.store_problem:
            reasons.append(f"the store fails: {self._ledger.store_problem}")
        online = sum(worker.state is WorkerState.ONLINE for worker in self._registry.workers())
        return Readiness(tuple(reasons), online)

    def shut_down(self) -> Deferred[None]:
        """Take no new work; fires when every start under way has been answered."""
        self._stopping = True
        starts = [shielded(start) for start in self._starts.values()]
        return DeferredList(starts, consumeErrors=True).addCallback(lambda _: None)

    # -- how

    def _own(self, operation: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        return shielded(Deferred.fromCoroutine(operation))

    def _view(self, worker: Worker) -> WorkerView:
        return WorkerView(worker, self._registry.running_jobs(worker.id))

    def _job_on(self, worker: str, job_id: str) -> Job:
        """The job, if it is that worker's, who may have gone; ``NotFound``."""
        job = self._registry.find_job(job_id)
        if job is not None and worker in {job.worker_id, job.worker_name}:
            return job
        self._registry.worker(worker)
        raise NotFound("job", job_id)

    def _reachable(self, job: Job) -> Worker:
        worker = self._registry.find_worker(job.worker_id)
        if worker is None or worker.state is not WorkerState.ONLINE:
            raise Unreachable(job.worker_name or job.worker_id or "none")
        return worker

    async def _submit(self, spec: JobSpec, target: Target) -> Job:
        if self._stopping:
            raise ShuttingDown()
        worker = self._choose(spec, target)
        job = Job(
            id=str(uuid.uuid4()),
            spec=spec,
            state=JobState.STARTING,
            created_at=self._ledger.now(),
            worker_id=worker.id,
            worker_name=worker.name,
        )
        start = Deferred.fromCoroutine(self._start(worker, job))
        self._starts[job.id] = start
        try:
            return await shielded(start)
        finally:
            del self._starts[job.id]

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

    async def _start(self, worker: Worker, job: Job) -> Job:
        await self._ledger.add_job(job)
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
        await self._ledger.update_job(started)
        self._log.info(
            "job {job_id} on {worker}: {state}", job_id=job.id, worker=worker.name, state=started.state.value
        )
        return self._registry.job(job.id)

    async def _query(self, job: Job) -> Job:
        if job.state.final:
            return job
        worker = self._reachable(job)
        await self._queries.join(job.id, lambda: Deferred.fromCoroutine(self._ask(worker, job)))
        return self._registry.job(job.id)

    async def _ask(self, worker: Worker, job: Job) -> None:
        if job.state is JobState.STARTING and job.id in self._starts:
            await shielded(self._starts[job.id])
            job = self._registry.job(job.id)
        try:
            status = await self._client.query_job(worker, job.id_on_worker)
        except NotFound:
            await self._no_record(job)
            return
        reported = lifecycle.reported_classic if worker.classic else lifecycle.reported
        await self._ledger.update_job(reported(self._registry.job(job.id), status, self._ledger.now()))

    async def _stop(self, job: Job, ask: Callable[..., Deferred[Any]] = maybeDeferred) -> Job:
        """``ask`` makes the call to the worker, when it is time."""
        if job.state.final:
            return job
        if job.id in self._starts:
            await DeferredList([shielded(self._starts[job.id])], consumeErrors=True)
            job = self._registry.job(job.id)
            if job.state.final:
                return job
        worker = self._reachable(job)
        await self._ledger.update_job(evolve(job, stop_requested_at=job.stop_requested_at or self._ledger.now()))
        try:
            await ask(self._client.stop_job, worker, job.id_on_worker)
        except NotFound:
            return await self._no_record(job)
        seconds = job.spec.stop_grace + STOP_MARGIN
        job = await self._ledger.wait(job.id, seconds)
        if not job.state.final:
            raise DeadlineExceeded(f"stop of job {job.id}", seconds, job.id)
        return job

    async def _no_record(self, job: Job) -> Job:
        """Its worker does not know it."""
        await self._ledger.update_job(lifecycle.lost(self._registry.job(job.id), "no record", self._ledger.now()))
        return self._registry.job(job.id)

    async def _set_draining(self, name: str, draining: bool) -> WorkerView:
        worker = evolve(self._registry.worker(name), draining=draining)
        await self._ledger.update_worker(worker)
        return self._view(worker)

    async def _forget(self, name: str) -> None:
        try:
            worker = self._registry.worker(name)
        except NotFound:
            # One that deregistered is no worker any more, but its jobs wait for it.
            orphans = self._registry.unfinished(name)
            if not orphans:
                raise
            now = self._ledger.now()
            await self._ledger.update_jobs([lifecycle.lost(job, "forgotten", now) for job in orphans])
            return
        if worker.state is WorkerState.ONLINE:
            raise Conflict(f"worker {worker.name!r} is online; stop it first")
        await self._membership.remove(worker, "forgotten")
