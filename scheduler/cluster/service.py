"""The requests that clients can make of the cluster.

``Cluster`` is the only thing the HTTP API talks to. It gives each request to the part of the cluster that carries it
out, and owns every operation it began: a caller that goes away undoes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from attrs import define, evolve
from twisted.internet.defer import Deferred
from zope.interface import implementer

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
from scheduler.cluster.output.outputs import Outputs
from scheduler.cluster.waits import Waits
from scheduler.cluster.workers.departures import Departures
from scheduler.cluster.workers.queries import Queries
from scheduler.deferreds import shielded
from scheduler.errors import SchedulerError, StoreFailed
from scheduler.interfaces import Accepted, IOutputReader, IScheduler
from scheduler.messages import Chunk
from scheduler.model import Job, Stream, Submission, Worker
from scheduler.request_keys import RequestKey
from scheduler.views import JobFilter, JobPage, Readiness, WaitingFor, WorkerView

T = TypeVar("T")


@implementer(IScheduler)
@define(eq=False, slots=False)
class Cluster:
    """The scheduler as its clients see it."""

    _ledger: Ledger
    _waits: Waits
    _submissions: Submissions
    _flights: Flights
    _backoff: Backoff
    _stops: Stops
    _signals: Signals
    _removals: Removals
    _queries: Queries
    _departures: Departures
    _outputs: Outputs
    _attendance: Attendance
    _outlook: Outlook
    _notes: Callable[[], tuple[str, ...]]

    def __attrs_post_init__(self) -> None:
        self._registry = self._ledger.registry

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
        return self._ledger.with_specs(jobs)

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
        return Deferred.fromCoroutine(self._queries.query(self._queries.job_on(worker, job_id)))

    def waiting_for(self, job: Job) -> WaitingFor | None:
        return self._outlook.of(job)

    def last_attempt(self, job_id: str) -> Job:
        return self._registry.jobs.last_attempt(job_id)

    def stop(self, job_id: str, worker: str | None = None) -> Deferred[Job]:
        job = self._queries.job_on(worker, job_id) if worker is not None else self._registry.jobs.get(job_id)
        return self._own(self._stops.stop(job))

    def stop_matching(self, which: JobFilter) -> Deferred[tuple[Job, ...]]:
        return self._own(self._stops.stop_matching(which))

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
        return self._own(self._departures.forget(name))

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
        return Readiness(tuple(reasons), self._registry.presences.online, self._notes())

    def refuse(self) -> None:
        """Take no new work from now on; ``readiness`` says so."""
        self._submissions.close()

    def shut_down(self) -> Deferred[None]:
        """Take no new work; fires when every start under way has been answered."""
        return self._submissions.close()

    # -- how

    def _own(self, operation: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        return shielded(Deferred.fromCoroutine(operation))

    def _view(self, worker: Worker) -> WorkerView:
        presence = self._registry.presences.of(worker.id)
        held_by = presence.refusing or self._backoff.reason(worker.id)
        reason = held_by if presence.is_online else presence.reason
        return WorkerView(worker, presence, self._registry.jobs.count_unfinished(worker.id), reason)

    async def _set_draining(self, name: str, draining: bool) -> WorkerView:
        worker = self._registry.workers.get(name)
        await self._ledger.amend(worker, partial(evolve, draining=draining))
        return self._view(self._registry.workers.get(worker.id))
