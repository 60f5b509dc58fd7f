"""One job as the reactor remembers it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from scheduler.deferreds import Waiters
from scheduler.messages import JobStatus, RequestKey
from scheduler.model import JobSpec
from scheduler.worker.pidfd import Pidfd
from scheduler.worker.shim.spool import Identity

Notify = Callable[[], None]


@define(eq=False)
class RunningJob:
    """A job that is being started, runs, or has ended."""

    status: JobStatus
    #: Without stdin and script; ``None`` once the end is acknowledged, as it is rarely asked for after that.
    spec: JobSpec | None
    #: ``None``, like ``key``, for a job that was acknowledged before this process began.
    created_at: float | None
    #: The key of the request that the job came from.
    key: RequestKey | None = None
    #: The start has not been answered.
    starting: bool = False
    stop_asked: bool = False
    #: The previous worker process was asked to start the job.
    taken_back: bool = False
    #: The log says that the job has ended and can't be decided on yet.
    undecided: bool = False
    #: The rest of its life; cancelled where the job ends otherwise.
    life: Deferred[None] | None = None
    #: The shim, while its end is waited for.
    shim: Pidfd | None = None
    #: The shim that has the job, or had it, once that is known.
    shim_identity: Identity | None = None
    for_start: Waiters[JobStatus] = field(factory=Waiters)
    for_end: Waiters[JobStatus] = field(factory=Waiters)
    #: Called at the end, as no output comes after it.
    watchers: list[Notify] = field(factory=list)

    @property
    def id(self) -> str:
        return self.status.job_id

    @property
    def ended(self) -> bool:
        return self.status.state.final

    def when_started(self) -> Deferred[JobStatus]:
        """Fires with the status once the start was answered, and fails as the start does."""
        return self.for_start.wait() if self.starting else succeed(self.status)
