"""The scheduler as one principal sees it: within its reach, with its name on its jobs and keys.

``Permitted`` has every method of ``IScheduler``. It names the principal in each submission (``Job.created_by``) and in
each idempotency key. If the principal's reach is limited, it refuses workers beyond reach (``Refused``), treats jobs
beyond reach as unknown (``NotFound``), leaves both out of lists, and limits the selectors of submissions.

A method that names a job checks it before the call. A job may go to a worker beyond reach later: a job that another
principal submitted, and whose start was never sent. So results, changes and chunks of output are checked again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import cast

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from scheduler.errors import NotFound, SchedulerError
from scheduler.interfaces import Accepted, IOutputReader, IScheduler
from scheduler.messages import Chunk
from scheduler.model import Job, Stream, Submission, Worker
from scheduler.request_keys import RequestKey
from scheduler.security.permissions import Permissions
from scheduler.security.principals import Principal
from scheduler.views import JobFilter, JobPage, Readiness, WaitingFor, WorkerView


@implementer(IOutputReader)
@frozen
class _Reader:
    """A reader of output that fails with ``NotFound`` once ``check`` does."""

    _reader: IOutputReader
    _check: Callable[[], None]

    @property
    def offset(self) -> int:
        return cast(int, self._reader.offset)

    def read(self) -> Deferred[Chunk]:
        def checked(chunk: Chunk) -> Chunk:
            self._check()
            return chunk

        return self._reader.read().addCallback(checked)

    def close(self) -> None:
        self._reader.close()


@implementer(IScheduler)
class Permitted:
    """The requests that one principal may make. Making one costs next to nothing."""

    def __init__(self, scheduler: IScheduler, principal: Principal) -> None:
        self._scheduler = scheduler
        self._name = str(principal)
        self._permissions = Permissions(principal, self._find)

    # -- jobs

    def submit(self, wanted: Submission) -> Deferred[Accepted]:
        key = None if wanted.key is None else self._own(wanted.key)
        wanted = evolve(wanted, key=key, created_by=self._name)
        if not self._permissions.is_limited:
            return self._scheduler.submit(wanted)
        if key is None or not self._scheduler.replays(key):
            wanted = evolve(wanted, target=self._permissions.limited(wanted.target))
        return self._scheduler.submit(wanted).addCallback(self._accepted)

    def replays(self, key: RequestKey) -> bool:
        return self._scheduler.replays(self._own(key))

    def job(self, job_id: str) -> Job:
        return self._permissions.check_job(self._scheduler.job(job_id))

    def waiting_for(self, job: Job) -> WaitingFor | None:
        return self._scheduler.waiting_for(job) if self._permissions.covers_job(job) else None

    def jobs(self, which: JobFilter, limit: int, cursor: str | None) -> JobPage:
        return self._scheduler.jobs(self._limited(which), limit, cursor)

    def with_specs(self, jobs: Sequence[Job]) -> Deferred[tuple[Job, ...]]:
        if not self._permissions.is_limited:
            return self._scheduler.with_specs(jobs)
        found = self._scheduler.with_specs([job for job in jobs if self._permissions.covers_job(job)])

        def all_of_them(whole: tuple[Job, ...]) -> tuple[Job, ...]:
            by_id = {job.id: job for job in whole}
            return tuple(by_id.get(job.id, job) for job in jobs)

        return found.addCallback(all_of_them)

    def cursor_after(self, job: Job) -> str:
        return self._scheduler.cursor_after(job)

    def watch(self, job_id: str, notify: Callable[[Job], None]) -> Callable[[], None]:
        self._check_job(job_id)

        def hear(job: Job) -> None:
            if self._permissions.covers_job(job):
                notify(job)

        return self._scheduler.watch(job_id, hear)

    def wait(self, job_id: str, seconds: float) -> Deferred[Job]:
        self._check_job(job_id)
        return self._checked(self._scheduler.wait(job_id, seconds))

    def wait_for_attempts(self, job_id: str, seconds: float) -> Deferred[Job]:
        self._check_job(job_id)
        return self._checked(self._scheduler.wait_for_attempts(job_id, seconds))

    def query(self, worker: str, job_id: str) -> Deferred[Job]:
        self._check_known_worker(worker)
        self._check_job(job_id)
        return self._checked(self._scheduler.query(worker, job_id))

    def last_attempt(self, job_id: str) -> Job:
        self._check_job(job_id)
        return self._permissions.check_job(self._scheduler.last_attempt(job_id))

    def stop(self, job_id: str, worker: str | None = None) -> Deferred[Job]:
        self._check_known_worker(worker)
        if self._permissions.is_limited:
            self.last_attempt(job_id)  # the stop of a job that was retried stops this one
        return self._checked(self._scheduler.stop(job_id, worker))

    def stop_matching(self, which: JobFilter) -> Deferred[tuple[Job, ...]]:
        return self._scheduler.stop_matching(self._limited(which))

    def signal(self, job_id: str, signal: str, to: str) -> Deferred[None]:
        self._check_job(job_id)
        return self._scheduler.signal(job_id, signal, to)

    def remove(self, job_id: str) -> Deferred[bool]:
        self._check_job(job_id)
        return self._scheduler.remove(job_id)

    # -- workers

    def workers(self) -> tuple[WorkerView, ...]:
        views = self._scheduler.workers()
        if not self._permissions.is_limited:
            return views
        return tuple(view for view in views if self._permissions.covers_worker(view.worker))

    def worker(self, name: str) -> WorkerView:
        self._permissions.check_worker(name)
        return self._scheduler.worker(name)

    def drain(self, name: str) -> Deferred[WorkerView]:
        self._permissions.check_worker(name)
        return self._scheduler.drain(name)

    def resume(self, name: str) -> Deferred[WorkerView]:
        self._permissions.check_worker(name)
        return self._scheduler.resume(name)

    def forget(self, name: str) -> Deferred[None]:
        self._permissions.check_worker(name)
        return self._scheduler.forget(name)

    # -- output

    def open_output(self, job_id: str, stream: Stream, offset: int) -> IOutputReader:
        self._check_job(job_id)
        reader = self._scheduler.open_output(job_id, stream, offset)
        return _Reader(reader, partial(self._check_job, job_id)) if self._permissions.is_limited else reader

    def read_output(self, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        self._check_job(job_id)
        return self._scheduler.read_output(job_id, stream, offset, size)

    # -- the process itself

    def readiness(self) -> Readiness:
        readiness = self._scheduler.readiness()
        if not self._permissions.is_limited:
            return readiness
        return evolve(readiness, workers_online=sum(view.presence.is_online for view in self.workers()))

    # -- how

    def _find(self, name: str) -> Worker:
        return self._scheduler.worker(name).worker

    def _own(self, key: RequestKey) -> RequestKey:
        return evolve(key, principal=self._name)

    def _check_job(self, job_id: str) -> None:
        if self._permissions.is_limited:
            self.job(job_id)

    def _check_known_worker(self, name: str | None) -> None:
        """Raise ``Refused`` for a worker beyond reach; jobs may still name one that is not known any more."""
        with suppress(NotFound):
            if name is not None:
                self._permissions.check_worker(name)

    def _checked(self, waiting: Deferred[Job]) -> Deferred[Job]:
        return waiting.addCallback(self._permissions.check_job) if self._permissions.is_limited else waiting

    def _accepted(self, accepted: Accepted) -> Accepted:
        """The job of a submission, which came before if it is beyond reach: its worker's labels have changed since."""
        if not self._permissions.covers_job(accepted.job):
            accepted.answered.addErrback(lambda reason: reason.trap(SchedulerError))
        self._permissions.check_job(accepted.job)
        return accepted

    def _limited(self, which: JobFilter) -> JobFilter:
        if not self._permissions.is_limited:
            return which
        self._check_known_worker(which.worker)
        return evolve(which, within=self._permissions.covers_job)
