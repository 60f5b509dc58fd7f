"""The table of this worker's jobs: those that run, those whose end is to be reported, those that are kept.

The spools are the only source of truth. The table is the reactor's memory of them, and the link to the scheduler reads
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from scheduler.deferreds import Waiters
from scheduler.messages import JobReport, JobStatus
from scheduler.model import JobSpec
from scheduler.request_keys import RequestKey
from scheduler.threads import Pool
from scheduler.worker.clearing import DiskUse
from scheduler.worker.pidfd import Pidfd
from scheduler.worker.retention import RetentionLimits, SpoolRetention
from scheduler.worker.shim.spool import ProcessId
from scheduler.worker.spools import Spools
from scheduler.worker_interfaces import IJobs

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
    #: The rest of its life; cancelled if the job ends otherwise.
    life: Deferred[None] | None = None
    #: The shim, while this process waits for its end.
    shim: Pidfd | None = None
    #: The shim that has the job, or had it, once that is known.
    shim_identity: ProcessId | None = None
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


@implementer(IJobs)
class Jobs:
    """The table of all jobs. Called on the reactor thread, but for ``find``, which any thread may call."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, pool: Pool, spools: Spools, limits: RetentionLimits) -> None:
        self._pool = pool
        self._spools = spools
        self._jobs: dict[str, RunningJob] = {}
        self._running: dict[str, RunningJob] = {}
        #: In the order of their ends.
        self._unacknowledged: dict[str, RunningJob] = {}
        self._on_end: list[Notify] = []
        self.retention = SpoolRetention(clock, pool, spools, limits, self.running, self._forget, self.tell)

    # the table

    def find(self, job_id: str) -> RunningJob | None:
        return self._jobs.get(job_id)

    def unfinished(self) -> list[RunningJob]:
        """List the jobs that are being started or run."""
        return list(self._running.values())

    def add(self, job: RunningJob) -> None:
        """Take up a job that is being started or runs."""
        self._jobs[job.id] = self._running[job.id] = job

    def drop(self, job: RunningJob) -> None:
        """Forget a job whose start came to nothing."""
        del self._jobs[job.id], self._running[job.id]

    def end(self, job: RunningJob, age: float = 0.0, acknowledged: bool = False, taken: DiskUse | None = None) -> None:
        """Keep a job that has ended ``age`` seconds ago; ``taken`` is what its spool takes, where that is known."""
        self._jobs[job.id] = job
        self._running.pop(job.id, None)
        if not acknowledged:
            self._unacknowledged[job.id] = job
            self._log_end(job.status)
        self.retention.ended.add(job.id, age, acknowledged, taken)

    def tell(self) -> None:
        """Call the listeners of ``on_end``: a job has ended, or starts are refused now, or no longer."""
        self.call(self._on_end)

    def call(self, listeners: Iterable[Notify]) -> None:
        """Call each listener, even if another one fails."""
        for notify in listeners:
            try:
                notify()
            except Exception:
                self._log.failure("a listener failed")

    def _log_end(self, status: JobStatus) -> None:
        job_id, state = status.job_id, status.state.value
        self._log.info("job {job_id} ended: {state} {reason}", job_id=job_id, state=state, reason=status.reason)
        if status.output_error:
            self._log.warn("the output of job {job_id} was cut: {why}", job_id=job_id, why=status.output_error)

    def _forget(self, job_id: str) -> None:
        del self._jobs[job_id]
        self._unacknowledged.pop(job_id, None)

    # IJobs

    def running(self) -> tuple[str, ...]:
        return tuple(job.id for job in self._running.values() if not job.starting)

    def is_starting(self) -> bool:
        return any(job.starting for job in self._running.values())

    def unacknowledged(self) -> tuple[JobReport, ...]:
        return tuple(JobReport(job.status, created_at=job.created_at) for job in self._unacknowledged.values())

    def describe(self, job_ids: Iterable[str]) -> Deferred[tuple[JobReport, ...]]:
        known = [self._jobs[job_id] for job_id in job_ids if job_id in self._jobs]
        unspecified = [job.id for job in known if job.spec is None]

        def described(found: Mapping[str, tuple[JobSpec, float, RequestKey | None]]) -> tuple[JobReport, ...]:
            return tuple(
                JobReport(job.status, *((job.spec, job.created_at, job.key) if job.spec is not None else found[job.id]))
                for job in known
                if job.spec is not None or job.id in found  # otherwise it was removed meanwhile
            )

        return self._pool.run(self._spools.describe_thd, unspecified).addCallback(described)

    def acknowledge(self, job_ids: Iterable[str]) -> None:
        acknowledged = [job_id for job_id in dict.fromkeys(job_ids) if job_id in self._unacknowledged]
        for job_id in acknowledged:
            self._unacknowledged.pop(job_id).spec = None
        if acknowledged:
            written = self._pool.run(self._spools.acknowledge_thd, acknowledged).addCallback(self._acknowledged)
            message = "{count} acknowledgements are not written down"
            written.addErrback(lambda failure: self._log.failure(message, failure, count=len(acknowledged)))

    def _acknowledged(self, found: Mapping[str, DiskUse]) -> None:
        for job_id, taken in found.items():
            if job_id not in self._unacknowledged:  # otherwise it has to be acknowledged once more
                self.retention.ended.acknowledged(job_id, taken)

    def report_again(self) -> None:
        ended = [job for job in self._jobs.values() if job.ended and not job.starting]
        ended.sort(key=lambda job: job.status.finished_at or 0.0)
        self._unacknowledged = {job.id: job for job in ended}
        self.retention.ended.not_acknowledged(self._unacknowledged)

    def expect_acknowledgements(self, expected: bool) -> None:
        self.retention.ended.expect_acknowledgements(expected)

    def on_end(self, notify: Notify) -> None:
        self._on_end.append(notify)

    def refusing(self) -> str:
        return self.retention.refusing
