"""The scheduler's cluster in memory: no worker, tests write the output and end the jobs. And twins that only fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from scheduler.errors import Conflict, Invalid, NotFound, OffsetBeyondEnd, Unsupported
from scheduler.interfaces import IOutputReader, IScheduler, JobFilter, JobPage, Readiness, Target, WorkerView
from scheduler.model import Chunk, Job, JobSpec, JobState, Stream, Worker, WorkerState

#: Bytes of a chunk at most, as from a worker.
PIECE = 1024 * 1024


@define(eq=False)
class _Entry:
    job: Job
    output: dict[Stream, bytearray] = field(factory=lambda: {stream: bytearray() for stream in Stream})
    #: Its streams have ended; its state is told later by ``settle``, or at once.
    ended: bool = False
    #: Why its output can't be had any more.
    error: Exception | None = None
    waiting: list[Deferred[Job]] = field(factory=list)


@implementer(IScheduler)
class FakeScheduler:
    """Deterministic. There are two workers, ``w1`` and ``w2`` (ids ``id-w1``, ``id-w2``); ``w1`` gets what a selector
    places. ``write`` appends output, ``end`` ends a job. ``errors`` maps names of methods to what they fail with.

    ``submitted``, ``stopped``, ``filters`` record calls; ``readers`` holds the readers that are open, ``pending``
    the Deferreds that were neither answered nor cancelled, ``bytes_read`` counts what readers and ``read_output`` gave.
    """

    def __init__(
        self, clock: IReactorTime, wall_time: Callable[[], float] = lambda: 1000.0, piece: int = PIECE
    ) -> None:
        self.errors: dict[str, Exception] = {}
        self.reasons: tuple[str, ...] = ()
        #: A start is answered with a job in this state.
        self.first_state = JobState.RUNNING
        #: ``submit`` answers only when ``release`` is called.
        self.hold_starts = False
        #: ``read_output`` answers only when ``release`` is called.
        self.hold_reads = False
        self.submitted: list[tuple[JobSpec, Target]] = []
        self.stopped: list[tuple[str, str | None]] = []
        self.filters: list[JobFilter] = []
        self.readers: set[FakeReader] = set()
        self.pending: set[Deferred[Any]] = set()
        self.bytes_read = 0
        self.piece = piece
        self._clock = clock
        self._wall_time = wall_time
        self._entries: dict[str, _Entry] = {}
        self._held: list[Callable[[], None]] = []
        self._workers = {
            name: Worker(f"id-{name}", name, f"127.0.0.1:{port}", {"name": name}, 2, WorkerState.ONLINE, boot_id="boot")
            for name, port in (("w1", 30001), ("w2", 30002))
        }

    # what a test does

    def add_job(self, job_id: str = "job-1", worker: str = "w1", **changes: Any) -> Job:
        """A running job that was there before."""
        known = self._workers[worker]
        job = Job(job_id, JobSpec(command="sleep"), JobState.RUNNING, self._wall_time(), known.id, known.name)
        job = evolve(job, started_at=self._wall_time(), **changes)
        self._entries[job_id] = _Entry(job, ended=job.state.final)
        return job

    def set_worker(self, worker: str, **changes: Any) -> None:
        """Change a worker: ``state``, ``boot_id``..."""
        self._workers[worker] = evolve(self._workers[worker], **changes)

    def write(self, job_id: str, data: bytes, stream: Stream = Stream.STDOUT) -> None:
        """The job writes."""
        entry = self._entries[job_id]
        assert not entry.ended, f"{job_id} has ended"
        entry.output[stream] += data
        self._wake()

    def end(self, job_id: str, exit_code: int = 0, settled: bool = True) -> None:
        """The job's streams end, and its state is final at once or when ``settle`` is called."""
        entry = self._entries[job_id]
        entry.ended = True
        if settled:
            self.settle(job_id, exit_code)
        self._wake()

    def settle(self, job_id: str, exit_code: int = 0, **changes: Any) -> None:
        """The state becomes final."""
        entry = self._entries[job_id]
        entry.job = evolve(
            entry.job,
            state=JobState.FAILED if exit_code else JobState.SUCCEEDED,
            reason=f"exit status {exit_code}" if exit_code else None,
            exit_code=exit_code,
            finished_at=self._wall_time(),
            stdout_bytes=len(entry.output[Stream.STDOUT]),
            stderr_bytes=len(entry.output[Stream.STDERR]),
        )
        entry.job = evolve(entry.job, **changes)
        waiting, entry.waiting = entry.waiting, []
        for each in waiting:
            self._answer(each, entry.job)

    def lose_output(self, job_id: str, error: Exception) -> None:
        """The rest of its output can't be had."""
        self._entries[job_id].error = error
        self._wake()

    def release(self) -> None:
        """Answer what was held."""
        held, self._held = self._held, []
        for answer in held:
            answer()

    def __getitem__(self, job_id: str) -> Job:
        return self._entries[job_id].job

    # IScheduler

    def submit(self, spec: JobSpec, target: Target) -> Deferred[Job]:
        self.submitted.append((spec, target))
        return self._maybe("submit", lambda: self._submit(spec, target), self.hold_starts)

    def job(self, job_id: str) -> Job:
        self._fail("job")
        return self._entry(job_id).job

    def jobs(self, which: JobFilter, limit: int, cursor: str | None) -> JobPage:
        self._fail("jobs")
        self.filters.append(which)
        if cursor is not None and not cursor.isdecimal():
            raise Invalid("cursor", "is none of this scheduler's")
        start = int(cursor or 0)
        found = [entry.job for entry in reversed(self._entries.values()) if _matches(entry.job, which)]
        page = tuple(found[start : start + limit])
        return JobPage(page, str(start + limit) if len(found) > start + limit else None)

    def wait(self, job_id: str, seconds: float) -> Deferred[Job]:
        if "wait" in self.errors:
            return fail(self.errors["wait"])
        try:
            entry = self._entry(job_id)
        except NotFound as error:
            return fail(error)
        if entry.job.state.final:
            return succeed(entry.job)
        answer: Deferred[Job] = self._pending()
        entry.waiting.append(answer)
        late = self._clock.callLater(seconds, lambda: self._answer(answer, entry.job))

        def over(result: Any) -> Any:
            if late.active():
                late.cancel()
            if answer in entry.waiting:
                entry.waiting.remove(answer)
            return result

        return answer.addBoth(over)

    def query(self, worker: str, job_id: str) -> Deferred[Job]:
        return self._maybe("query", lambda: self._on(worker, job_id).job)

    def stop(self, job_id: str, worker: str | None = None) -> Deferred[Job]:
        def stopped() -> Job:
            entry = self._entry(job_id) if worker is None else self._on(worker, job_id)
            self.stopped.append((job_id, worker))
            self._stop(entry)
            return entry.job

        return self._maybe("stop", stopped)

    def stop_matching(self, which: JobFilter) -> Deferred[tuple[Job, ...]]:
        self.filters.append(which)

        def stopped() -> tuple[Job, ...]:
            entries = [entry for entry in self._entries.values() if _matches(entry.job, which)]
            entries = [entry for entry in entries if not entry.job.state.final]
            for entry in entries:
                self._stop(entry)
            return tuple(entry.job for entry in entries)

        return self._maybe("stop_matching", stopped)

    def workers(self) -> tuple[WorkerView, ...]:
        self._fail("workers")
        return tuple(self._view(worker) for _, worker in sorted(self._workers.items()))

    def worker(self, name: str) -> WorkerView:
        self._fail("worker")
        return self._view(self._worker(name))

    def drain(self, name: str) -> Deferred[WorkerView]:
        return self._maybe("drain", lambda: self._set_draining(name, True))

    def resume(self, name: str) -> Deferred[WorkerView]:
        return self._maybe("resume", lambda: self._set_draining(name, False))

    def forget(self, name: str) -> Deferred[None]:
        def forget() -> None:
            worker = self._worker(name)
            if worker.state is WorkerState.ONLINE:
                raise Conflict(f"worker {worker.name!r} is online")
            del self._workers[worker.name]

        return self._maybe("forget", forget)

    def open_output(self, job_id: str, stream: Stream, offset: int) -> FakeReader:
        self._fail("open_output")
        self._readable(job_id)
        reader = FakeReader(self, self._entry(job_id), stream, offset)
        self.readers.add(reader)
        return reader

    def read_output(self, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        def read() -> Chunk:
            entry = self._readable(job_id)
            if entry.error is not None:
                raise entry.error
            length = len(entry.output[stream])
            if offset > length:
                raise OffsetBeyondEnd(offset, length)
            return self.chunk(entry, stream, offset, min(size, self.piece))

        return self._maybe("read_output", read, self.hold_reads)

    def readiness(self) -> Readiness:
        self._fail("readiness")
        online = sum(worker.state is WorkerState.ONLINE for worker in self._workers.values())
        return Readiness(self.reasons, online)

    # how

    def chunk(self, entry: Any, stream: Stream, offset: int, size: int) -> Chunk:
        """Some bytes of an entry's stream."""
        output = entry.output[stream]
        data = bytes(output[offset : offset + size])
        self.bytes_read += len(data)
        return Chunk(data, offset, entry.ended and offset + len(data) == len(output), len(output))

    def _pending(self) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.pending.add(answer)

        def answered(result: Any) -> Any:
            self.pending.discard(answer)
            return result

        return answer.addBoth(answered)

    def _answer(self, answer: Deferred[Any], result: Any) -> None:
        if not answer.called:
            answer.callback(result)

    def _maybe(self, method: str, answer: Callable[[], Any], held: bool = False) -> Deferred[Any]:
        """What ``answer`` gives, raises, or the error set for that method: at once, or when it is released."""
        if not held:
            try:
                self._fail(method)
                return succeed(answer())
            except Exception as error:
                return fail(error)
        waiting = self._pending()

        def release() -> None:
            if not waiting.called:  # undone by nobody: it happens all the same, only nobody is told
                self._maybe(method, answer).chainDeferred(waiting)
            else:
                self._maybe(method, answer).addErrback(lambda _: None)

        self._held.append(release)
        return waiting

    def _fail(self, method: str) -> None:
        if method in self.errors:
            raise self.errors[method]

    def _wake(self) -> None:
        for reader in list(self.readers):
            reader.advance()

    def _entry(self, job_id: str) -> _Entry:
        if job_id not in self._entries:
            raise NotFound("job", job_id)
        return self._entries[job_id]

    def _readable(self, job_id: str) -> _Entry:
        entry = self._entry(job_id)
        if self._worker(entry.job.worker_name or "").classic:
            raise Unsupported(entry.job.worker_name or "", "output")
        return entry

    def _on(self, worker: str, job_id: str) -> _Entry:
        entry = self._entry(job_id)
        if entry.job.worker_id != self._worker(worker).id:
            raise NotFound("job", job_id)
        return entry

    def _worker(self, name: str) -> Worker:
        for worker in self._workers.values():
            if name in (worker.id, worker.name):
                return worker
        raise NotFound("worker", name)

    def _view(self, worker: Worker) -> WorkerView:
        jobs = [entry.job for entry in self._entries.values()]
        return WorkerView(worker, sum(job.worker_id == worker.id and not job.state.final for job in jobs))

    def _set_draining(self, name: str, draining: bool) -> WorkerView:
        worker = self._worker(name)
        self.set_worker(worker.name, draining=draining)
        return self._view(self._worker(name))

    def _submit(self, spec: JobSpec, target: Target) -> Job:
        worker = self._worker("w1" if target.worker is None else target.worker)
        selector = target.selector or {}
        if any(worker.labels.get(key) != value for key, value in selector.items()):
            raise Conflict("no worker has these labels")
        job = self.add_job(f"job-{len(self._entries) + 1}", worker.name, spec=spec)
        if self.first_state.final:
            self._entries[job.id].ended = True
            self.settle(job.id, state=self.first_state, exit_code=None, reason="not found")
        return self._entries[job.id].job

    def _stop(self, entry: _Entry) -> None:
        if not entry.job.state.final:
            entry.ended = True
            self.settle(entry.job.id, 1, state=JobState.STOPPED, exit_code=None, reason="signal: terminated")
            self._wake()


@implementer(IOutputReader)
class FakeReader:
    """A place in a stream of a ``FakeScheduler``."""

    def __init__(self, scheduler: FakeScheduler, entry: _Entry, stream: Stream, offset: int) -> None:
        self.offset = offset
        self._scheduler = scheduler
        self._entry = entry
        self._stream = stream
        self._waiting: Deferred[Chunk] | None = None

    def read(self) -> Deferred[Chunk]:
        assert self._waiting is None, "one read at a time"
        if self not in self._scheduler.readers:
            return fail(CancelledError())
        waiting: Deferred[Chunk] = Deferred(lambda _: self.close())
        self._waiting = waiting
        self.advance()
        return waiting

    def close(self) -> None:
        self._scheduler.readers.discard(self)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(CancelledError())

    def advance(self) -> None:
        """Serve the read that waits, if it can be served."""
        waiting = self._waiting
        length = len(self._entry.output[self._stream])
        if waiting is None:
            return
        result: Chunk | Exception
        if self._entry.error is not None and self.offset >= length:
            result = self._entry.error
        elif self.offset > length and self._entry.ended:
            result = OffsetBeyondEnd(self.offset, length)
        elif self.offset < length or self._entry.ended:
            result = self._scheduler.chunk(self._entry, self._stream, self.offset, self._scheduler.piece)
            self.offset = result.next_offset
        else:
            return
        self._waiting = None
        if isinstance(result, Exception):
            waiting.errback(result)
        else:
            waiting.callback(result)


def _matches(job: Job, which: JobFilter) -> bool:
    return (
        (which.worker is None or which.worker in (job.worker_id, job.worker_name))
        and (not which.states or job.state in which.states)
        and all(job.spec.labels.get(key) == value for key, value in which.labels.items())
        and (which.created_by is None or job.created_by == which.created_by)
        and _within(job.created_at, which.created_after, which.created_before)
        and _within(job.finished_at, which.finished_after, which.finished_before)
    )


def _within(time: float | None, after: float | None, before: float | None) -> bool:
    if after is None and before is None:
        return True
    return time is not None and (after is None or after <= time) and (before is None or time < before)


@implementer(IScheduler)
class FailingScheduler:
    """Whatever is asked, raised or failed with ``error``: ``IScheduler`` says which it is."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def _raise(self, *_: object) -> Any:
        raise self._error

    def _fail(self, *_: object) -> Any:
        return fail(self._error)

    def submit(self, spec: JobSpec, target: Target) -> Deferred[Job]:
        return self._fail(spec, target)

    def job(self, job_id: str) -> Job:
        return self._raise(job_id)

    def jobs(self, which: JobFilter, limit: int, cursor: str | None) -> JobPage:
        return self._raise(which, limit, cursor)

    def wait(self, job_id: str, seconds: float) -> Deferred[Job]:
        return self._fail(job_id, seconds)

    def query(self, worker: str, job_id: str) -> Deferred[Job]:
        return self._fail(worker, job_id)

    def stop(self, job_id: str, worker: str | None = None) -> Deferred[Job]:
        return self._fail(job_id, worker)

    def stop_matching(self, which: JobFilter) -> Deferred[tuple[Job, ...]]:
        return self._fail(which)

    def workers(self) -> tuple[WorkerView, ...]:
        return self._raise()

    def worker(self, name: str) -> WorkerView:
        return self._raise(name)

    def drain(self, name: str) -> Deferred[WorkerView]:
        return self._fail(name)

    def resume(self, name: str) -> Deferred[WorkerView]:
        return self._fail(name)

    def forget(self, name: str) -> Deferred[None]:
        return self._fail(name)

    def open_output(self, job_id: str, stream: Stream, offset: int) -> IOutputReader:
        return self._raise(job_id, stream, offset)

    def read_output(self, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        return self._fail(job_id, stream, offset, size)

    def readiness(self) -> Readiness:
        return self._raise()


class SilentScheduler(FailingScheduler):
    """Knows every job, and whatever would be answered later never is: ``pending`` holds what was not cancelled."""

    def __init__(self) -> None:
        super().__init__(AssertionError("not to be asked of a silent scheduler"))
        self.pending: set[Deferred[Any]] = set()

    def job(self, job_id: str) -> Job:
        return Job(job_id, JobSpec(command="sleep"), JobState.RUNNING, 0.0, "id-w1", "w1")

    def _fail(self, *_: object) -> Any:
        answer: Deferred[Any] = Deferred(self.pending.discard)
        self.pending.add(answer)
        return answer

    def open_output(self, job_id: str, stream: Stream, offset: int) -> IOutputReader:
        return _SilentReader(self, offset)


@implementer(IOutputReader)
class _SilentReader:
    def __init__(self, scheduler: SilentScheduler, offset: int) -> None:
        self.offset = offset
        self._scheduler = scheduler
        self._waiting: Deferred[Chunk] | None = None

    def read(self) -> Deferred[Chunk]:
        self._waiting = self._scheduler._fail()
        return self._waiting

    def close(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
