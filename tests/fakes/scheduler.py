"""A scheduler in memory: nothing runs, tests write output and end jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.errors import Conflict, Invalid, NotFound, OffsetBeyondEnd, Unsupported
from scheduler.interfaces import (
    IOutputReader,
    IScheduler,
    JobFilter,
    JobPage,
    Readiness,
    Target,
    WorkerView,
)
from scheduler.model import Chunk, Job, JobSpec, JobState, Stream, Worker, WorkerState


@define(eq=False)
class _Entry:
    """One job."""

    job: Job
    output: dict[Stream, bytearray] = field(factory=lambda: {stream: bytearray() for stream in Stream})
    #: The streams of an ended job end; a test may keep them open.
    ended: set[Stream] = field(factory=set)
    waiting: list[Deferred[Job]] = field(factory=list)
    readers: list[FakeReader] = field(factory=list)


@implementer(IOutputReader)
class FakeReader:
    """Reads what tests wrote, at most ``piece`` bytes at once; ``break_with`` fails the pending or next read."""

    def __init__(self, entry: _Entry, stream: Stream, offset: int, piece: int) -> None:
        self.offset = offset
        self.closed = False
        self.reads = 0
        self._entry = entry
        self._stream = stream
        self._piece = piece
        self._pending: Deferred[Chunk] | None = None
        self._broken: Exception | None = None

    def read(self) -> Deferred[Chunk]:
        assert self._pending is None, "one read at a time"
        assert not self.closed, "read after close"
        self.reads += 1
        self._pending = pending = Deferred(lambda _: self.close())
        self.look()
        return pending

    def close(self) -> None:
        self.closed = True
        if self in self._entry.readers:
            self._entry.readers.remove(self)
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.errback(CancelledError())

    def break_with(self, error: Exception) -> None:
        """Fail the pending read, or the next."""
        self._broken = error
        self.look()

    def look(self) -> None:
        """Answer the pending read if there is something."""
        if self._pending is None:
            return
        if self._broken is not None:
            pending, self._pending = self._pending, None
            pending.errback(self._broken)
            return
        whole = self._entry.output[self._stream]
        data = bytes(whole[self.offset : self.offset + self._piece])
        end = self._stream in self._entry.ended and self.offset + len(data) >= len(whole)
        if data or end:
            chunk = Chunk(data, self.offset, end, len(whole))
            self.offset += len(data)
            pending, self._pending = self._pending, None
            pending.callback(chunk)


@implementer(IScheduler)
class FakeScheduler:
    """Deterministic. ``add_worker`` makes workers, ``write`` and ``finish`` drive jobs.

    ``fail[method]`` is raised by that method, ``held[method]`` a Deferred that it returns.
    ``calls`` records what was asked. Workers without a boot id do not support output.
    """

    def __init__(self, clock: IReactorTime, wall_time: Callable[[], float] = lambda: 1_700_000_000.0) -> None:
        self._clock = clock
        self._wall_time = wall_time
        self._entries: dict[str, _Entry] = {}
        self._workers: dict[str, Worker] = {}
        self._ids = iter(range(1, 1_000_000))
        self.calls: list[tuple[Any, ...]] = []
        self.fail: dict[str, Exception] = {}
        self.held: dict[str, Deferred[Any]] = {}
        self.ready = Readiness()
        #: Bytes that a read answers with, at most.
        self.piece = 1024 * 1024

    # -- for tests

    def add_worker(self, name: str = "w1", boot_id: str = "boot", **more: Any) -> Worker:
        """An online worker with the id ``id-<name>``."""
        worker = Worker(
            id=f"id-{name}", name=name, address="127.0.0.1:1", boot_id=boot_id, state=WorkerState.ONLINE, **more
        )
        self._workers[worker.id] = worker
        return worker

    def workers_are(self, state: WorkerState) -> None:
        """Every worker is in that state now."""
        self._workers = {worker.id: evolve(worker, state=state) for worker in self._workers.values()}

    def add_job(self, output: bytes = b"", errors: bytes = b"", state: JobState = JobState.RUNNING, **more: Any) -> Job:
        """A job of worker ``w1`` that has written that much; ended if ``state`` is final."""
        worker = self._workers.get("id-w1") or self.add_worker()
        job = self._new(worker, more.pop("spec", JobSpec(command="true")), **more)
        self.write(job.id, output)
        self.write(job.id, errors, Stream.STDERR)
        return self.finish(job.id, state) if state.final else job

    def write(self, job_id: str, data: bytes, stream: Stream = Stream.STDOUT) -> None:
        """Output of the job."""
        entry = self._entries[job_id]
        entry.output[stream] += data
        self._look(entry)

    def end_output(self, job_id: str, *streams: Stream) -> None:
        """Let streams end before the job is final."""
        entry = self._entries[job_id]
        entry.ended |= set(streams or Stream)
        self._look(entry)

    def finish(self, job_id: str, state: JobState = JobState.SUCCEEDED, **changes: Any) -> Job:
        """The job ends, and its output with it."""
        entry = self._entries[job_id]
        entry.job = evolve(entry.job, state=state, finished_at=self._wall_time(), **changes)
        waiting, entry.waiting = entry.waiting, []
        for deferred in waiting:
            deferred.callback(entry.job)
        self.end_output(job_id)
        return entry.job

    def readers(self) -> list[FakeReader]:
        """All that are open."""
        return [reader for entry in self._entries.values() for reader in entry.readers]

    @property
    def waits(self) -> int:
        """How many calls of ``wait`` are pending."""
        return sum(len(entry.waiting) for entry in self._entries.values())

    # -- IScheduler

    def submit(self, spec: JobSpec, target: Target) -> Deferred[Job]:
        self.calls.append(("submit", spec, target))
        return self._answer("submit", lambda: self._new(self._place(target), spec))

    def job(self, job_id: str) -> Job:
        self._fail("job")
        return self._entry(job_id).job

    def jobs(self, which: JobFilter, limit: int, cursor: str | None) -> JobPage:
        self.calls.append(("jobs", which, limit, cursor))
        self._fail("jobs")
        if cursor is not None and not cursor.isdigit():
            raise Invalid("cursor", f"{cursor!r} is not one that was given out")
        matching = [job for job in self._newest() if _matches(job, which)]
        start = int(cursor or 0)
        more = len(matching) > start + limit
        return JobPage(tuple(matching[start : start + limit]), str(start + limit) if more else None)

    def wait(self, job_id: str, seconds: float) -> Deferred[Job]:
        self._fail("wait")
        entry = self._entry(job_id)
        if entry.job.state.final:
            return succeed(entry.job)

        def over(result: Job | Failure) -> Job | Failure:
            if waiting in entry.waiting:
                entry.waiting.remove(waiting)
            if timeout.active():
                timeout.cancel()
            return result

        waiting: Deferred[Job] = Deferred()
        entry.waiting.append(waiting)
        timeout = self._clock.callLater(seconds, lambda: waiting.callback(entry.job))
        return waiting.addBoth(over)

    def query(self, worker: str, job_id: str) -> Deferred[Job]:
        self.calls.append(("query", worker, job_id))
        return self._answer("query", lambda: self._of_worker(worker, job_id).job)

    def stop(self, job_id: str, worker: str | None = None) -> Deferred[Job]:
        self.calls.append(("stop", job_id, worker))
        return self._answer("stop", lambda: self._stop(job_id, worker))

    def stop_matching(self, which: JobFilter) -> Deferred[tuple[Job, ...]]:
        self.calls.append(("stop_matching", which))
        return self._answer(
            "stop_matching",
            lambda: tuple(
                self._stop(job.id, None) for job in self._newest() if not job.state.final and _matches(job, which)
            ),
        )

    def workers(self) -> tuple[WorkerView, ...]:
        self._fail("workers")
        return tuple(self._view(worker) for worker in sorted(self._workers.values(), key=lambda worker: worker.name))

    def worker(self, name: str) -> WorkerView:
        self._fail("worker")
        return self._view(self._worker(name))

    def drain(self, name: str) -> Deferred[WorkerView]:
        return self._answer("drain", lambda: self._set(name, draining=True))

    def resume(self, name: str) -> Deferred[WorkerView]:
        return self._answer("resume", lambda: self._set(name, draining=False))

    def forget(self, name: str) -> Deferred[None]:
        def forget() -> None:
            worker = self._worker(name)
            if worker.state is WorkerState.ONLINE:
                raise Conflict(f"worker {worker.name!r} is online")
            del self._workers[worker.id]

        return self._answer("forget", forget)

    def open_output(self, job_id: str, stream: Stream, offset: int) -> FakeReader:
        self.calls.append(("open_output", job_id, stream, offset))
        self._fail("open_output")
        entry = self._entry(job_id)
        self._supports_output(entry)
        reader = FakeReader(entry, stream, offset, self.piece)
        entry.readers.append(reader)
        return reader

    def read_output(self, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        self.calls.append(("read_output", job_id, stream, offset, size))

        def read() -> Chunk:
            entry = self._entry(job_id)
            self._supports_output(entry)
            whole = entry.output[stream]
            if offset > len(whole):
                raise OffsetBeyondEnd(offset, len(whole))
            data = bytes(whole[offset : offset + min(size, self.piece)])
            return Chunk(data, offset, stream in entry.ended and offset + len(data) == len(whole), len(whole))

        return self._answer("read_output", read)

    def readiness(self) -> Readiness:
        self._fail("readiness")
        return self.ready

    # -- within

    def _fail(self, method: str) -> None:
        if method in self.fail:
            raise self.fail[method]

    def _answer(self, method: str, make: Callable[[], Any]) -> Deferred[Any]:
        if method in self.held:
            return self.held[method].addCallback(lambda _: make())
        try:
            self._fail(method)
            return succeed(make())
        except Exception:
            return fail()

    def _new(self, worker: Worker, spec: JobSpec, **more: Any) -> Job:
        job = Job(
            id=f"job-{next(self._ids)}",
            spec=spec,
            state=JobState.RUNNING,
            created_at=self._wall_time(),
            started_at=self._wall_time(),
            worker_id=worker.id,
            worker_name=worker.name,
            **more,
        )
        self._entries[job.id] = _Entry(job)
        return job

    def _place(self, target: Target) -> Worker:
        if target.worker is not None:
            return self._worker(target.worker)
        wanted = (target.selector or {}).items()
        for worker in self._workers.values():
            if wanted <= worker.labels.items():
                return worker
        raise Conflict("no worker has these labels")

    def _stop(self, job_id: str, worker: str | None) -> Job:
        entry = self._entry(job_id) if worker is None else self._of_worker(worker, job_id)
        if entry.job.state.final:
            return entry.job
        return self.finish(job_id, JobState.STOPPED, reason="signal: terminated", signal="SIGTERM")

    def _entry(self, job_id: str) -> _Entry:
        if job_id not in self._entries:
            raise NotFound("job", job_id)
        return self._entries[job_id]

    def _of_worker(self, worker: str, job_id: str) -> _Entry:
        entry = self._entry(job_id)
        if self._worker(worker).id != entry.job.worker_id:
            raise NotFound("job", job_id)
        return entry

    def _worker(self, name: str) -> Worker:
        for worker in self._workers.values():
            if name in (worker.id, worker.name):
                return worker
        raise NotFound("worker", name)

    def _view(self, worker: Worker) -> WorkerView:
        return WorkerView(worker, sum(job.worker_id == worker.id and not job.state.final for job in self._newest()))

    def _set(self, name: str, **changes: Any) -> WorkerView:
        worker = evolve(self._worker(name), **changes)
        self._workers[worker.id] = worker
        return self._view(worker)

    def _newest(self) -> Iterable[Job]:
        return [entry.job for entry in reversed(self._entries.values())]

    def _supports_output(self, entry: _Entry) -> None:
        worker = self._workers.get(entry.job.worker_id or "")
        if worker is not None and worker.classic:
            raise Unsupported(worker.name, "output")

    @staticmethod
    def _look(entry: _Entry) -> None:
        for reader in list(entry.readers):
            reader.look()


def _matches(job: Job, which: JobFilter) -> bool:
    return (
        which.worker in (None, job.worker_id, job.worker_name)
        and (not which.states or job.state in which.states)
        and which.labels.items() <= job.spec.labels.items()
        and which.created_by in (None, job.created_by)
        and _between(job.created_at, which.created_after, which.created_before)
        and _between(job.finished_at, which.finished_after, which.finished_before)
    )


def _between(when: float | None, after: float | None, before: float | None) -> bool:
    if after is None and before is None:
        return True
    return when is not None and (after is None or after <= when) and (before is None or when < before)
