"""A worker's jobs in memory, over a state folder that outlives the process.

They keep the promises of ``scheduler.worker.runner`` in its order of steps: a start makes the spool, makes a shim begin
the job, and is then answered. Each step takes a moment in which the process can die. A process that starts takes back
the jobs in the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from attrs import define, field
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
from scheduler.worker.own_ids import OwnIds
from scheduler.worker_interfaces import ICommitCount, IHeldId, IJobRunner, IJobs
from tests.simulation.machine import COMMAND, Folder, Machine, Spool
from tests.simulation.process import Process

#: Seconds of one step of a start, or of one write to the disk.
STEP = 0.003


@define(eq=False)
class _Starting:
    """A start without an answer, and its waiting callers."""

    spec: JobSpec
    waiting: list[Deferred[JobStatus]] = field(factory=list)


@implementer(IHeldId)
class FolderId:
    """The worker's id in its folder."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def read(self) -> str:
        return self.folder.worker_id

    def write(self, worker_id: str) -> None:
        self.folder.worker_id = worker_id


@implementer(ICommitCount)
class FolderCount:
    """The highest count of commits that the worker was told, in its folder."""

    def __init__(self, process: Process, folder: Folder) -> None:
        self._process = process
        self._folder = folder

    def read(self) -> int:
        return self._folder.commit_count

    def write(self, count: int) -> None:
        self._process.after(STEP, self._written, count)

    def _written(self, count: int) -> None:
        self._folder.commit_count = count


