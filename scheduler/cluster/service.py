"""The requests that clients can make of the cluster.

``Cluster`` is the only thing the HTTP API talks to. It decides by the registry,
calls workers through ``IWorkerClient``, and owns every operation it began: a
caller that goes away undoes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from scheduler.cluster import lifecycle
from scheduler.cluster.changes import Change, JobChanged
from scheduler.cluster.filters import cursor_after
from scheduler.cluster.jobs.attendance import Attendance
from scheduler.cluster.jobs.backoff import Backoff
from scheduler.cluster.jobs.flights import Flights
from scheduler.cluster.jobs.outlook import Outlook
from scheduler.cluster.jobs.removals import Removals
from scheduler.cluster.jobs.signals import Signals
from scheduler.cluster.jobs.stops import Stops
from scheduler.cluster.jobs.submissions import Submissions
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.listing import EXAMINED_PER_PAGE
from scheduler.cluster.output.outputs import Outputs
from scheduler.cluster.reach import Reach
from scheduler.cluster.waits import Waits
from scheduler.cluster.workers.departures import Departures
from scheduler.cluster.workers.reconcile import Reconciler
from scheduler.deferreds import shielded
from scheduler.errors import NotFound, SchedulerError, StoreFailed, WorkerOnline
from scheduler.interfaces import Accepted, IOutputReader, IScheduler
from scheduler.messages import Chunk
from scheduler.model import Job, JobState, RequestKey, Stream, Submission, Worker
from scheduler.views import JobFilter, JobPage, Readiness, WaitingFor, WorkerView

T = TypeVar("T")


@implementer(IScheduler)
class Cluster:
    """The scheduler as its clients see it."""

    def __init__(
        self,
        clock: IReactorTime,
        ledger: Ledger,
        waits: Waits,
        submissions: Submissions,
        flights: Flights,
        backoff: Backoff,
        stops: Stops,
        signals: Signals,
        removals: Removals,
        reconciler: Reconciler,
        departures: Departures,
        outputs: Outputs,
        attendance: Attendance,
        outlook: Outlook,
        reach: Reach,
    ) -> None:
        self._clock = clock
        self._ledger = ledger
        self._registry = ledger.registry
        self._waits = waits
        self._reconciler = reconciler
        self._submissions = submissions
        self._flights = flights
        self._backoff = backoff
        self._stops = stops
        self._signals = signals
        self._removals = removals
        self._departures = departures
        self._outputs = outputs
        self._attendance = attendance
        self._outlook = outlook
        self._reach = reach

    # -- jobs

    def submit(self, wanted: Submission) -> Deferred[Accepted]:
        def unheard(accepted: Accepted) -> None:
            accepted.answered.addErrback(lambda reason: reason.trap(SchedulerError))

        return shielded(Deferred.fromCoroutine(self._submissions.submit(wanted)), unheard)

    def replays(self, key: RequestKey) -> bool:
        return self._submissions.keys.replays(key)

    def job(self, job_id: str) -> Job:
        return self._registry.jobs.get(job_id)

    def jobs(self, which: JobFilter, limit: int, cursor: str | None) -> JobPage:
        return self._registry.jobs.listing.page(which, limit, cursor)

    def with_specs(self, jobs: Sequence[Job]) -> Deferred[tuple[Job, ...]]:
        return self._ledger.specs.fill(jobs)

    def cursor_after(self, job: Job) -> str:
        return cursor_after(job)

    def watch(self, job_id: str, notify: Callable[[Job], None]) -> Callable[[], None]:
        def hear(change: Change) -> None:
            if isinstance(change, JobChanged) and change.after is not None:
                notify(change.after)

        return self._ledger.feed.subscribe(hear, self._registry.jobs.get(job_id).ref)

    def wait(self, job_id: str, seconds: float) -> Deferred[Job]:
        waiting = self._waits.until_ended(job_id, seconds)
        return self._attendance.while_waiting(job_id, waiting) if seconds else waiting

    def wait_for_attempts(self, job_id: str, seconds: float) -> Deferred[Job]:
        waiting = Deferred.fromCoroutine(self._waits.until_attempts_ended(job_id, seconds))
        return self._attendance.while_waiting(job_id, waiting) if seconds else waiting

    def query(self, worker: str, job_id: str) -> Deferred[Job]:
        return Deferred.fromCoroutine(self._query(self._job_on(worker, job_id)))

    def waiting_for(self, job: Job) -> WaitingFor | None:
        return self._outlook.of(job)

    def last_attempt(self, job_id: str) -> Job:
        return self._registry.jobs.last_attempt(job_id)

    def stop(self, job_id: str, worker: str | None = None) -> Deferred[Job]:
        job = self._job_on(worker, job_id) if worker is not None else self._registry.jobs.get(job_id)
        return self._own(self._stops.stop(job))

    def stop_matching(self, which: JobFilter) -> Deferred[tuple[Job, ...]]:
        return self._own(self._stop_matching(which))

    def signal(self, job_id: str, signal: str, to: str) -> Deferred[None]:
        return self._own(self._signals.send(job_id, signal, to))

    def remove(self, job_id: str) -> Deferred[bool]:
        return self._own(self._removals.remove(job_id))

    # -- workers

    def workers(self) -> tuple[WorkerView, ...]:
        return tuple(self._view(worker) for worker in self._registry.workers.all())

    def worker(self, name: str) -> WorkerView:
        return self._view(self._registry.workers.get(name))

    def drain(self, name: str) -> Deferred[WorkerView]:
        return self._own(self._set_draining(name, True))

    def resume(self, name: str) -> Deferred[WorkerView]:
        return self._own(self._set_draining(name, False))

    def forget(self, name: str) -> Deferred[None]:
        return self._own(self._forget(name))

    # -- output

    def open_output(self, job_id: str, stream: Stream, offset: int) -> IOutputReader:
        return self._attendance.while_reading(job_id, self._outputs.open(job_id, stream, offset))

    def read_output(self, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        return self._outputs.read(job_id, stream, offset, size)

    # -- the process itself

    def readiness(self) -> Readiness:
        reasons = []
        if self._flights.closed:
            reasons.append("shutting down")
        if self._ledger.store_problem:
            reasons.append(StoreFailed.sentence(self._ledger.store_problem))
        return Readiness(tuple(reasons), self._registry.presences.online)

    def refuse(self) -> None:
        """Take no new work from now on; ``readiness`` says so."""
        self._submissions.close()

    def shut_down(self) -> Deferred[None]:
        """Take no new work; fires when every start under way has been answered."""
        return self._submissions.close()

    # -- how

    def _own(self, operation: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        return shielded(Deferred.fromCoroutine(operation))

    async def _stop_matching(self, which: JobFilter) -> tuple[Job, ...]:
        jobs: dict[str, Job] = {}
        cursor: str | None = None
        while True:
            page = self._registry.jobs.listing.page(which, EXAMINED_PER_PAGE, cursor)
            last = [self._registry.jobs.last_attempt(job.id) for job in page.jobs]
            jobs |= {job.id: job for job in last if not job.over}
            if page.next is None:
                break
            cursor = page.next
            await deferLater(self._clock, 0)
        await self._stops.stop_all(jobs.values())
        found = [list(self._registry.jobs.attempts(job.id)) or [job] for job in jobs.values()]
        return tuple(attempts[-1] for attempts in found)

    def _view(self, worker: Worker) -> WorkerView:
        presence = self._registry.presences.of(worker.id)
        held_by = presence.refusing or self._backoff.reason(worker.id)
        reason = held_by if presence.is_online else presence.reason
        return WorkerView(worker, presence, self._registry.jobs.count_unfinished(worker.id), reason)

    def _job_on(self, worker: str, job_id: str) -> Job:
        """The job, if it is that worker's, which may be gone or renamed. Raises ``NotFound`` if it is not."""
        job = self._registry.jobs.find(job_id)
        if job is not None and worker in {job.worker_id, job.worker_name}:
            return job
        if self._registry.workers.get(worker).id == (job and job.worker_id):
            return self._registry.jobs.get(job_id)
        raise NotFound("job", job_id)

    async def _query(self, job: Job) -> Job:
        if job.state.final or job.state is JobState.QUEUED:
            return job
        self._reach.worker_of(job)
        starting = self._flights.over(job.id)
        if starting is not None:
            await starting
            job = self._registry.jobs.get(job.id)
            if job.state is JobState.QUEUED or job.id in self._flights:
                return job  # that start never left: to ask would seal the id against the next
        if not job.state.final:
            await self._reconciler.ask(self._reach.worker_of(job), job)  # it may have gone to another worker
        return self._registry.jobs.get(job.id)

    async def _set_draining(self, name: str, draining: bool) -> WorkerView:
        worker = self._registry.workers.get(name)
        await self._ledger.amend(worker, partial(evolve, draining=draining))
        return self._view(self._registry.workers.get(worker.id))

    async def _forget(self, name: str) -> None:
        try:
            worker = self._registry.workers.get(name)
        except NotFound:
            # One that deregistered is no worker any more, but its jobs wait for it.
            jobs = [*self._registry.jobs.unfinished(name), *self._queued_for(name)]
            if not jobs:
                raise
            await self._ledger.decide(*map(self._forgotten, jobs))
            return
        if self._registry.presences.of(worker.id).is_online:
            raise WorkerOnline(worker.name)
        await self._departures.remove(worker, "forgotten")
        await self._ledger.decide(*map(self._forgotten, self._queued_for(worker.id, worker.name)))

    def _queued_for(self, *names: str) -> list[Job]:
        """The jobs that are queued for a worker that had these names, unless another worker has the name now."""
        left = {name for name in names if not self._registry.workers.has(name)}
        queued = self._registry.jobs.unfinished(None)
        return [job for job in queued if job.target is not None and job.target.worker in left]

    def _forgotten(self, job: Job) -> Job:
        now = self._ledger.now()
        if job.state is JobState.QUEUED:
            return lifecycle.failed(job, f"worker {job.worker_name!r} was forgotten", now)
        return lifecycle.lost(job, "forgotten", now)
