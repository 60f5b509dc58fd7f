"""A worker's jobs in memory: nothing runs, and tests write the output and end the jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from scheduler.errors import (
    Conflict,
    Invalid,
    JobNotEnded,
    JobNotRunning,
    NotFound,
    OffsetBeyondEnd,
    OutputPruned,
    ShuttingDown,
    Unavailable,
)
from scheduler.messages import Chunk, JobReport, JobStatus
from scheduler.model import JobSpec, JobState, Stream
from scheduler.names import is_id
from scheduler.request_keys import RequestKey
from scheduler.worker_interfaces import IJobRunner, IJobs

_Notify = Callable[[], None]


@define(eq=False)
class _Entry:
    """A job and its output."""

    status: JobStatus
    spec: JobSpec
    created_at: float
    key: RequestKey | None = None
    output: dict[Stream, bytearray] = field(factory=lambda: {stream: bytearray() for stream in Stream})
    watchers: list[tuple[Stream, _Notify]] = field(factory=list)
    waiting: list[Deferred[JobStatus]] = field(factory=list)
    acknowledged: bool = False


@implementer(IJobRunner, IJobs)
class FakeJobRunner:
    """Deterministic jobs. ``write`` appends output, ``end`` ends a job; ``wall_time`` gives all times.

    ``refused`` maps commands to the reasons why they may not run. A stop ends the job at once unless ``ends_on_stop``
    is false, and so does the signal SIGKILL. ``started``, ``stops``, ``signals`` and ``removals`` record calls.
    ``shortage`` is why the machine can start nothing now, ``resists`` why no job can be removed; ``""``: it can.
    ``left`` maps job ids to those of their processes that no signal ends, and that still run.
    """

    def __init__(self, wall_time: Callable[[], float] = lambda: 1000.0) -> None:
        self.refused: dict[str, str] = {}
        self.ends_on_stop = True
        self._refusing = ""
        self.left: dict[str, tuple[int, ...]] = {}
        self.shutting_down = False
        self.shortage = ""
        self.started: list[tuple[str, JobSpec, float | None]] = []
        self.stops: list[tuple[str, bool]] = []
        self.signals: list[tuple[str, str, str]] = []
        self.removals: list[str] = []
        self.resists = ""
        #: Whether the scheduler may still acknowledge ends.
        self.awaiting = True
        self._wall_time = wall_time
        self._jobs: dict[str, _Entry] = {}
        self._ended: list[str] = []
        self._used: set[str] = set()
        self._pruned: set[str] = set()
        self._notify: list[_Notify] = []
        self._chosen = 0
        self._lock = threading.Lock()

    # what a test does

    def prune(self, job_id: str) -> None:
        """Drop an ended, acknowledged job with its output."""
        assert self._jobs[job_id].acknowledged, f"{job_id} was not acknowledged"
        self._remove(job_id)

    def refuse(self, why: str) -> None:
        """Start no job at present; ``""``: start jobs again."""
        self._refusing = why
        for notify in self._notify:
            notify()

    def write(self, job_id: str, data: bytes, stream: Stream = Stream.STDOUT) -> None:
        """Append to the job's output."""
        entry = self._entry(job_id)
        assert not entry.status.state.final, f"{job_id} has ended"
        with self._lock:
            entry.output[stream] += data
        for watched, notify in list(entry.watchers):
            if watched is stream:
                notify()

    def end(
        self,
        job_id: str,
        exit_code: int | None = 0,
        state: JobState | None = None,
        reason: str | None = None,
        signal: str | None = None,
        output_error: str = "",
    ) -> JobStatus:
        """End the job, by default with that exit code."""
        entry = self._entry(job_id)
        assert not entry.status.state.final, f"{job_id} has ended"
        if state is None:
            state = JobState.SUCCEEDED if exit_code == 0 else JobState.FAILED
        if reason is None:
            reason = f"exit status {exit_code}" if exit_code else ""
        status = evolve(
            entry.status,
            state=state,
            reason=reason,
            exit_code=exit_code,
            signal=signal,
            finished_at=self._wall_time(),
            stdout_bytes=len(entry.output[Stream.STDOUT]),
            stderr_bytes=len(entry.output[Stream.STDERR]),
            tree="exited",
            output_error=output_error,
            leftover=self.left.get(job_id, ()),
        )
        self._finish(entry, status)
        return status

    # IJobRunner

    def start(
        self, job_id: str, spec: JobSpec, created_at: float | None, key: RequestKey | None = None
    ) -> Deferred[JobStatus]:
        self.started.append((job_id, spec, created_at))
        if job_id and not is_id(job_id):
            return fail(Invalid("jobID", "must match [A-Za-z0-9_-]{1,64}"))
        known = self._jobs.get(job_id)
        if known is not None:
            return succeed(known.status)
        if job_id in self._used:
            return fail(Conflict(f"job {job_id!r} is not started: its id was used up"))
        if self.shutting_down:
            return fail(ShuttingDown())
        if self.shortage:
            return fail(Unavailable(self.shortage))
        if not job_id:
            self._chosen += 1
            job_id = f"job-{self._chosen}"
        now = self._wall_time()
        reason = self.refused.get(spec.command)
        status = JobStatus(job_id, JobState.RUNNING, started_at=None if reason else now)
        entry = _Entry(status, spec, now if created_at is None else created_at, key)
        self._jobs[job_id] = entry
        if reason:
            refusal = evolve(
                status, state=JobState.FAILED, reason=reason, finished_at=now, stdout_bytes=0, stderr_bytes=0
            )
            self._finish(entry, refusal)
        return succeed(entry.status)

    def stop(self, job_id: str, wait: bool) -> Deferred[JobStatus]:
        try:
            entry = self._entry(job_id)
        except NotFound as error:
            return fail(error)
        self.stops.append((job_id, wait))
        if not entry.status.state.final and self.ends_on_stop:
            self.end(job_id, None, JobState.STOPPED, "signal: terminated", "SIGTERM")
        if entry.status.state.final:
            return succeed(evolve(entry.status, leftover=self.left.get(job_id, ())))
        if not wait:
            return succeed(entry.status)
        waiting: Deferred[JobStatus] = Deferred(entry.waiting.remove)
        entry.waiting.append(waiting)
        return waiting

    def signal(self, job_id: str, signal: str, to: str) -> Deferred[None]:
        try:
            entry = self._entry(job_id)
        except NotFound as error:
            return fail(error)
        if entry.status.state.final:
            return fail(JobNotRunning(job_id, entry.status.state.value))
        if job_id in self.left:
            return fail(Conflict(f"{signal} can't be sent to processes of job {job_id!r}"))
        self.signals.append((job_id, signal, to))
        if signal == "SIGKILL":
            self.end(job_id, None, reason="signal: killed", signal=signal)
        return succeed(None)

    def remove(self, job_id: str) -> Deferred[None]:
        self.removals.append(job_id)
        entry = self._jobs.get(job_id)
        if self.resists:
            return fail(Unavailable(self.resists))
        if entry is not None and not entry.status.state.final:
            return fail(JobNotEnded(job_id, entry.status.state.value))
        self._used.add(job_id)
        if entry is not None:
            self._remove(job_id)
        return succeed(None)

    def query(self, job_id: str) -> JobStatus:
        return self._entry(job_id).status

    def seal(self, job_id: str) -> Deferred[JobStatus]:
        known = self._jobs.get(job_id)
        if known is not None:
            return succeed(known.status)
        if is_id(job_id):
            self._used.add(job_id)
        return fail(NotFound("job", job_id))

    def read_output_thd(self, job_id: str, stream: Stream, offset: int, size: int) -> Chunk:
        if job_id in self._pruned:
            raise OutputPruned(job_id)
        with self._lock:
            entry = self._entry(job_id)
            output = entry.output[stream]
            if offset > len(output):
                raise OffsetBeyondEnd(offset, len(output))
            data = bytes(output[offset : offset + size])
            end = entry.status.state.final and offset + len(data) == len(output)
            return Chunk(data, offset, end, len(output), entry.status.output_error if end else "")

    def watch_output(self, job_id: str, stream: Stream, notify: _Notify) -> Deferred[_Notify]:
        try:
            entry = self._entry(job_id)
        except NotFound as error:
            return fail(error)
        watcher = (stream, notify)
        entry.watchers.append(watcher)

        def remove() -> None:
            if watcher in entry.watchers:
                entry.watchers.remove(watcher)

        return succeed(remove)

    # IJobs

    def running(self) -> tuple[str, ...]:
        return tuple(job_id for job_id, entry in self._jobs.items() if not entry.status.state.final)

    def is_starting(self) -> bool:
        return False

    def unacknowledged(self) -> tuple[JobReport, ...]:
        ended = [self._jobs[job_id] for job_id in self._ended]
        return tuple(JobReport(entry.status, created_at=entry.created_at) for entry in ended if not entry.acknowledged)

    def describe(self, job_ids: Iterable[str]) -> Deferred[tuple[JobReport, ...]]:
        known = [self._jobs[job_id] for job_id in job_ids if job_id in self._jobs]
        return succeed(
            tuple(
                JobReport(entry.status, evolve(entry.spec, stdin=None, script=None), entry.created_at, entry.key)
                for entry in known
            )
        )

    def acknowledge(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            entry = self._jobs.get(job_id)
            if entry is not None and entry.status.state.final:
                entry.acknowledged = True

    def report_again(self) -> None:
        for entry in self._jobs.values():
            entry.acknowledged = False

    def expect_acknowledgements(self, expected: bool) -> None:
        self.awaiting = expected

    def on_end(self, notify: _Notify) -> None:
        self._notify.append(notify)

    def refusing(self) -> str:
        return self._refusing

    def _entry(self, job_id: str) -> _Entry:
        try:
            return self._jobs[job_id]
        except KeyError:
            raise NotFound("job", job_id) from None

    def _remove(self, job_id: str) -> None:
        entry = self._jobs.pop(job_id)
        self._ended.remove(job_id)
        self._used.add(job_id)
        self._pruned.add(job_id)
        for _, notify in list(entry.watchers):
            notify()

    def _finish(self, entry: _Entry, status: JobStatus) -> None:
        with self._lock:
            entry.status = status
        self._ended.append(status.job_id)
        waiting, entry.waiting = entry.waiting, []
        for deferred in waiting:
            deferred.callback(status)
        for _, notify in list(entry.watchers):
            notify()
        for notify in self._notify:
            notify()