@implementer(IJobRunner, IJobs)
class SimulatedJobs:
    """The jobs of one worker process. Call ``recover`` first."""

    def __init__(self, process: Process, machine: Machine, folder: Folder, random: Random) -> None:
        self._process = process
        self._machine = machine
        #: The folder with the jobs.
        self.folder = folder
        own = f"{machine.name}-{process.name.replace('.', '-')}"
        folder.folder_id = folder.folder_id or f"secret-{own}"
        self.identity = OwnIds(lambda notify: process.after(0, notify), folder.folder_id, f"nonce-{own}")
        self._random = random
        self._closed = False
        self._chosen = 0
        self._starting: dict[str, _Starting] = {}
        self._sealing: dict[str, list[Deferred[JobStatus]]] = {}
        self._running: dict[str, Spool] = {}
        self._unacknowledged: dict[str, Spool] = {}
        self._for_end: dict[str, list[Deferred[JobStatus]]] = {}
        self._notify: list[Callable[[], None]] = []

    # life

    def recover(self) -> None:
        """Take back the jobs of the previous process."""
        for spool in list(self.folder.spools.values()):
            spool.awaited = False
            if spool.exit is None and not spool.begun and spool.boot_id == self._machine.boot_id:
                del self.folder.spools[spool.job_id]  # as if its start had never come
                continue
            if spool.exit is None:
                if self._machine.runs_job(spool):
                    self._follow(spool)
                    continue
                spool.exit = self._gone(spool)
            if not spool.acknowledged:
                self._unacknowledged[spool.job_id] = spool

    def shut_down(self) -> None:
        """Start nothing more."""
        self._closed = True
        for waiting in self._for_end.values():
            for deferred in waiting:
                deferred.errback(ShuttingDown())
        self._for_end.clear()

    def _gone(self, spool: Spool) -> JobStatus:
        """The status of a job whose shim is gone."""
        now = self._machine.wall_time()
        reason = "its shim was killed by a signal" if spool.boot_id == self._machine.boot_id else "rebooted"
        return JobStatus(spool.job_id, JobState.LOST, reason, spool.started_at, now)

    @property
    def idle(self) -> bool:
        """Whether nothing runs, no caller waits, and all ends were acknowledged."""
        return not (self._starting or self._sealing or self._running or self._unacknowledged or self._for_end)

    # IJobRunner

    def start(
        self, job_id: str, spec: JobSpec, created_at: float | None, key: RequestKey | None = None
    ) -> Deferred[JobStatus]:
        if job_id and not is_id(job_id):
            return fail(Invalid("jobID", "must match [A-Za-z0-9_-]{1,64}"))
        starting = self._starting.get(job_id)
        if starting is not None:
            return self._wait_in(starting.waiting)
        if job_id in self.folder.spools:
            return succeed(self._status(self.folder.spools[job_id]))
        if job_id in self._sealing or job_id in self.folder.used:
            return fail(Conflict(f"job {job_id!r} is not started: its id was used up"))
        if self._closed:
            return fail(ShuttingDown())
        if self._machine.shortage:
            return fail(Unavailable(self._machine.shortage))
        if not job_id:
            self._chosen += 1
            job_id = f"own-{self._random.getrandbits(32):08x}"
        starting = self._starting[job_id] = _Starting(spec)
        answer = self._wait_in(starting.waiting)
        created_at = self._machine.wall_time() if created_at is None else created_at
        self._process.after(self._random.uniform(0, STEP), self._make, job_id, created_at, key)
        return answer

    def _make(self, job_id: str, created_at: float, key: RequestKey | None) -> None:
        spec = self._starting[job_id].spec
        spool = self.folder.spools[job_id] = Spool(job_id, spec, created_at, self._machine.boot_id, key)
        step = self._begin if spec.command == COMMAND else self._refuse
        self._process.after(self._random.uniform(0, STEP), step, spool)

    def _refuse(self, spool: Spool) -> None:
        """An unknown command: the job has failed, and is kept like any other."""
        reason = f"command {spool.spec.command!r} not found"
        now = self._machine.wall_time()
        spool.exit = JobStatus(spool.job_id, JobState.FAILED, reason, None, now, stdout_bytes=0, stderr_bytes=0)
        self._running[spool.job_id] = spool
        self._started(spool)
        self._ended(spool)

    def _begin(self, spool: Spool) -> None:
        self._machine.begin(spool, self._nobody)
        self._follow(spool)
        self._process.after(self._random.uniform(0, STEP), self._started, spool)

    def _started(self, spool: Spool) -> None:
        for deferred in self._starting.pop(spool.job_id).waiting:
            deferred.callback(self._status(spool))

    def _follow(self, spool: Spool) -> None:
        self._running[spool.job_id] = spool
        self._machine.follow(spool, lambda: self._process.after(0, self._ended, spool))

    def _nobody(self) -> None:
        """Called for an end that nothing follows."""

    def _ended(self, spool: Spool) -> None:
        if self._running.pop(spool.job_id, None) is None:
            return
        self._unacknowledged[spool.job_id] = spool
        assert spool.exit is not None
        for deferred in self._for_end.pop(spool.job_id, ()):
            deferred.callback(spool.exit)
        for notify in self._notify:
            notify()

    def stop(self, job_id: str, wait: bool) -> Deferred[JobStatus]:
        starting = self._starting.get(job_id)
        if starting is not None:
            return self._wait_in(starting.waiting).addCallback(lambda _: self.stop(job_id, wait))
        spool = self.folder.spools.get(job_id)
        if spool is None:
            return fail(NotFound("job", job_id))
        if spool.exit is None:
            spool.stop_asked = True
            self._machine.kill(job_id, "SIGTERM")
            if wait:
                return self._wait_in(self._for_end.setdefault(job_id, []))
        return succeed(self._status(spool))

    def signal(self, job_id: str, signal: str, to: str) -> Deferred[None]:
        starting = self._starting.get(job_id)
        if starting is not None:
            return self._wait_in(starting.waiting).addCallback(lambda _: self.signal(job_id, signal, to))
        spool = self.folder.spools.get(job_id)
        if spool is None:
            return fail(NotFound("job", job_id))
        if spool.exit is not None:
            return fail(JobNotRunning(job_id, spool.exit.state.value))
        self._machine.signal(job_id, signal)
        return succeed(None)

    def remove(self, job_id: str) -> Deferred[None]:
        starting = self._starting.get(job_id)
        if starting is not None:
            return self._wait_in(starting.waiting).addBoth(lambda _: self.remove(job_id))
        spool = self.folder.spools.get(job_id)
        if spool is not None and spool.exit is None:
            return fail(JobNotEnded(job_id, JobState.RUNNING.value))
        self.folder.used[job_id] = "pruned"
        self.folder.spools.pop(job_id, None)
        self._unacknowledged.pop(job_id, None)
        return succeed(None)

    def query(self, job_id: str) -> JobStatus:
        spool = self.folder.spools.get(job_id)
        if spool is None or job_id in self._starting:
            raise NotFound("job", job_id)
        return self._status(spool)

    def seal(self, job_id: str) -> Deferred[JobStatus]:
        starting = self._starting.get(job_id)
        if starting is not None:
            return self._wait_in(starting.waiting)
        if job_id in self.folder.spools:
            return succeed(self._status(self.folder.spools[job_id]))
        if job_id not in self._sealing:
            self._sealing[job_id] = []
            self._process.after(self._random.uniform(0, STEP), self._sealed, job_id)
        return self._wait_in(self._sealing[job_id])

    def _sealed(self, job_id: str) -> None:
        self.folder.used.setdefault(job_id, "sealed")
        for deferred in self._sealing.pop(job_id):
            deferred.errback(NotFound("job", job_id))

    def read_output_thd(self, job_id: str, stream: Stream, offset: int, size: int) -> Chunk:
        spool = self.folder.spools.get(job_id)
        if spool is None:
            raise OutputPruned(job_id) if self.folder.used.get(job_id) == "pruned" else NotFound("job", job_id)
        written = self._machine.output(spool, stream)
        if offset > len(written):
            raise OffsetBeyondEnd(offset, len(written))
        data = written[offset : offset + size]
        end = spool.exit is not None and offset + len(data) == len(written)
        lost = spool.exit is not None and spool.exit.state is JobState.LOST
        return Chunk(data, offset, end, len(written), "the job is lost" if end and lost else "")

    def watch_output(self, job_id: str, stream: Stream, notify: Callable[[], None]) -> Deferred[Callable[[], None]]:
        starting = self._starting.get(job_id)
        if starting is not None:
            started = self._wait_in(starting.waiting)
            return started.addCallback(lambda _: self.watch_output(job_id, stream, notify))
        if job_id not in self.folder.spools:
            return fail(NotFound("job", job_id))
        watch = self._machine.watch(self.folder.spools[job_id], lambda: self._process.run(notify))
        return succeed(lambda: self._machine.unwatch(watch))

    # IJobs

    def running(self) -> tuple[str, ...]:
        return tuple(job_id for job_id in self._running if job_id not in self._starting)

    def is_starting(self) -> bool:
        return bool(self._starting)

    def unacknowledged(self) -> tuple[JobReport, ...]:
        return tuple(
            JobReport(self._status(spool), created_at=spool.created_at) for spool in self._unacknowledged.values()
        )

    def describe(self, job_ids: Iterable[str]) -> Deferred[tuple[JobReport, ...]]:
        spools = [self.folder.spools[job_id] for job_id in job_ids if job_id in self.folder.spools]
        return succeed(
            tuple(
                JobReport(self._status(each), each.spec.without_input(), each.created_at, each.key) for each in spools
            )
        )

    def acknowledge(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            spool = self._unacknowledged.pop(job_id, None)
            if spool is not None:
                self._process.after(self._random.uniform(0, STEP), self._write_acknowledged, spool)

    def _write_acknowledged(self, spool: Spool) -> None:
        spool.acknowledged = True
        spool.awaited = spool.job_id in self._unacknowledged
        self.folder.evict(spool)

    def report_again(self) -> None:
        ended = [spool for spool in self.folder.spools.values() if spool.exit is not None]
        ended.sort(key=lambda spool: spool.exit.finished_at or 0.0 if spool.exit else 0.0)
        self._unacknowledged = {spool.job_id: spool for spool in ended}
        for spool in ended:
            spool.awaited = True

    def expect_acknowledgements(self, expected: bool) -> None:
        """Ignored, because retention is not simulated."""

    def on_end(self, notify: Callable[[], None]) -> None:
        self._notify.append(notify)

    def refusing(self) -> str:
        return ""

    def _status(self, spool: Spool) -> JobStatus:
        return spool.exit or JobStatus(spool.job_id, JobState.RUNNING, started_at=spool.started_at)

    @staticmethod
    def _wait_in(waiting: list[Deferred[JobStatus]]) -> Deferred[JobStatus]:
        answer: Deferred[JobStatus] = Deferred(waiting.remove)
        waiting.append(answer)
        return answer
