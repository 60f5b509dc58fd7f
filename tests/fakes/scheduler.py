"""A scheduler in memory: nothing runs, tests write output and end jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler import units
from scheduler.errors import (
    Conflict,
    DeadlineExceeded,
    Invalid,
    JobNotEnded,
    JobNotRunning,
    JobRemoved,
    KeyInUse,
    KeyReused,
    LeftRunning,
    NoFreeSlot,
    NotFound,
    OffsetBeyondEnd,
    OutputGone,
    OutputPruned,
    QueueFull,
    SchedulerError,
    StartUnanswered,
    Unavailable,
    Unreachable,
    Unsupported,
)
from scheduler.interfaces import IScheduler, Starting
from scheduler.messages import Chunk, RequestKey
from scheduler.model import Disk, IdempotencyKey, Job, JobSpec, JobState, Stream, Worker, WorkerState
from scheduler.terms import NO_WAITING, QueueTerms, Target
from scheduler.views import JobFilter, JobPage, Readiness, WaitingFor, WorkerView
from tests.fakes.scheduler_attendance import FakeAttendance
from tests.fakes.scheduler_jobs import Entry, FakeReader
from tests.fakes.scheduler_queue import FakeQueue, next_attempt

#: Seconds a stop may take beyond the job's own ``stop_grace``, and the most that anybody waits for one.
STOP_MARGIN_SECONDS, STOP_WAIT_MAX_SECONDS = 10.0, 60.0


@implementer(IScheduler)
class FakeScheduler:
    """Deterministic. ``add_worker`` makes workers, ``write`` and ``finish`` drive jobs.

    A job runs at once, or waits where it may (at most ``queue_max`` of them), or fails if
    ``refused`` has a reason why its command may not; a start is ``unanswered``, its job
    unknown, and a stop ends nothing, where a test says so.
    ``fail[method]`` is raised by that method, ``held[method]`` a Deferred that it returns, ``held["start"]`` one that
    the answer to a start on its way waits for.
    ``calls`` records what was asked. Workers without a boot id speak only the core protocol.
    """

    def __init__(self, clock: IReactorTime, wall_time: Callable[[], float] = lambda: 1_700_000_000.0) -> None:
        self._clock = clock
        self._wall_time = wall_time
        self._entries: dict[str, Entry] = {}
        self._workers: dict[str, Worker] = {}
        # one without a job's id is under way
        self._keys: dict[str, IdempotencyKey] = {}
        self._ids = iter(range(1, 1_000_000))
        self._queue = FakeQueue(clock)
        self._attendance = FakeAttendance(clock, self._stop_unattended)
        self.queue_max = 10_000
        self.calls: list[tuple[Any, ...]] = []
        self.fail: dict[str, Exception] = {}
        self.held: dict[str, Deferred[Any]] = {}
        self.refused: dict[str, str] = {}
        self.unanswered = False
        self.ends_on_stop = True
        #: Why no worker can remove a job at present; ``""``: it can.
        self.resists = ""
        #: What was sent to jobs: the job's id, the signal, and to whom. SIGKILL ends a job, and no other does.
        self.signals: list[tuple[str, str, str]] = []
        self.answers_signals = True
        #: Ids of jobs with those of their processes that no signal ends, and that still run.
        self.left: dict[str, tuple[int, ...]] = {}
        #: Names of workers with what they lack to start a job.
        self.shortages: dict[str, str] = {}
        #: What ``readiness`` answers, if not that all is well.
        self.ready: Readiness | None = None
        #: The specs that memory holds no more as a whole, by job.
        self.specs: dict[str, JobSpec] = {}
        #: Bytes that a read answers with, at most.
        self.piece = 1024 * 1024

    # -- for tests

    def add_worker(self, name: str = "w1", boot_id: str = "boot", **more: Any) -> Worker:
        """An online worker with the id ``id-<name>``, and its name as a label."""
        facts: dict[str, Any] = {"address": "127.0.0.1:1", "state": WorkerState.ONLINE} | more
        facts["labels"] = {"name": name, **facts.get("labels", {})}
        worker = Worker(id=f"id-{name}", name=name, boot_id=boot_id, **facts)
        self._workers[worker.id] = worker
        self._serve()
        return worker

    def rename(self, worker_id: str, name: str) -> None:
        """The worker has another name now; one that had it and can't be reached goes by its id."""
        for other in [other for other in self._workers.values() if other.name == name]:
            self._set(other.id, name=other.id)
        self._set(worker_id, name=name)

    def workers_are(self, state: WorkerState) -> None:
        """Every worker is in that state now."""
        for worker in list(self._workers.values()):
            self.worker_is(worker.name, state)

    def worker_is(self, name: str, state: WorkerState) -> None:
        """That worker is; what runs on one that can't be reached is unknown, and its stops wait, until it is back."""
        deregistered_at = self._wall_time() if state is WorkerState.OFFLINE else None
        worker = self._set(name, state=state, deregistered_at=deregistered_at).worker
        if state is WorkerState.ONLINE:
            self._remove_waiting(worker)
        for entry in list(self._entries.values()):
            if entry.job.worker_id != worker.id or entry.job.state.final:
                continue
            if state is WorkerState.ONLINE:
                entry.job = evolve(entry.job, state=JobState.RUNNING, unknown_since=None, reason=None)
                if entry.job.stop_requested_at is not None:
                    self._end_stopped(entry)
            elif entry.job.state is JobState.RUNNING:
                entry.job = self._unknown(entry.job, f"worker {worker.name!r} can't be reached")

    def worker_says(self, name: str, refusing: str) -> None:
        """That worker says why it takes no job, or, with ``""``, that it takes some again."""
        self._set(name, refusing=refusing or None)

    def worker_describes(self, name: str, ahead: float, disk: Disk) -> None:
        """That worker says what its clock shows, and how full its disk is."""
        self._set(name, clock_difference=ahead, disk=disk)

    def worker_lacks(self, name: str, shortage: str) -> None:
        """That worker can't start a job for lack of something, or, with ``""``, can again."""
        self.shortages.pop(name, None)
        if shortage:
            self.shortages[name] = shortage
        self._serve()

    def come_back(self, worker: Worker) -> None:
        """It was forgotten, registers again, and runs all of its jobs that are lost."""
        self._workers[worker.id] = evolve(worker, state=WorkerState.ONLINE)
        for entry in self._entries.values():
            if entry.job.worker_id == worker.id and entry.job.state is JobState.LOST:
                entry.job = evolve(entry.job, orphan=True)
                entry.ended.clear()

    def add_job(self, output: bytes = b"", errors: bytes = b"", state: JobState = JobState.RUNNING, **more: Any) -> Job:
        """A job of worker ``w1`` that has written that much, in that state."""
        worker = self._workers.get("id-w1") or self.add_worker()
        job = self._new(worker, more.pop("spec", JobSpec(command="true")), **more)
        self.write(job.id, output)
        self.write(job.id, errors, Stream.STDERR)
        if state.final:
            return self.finish(job.id, state)
        job = self._entries[job.id].job = evolve(job, state=state)
        return job

    def keep_light(self, job_id: str) -> None:
        """Have memory hold no more of its spec than of one that has ended."""
        entry = self._entries[job_id]
        self.specs[job_id] = entry.job.spec
        entry.job = evolve(entry.job, spec=entry.job.spec.trimmed())

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
        """The job ends, and its output with it; a lost one's can't be had any more."""
        entry = self._entries[job_id]
        if state is not JobState.LOST:
            changes.setdefault("stdout_bytes", len(entry.output[Stream.STDOUT]))
            changes.setdefault("stderr_bytes", len(entry.output[Stream.STDERR]))
        if job_id in self.left:
            changes.setdefault("reason", "processes could not be ended")
            changes["leftover"] = self.left[job_id]
        entry.put(evolve(entry.job, state=state, finished_at=self._wall_time(), unknown_since=None, **changes))
        self._queue.take(job_id)
        self._follow_up(entry)
        if entry.job.retried_by is None:
            self._attendance.end(entry.job)
        waiting, entry.waiting = entry.waiting, []
        for deferred in waiting:
            deferred.callback(entry.job)
        if state is JobState.LOST:
            for reader in list(entry.readers):
                reader.break_with(_lost(entry.job))
        else:
            self.end_output(job_id)
        entry.tell()
        self._serve()
        return entry.job

    def move(self, job_id: str, worker: Worker) -> None:
        """The job is that worker's."""
        entry = self._entries[job_id]
        entry.put(evolve(entry.job, worker_id=worker.id, worker_name=worker.name))

    def reopen(self, job_id: str) -> None:
        """The job's streams have no end, though it has: its worker takes its time to tell."""
        self._entries[job_id].ended.clear()

    def prune(self, job_id: str) -> None:
        """The job's worker keeps no output of it any more."""
        entry = self._entries[job_id]
        entry.pruned = True
        self._look(entry)

    def readers(self) -> list[FakeReader]:
        """All that are open."""
        return [reader for entry in self._entries.values() for reader in entry.readers]

    @property
    def watchers(self) -> int:
        """How many watch a job."""
        return sum(len(entry.watchers) for entry in self._entries.values())

    @property
    def waits(self) -> int:
        """How many wait for the end of a job."""
        return sum(len(entry.waiting) for entry in self._entries.values())

    # -- IScheduler

    def submit(
        self,
        spec: JobSpec,
        target: Target,
        terms: QueueTerms = NO_WAITING,
        key: RequestKey | None = None,
        starting: Starting | None = None,
    ) -> Deferred[Job]:
        if key is not None and key.key in self._keys:
            return maybeDeferred(self._replay, key)
        self.calls.append(("submit", spec, target, terms))
        if key is not None:
            self._keys[key.key] = IdempotencyKey(key.key, key.fingerprint, "")
        answer = self._answer("submit", lambda: self._start(spec, target, terms, starting))
        return answer if key is None else answer.addBoth(self._answered, key)

    def replays(self, key: RequestKey) -> bool:
        known = self._keys.get(key.key)
        return known is not None and known.fingerprint == key.fingerprint and known.job_id != ""

    def job(self, job_id: str) -> Job:
        self._fail("job")
        return self._entry(job_id).job

    def waiting_for(self, job: Job) -> WaitingFor | None:
        entry = self._entries.get(job.id)
        if entry is None or entry.job.state is not JobState.QUEUED:
            return None
        ahead = sum(
            bool(self._matching(other) & self._matching(entry.job)) for other in self._queue.before(entry.job.id)
        )
        why = "delay" if self._queue.delayed(job.id) else self._why_waiting(entry.job)
        return WaitingFor(why, f"it waits: {why}", ahead + 1)

    def jobs(self, which: JobFilter, limit: int, cursor: str | None) -> JobPage:
        self.calls.append(("jobs", which, limit, cursor))
        self._fail("jobs")
        jobs = self._newest()
        if cursor is not None:
            ids = [job.id for job in jobs]
            if cursor not in ids:
                raise Invalid("cursor", f"{cursor!r} is not one that was given out")
            jobs = jobs[ids.index(cursor) + 1 :]
        matching = [job for job in self._of_named(which.worker, jobs) if _matches(job, which)]
        page = tuple(matching[:limit])
        return JobPage(page, page[-1].id if len(matching) > limit else None)

    def with_specs(self, jobs: Sequence[Job]) -> Deferred[tuple[Job, ...]]:
        return self._answer("with_specs", lambda: tuple(self._with_spec(job) for job in jobs))

    def _with_spec(self, job: Job) -> Job:
        return evolve(job, spec=self.specs.get(job.id, job.spec)) if job.spec.stored else job

    def cursor_after(self, job: Job) -> str:
        return job.id

    def watch(self, job_id: str, notify: Callable[[Job], None]) -> Callable[[], None]:
        self._fail("watch")
        watchers, token = self._entry(job_id).watchers, object()
        watchers[token] = notify

        def leave() -> None:
            watchers.pop(token, None)

        return leave

    def wait(self, job_id: str, seconds: float) -> Deferred[Job]:
        self._fail("wait")
        return self._attended(job_id, self._end_of(self._entry(job_id), seconds), seconds)

    def last_attempt(self, job_id: str) -> Job:
        self._fail("last_attempt")
        self._entry(job_id)
        return self._attempts(job_id)[-1]

    def wait_for_attempts(self, job_id: str, seconds: float) -> Deferred[Job]:
        self._fail("wait_for_attempts")
        until = self._clock.seconds() + seconds

        def last() -> Deferred[Job]:
            entry = self._entries[self._attempts(job_id)[-1].id]
            return self._end_of(entry, max(0.0, until - self._clock.seconds())).addCallback(ended)

        def ended(job: Job) -> Job | Deferred[Job]:
            return last() if job.retried_by in self._entries else job

        self._entry(job_id)
        return self._attended(job_id, last(), seconds)

    def query(self, worker: str, job_id: str) -> Deferred[Job]:
        self.calls.append(("query", worker, job_id))
        return self._answer("query", lambda: self._query(worker, job_id))

    def stop(self, job_id: str, worker: str | None = None) -> Deferred[Job]:
        self.calls.append(("stop", job_id, worker))
        return self._answer("stop", lambda: self._stop(job_id, worker))

    def signal(self, job_id: str, signal: str, to: str) -> Deferred[None]:
        self.calls.append(("signal", job_id, signal, to))
        return self._answer("signal", lambda: self._signal(job_id, signal, to))

    def remove(self, job_id: str) -> Deferred[bool]:
        self.calls.append(("remove", job_id))
        return self._answer("remove", lambda: self._remove(job_id))

    def stop_matching(self, which: JobFilter) -> Deferred[tuple[Job, ...]]:
        self.calls.append(("stop_matching", which))
        return self._answer("stop_matching", lambda: self._stop_matching(which))

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
            self._remove_waiting(worker)
            for job in self._newest():
                if job.worker_id == worker.id and not job.state.final:
                    self.finish(job.id, JobState.LOST, reason="forgotten")
                if job.state is JobState.QUEUED and job.worker_name == worker.name:
                    self.finish(job.id, JobState.FAILED, reason=f"worker {worker.name!r} was forgotten")

        return self._answer("forget", forget)

    def open_output(self, job_id: str, stream: Stream, offset: int) -> FakeReader:
        self.calls.append(("open_output", job_id, stream, offset))
        self._fail("open_output")
        entry = self._entry(job_id)
        self._supports_output(entry)
        reader = FakeReader(entry, stream, offset, self.piece, self._attend(job_id))
        entry.readers.append(reader)
        if entry.job.state is JobState.LOST and entry.job.over:
            reader.break_with(_lost(entry.job))
        return reader

    def read_output(self, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        self.calls.append(("read_output", job_id, stream, offset, size))

        def read() -> Chunk:
            entry = self._entry(job_id)
            self._supports_output(entry)
            if entry.job.state is JobState.LOST:
                raise _lost(entry.job)
            whole = entry.output[stream]
            if offset < len(whole) and entry.job.state.final and entry.job.worker_id not in self._workers:
                raise OutputGone(job_id, f"worker {entry.job.worker_name!r} is not known any more")
            if offset < len(whole) or not (entry.job.state.final or entry.job.state is JobState.QUEUED):
                self._reachable(entry.job)
            if offset > len(whole):
                raise OffsetBeyondEnd(offset, len(whole))
            if entry.pruned and offset < len(whole):
                raise OutputPruned(job_id)
            data = bytes(whole[offset : offset + min(size, self.piece)])
            end = stream in entry.ended and offset + len(data) == len(whole)
            return Chunk(data, offset, end, len(whole), (end and entry.job.output_error) or "")

        return self._answer("read_output", read)

    def readiness(self) -> Readiness:
        self._fail("readiness")
        online = sum(worker.state is WorkerState.ONLINE for worker in self._workers.values())
        return self.ready or Readiness((), online)

    # -- within

    def _fail(self, method: str) -> None:
        if method in self.fail:
            raise self.fail[method]

    def _answer(self, method: str, make: Callable[[], Any]) -> Deferred[Any]:
        if method in self.held:
            return self.held[method].addCallback(lambda _: make())

        def answer() -> Any:
            self._fail(method)
            return make()

        return maybeDeferred(answer)

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
        self._entries[job.id] = Entry(job)
        self._attendance.begin(job)
        return job

    def _replay(self, key: RequestKey) -> Job:
        known = self._keys[key.key]
        if known.fingerprint != key.fingerprint:
            raise KeyReused(key.key)
        if not known.job_id:
            raise KeyInUse(key.key)
        if known.removed_at is not None:
            raise JobRemoved(known.job_id)
        if known.answer is not None:
            return known.answer
        job = self._entries[known.job_id].job
        if job.state is JobState.UNKNOWN:
            raise StartUnanswered(job.worker_name or "", job.id)
        return job

    def _answered(self, result: Job | Failure, key: RequestKey) -> Job | Failure:
        """The first request with that key is over."""
        if isinstance(result, Job):
            self._keys[key.key] = IdempotencyKey(key.key, key.fingerprint, result.id, result)
        elif isinstance(result.value, StartUnanswered):
            self._keys[key.key] = IdempotencyKey(key.key, key.fingerprint, result.value.job_id)
        else:
            del self._keys[key.key]
        return result

    def _start(
        self, spec: JobSpec, target: Target, terms: QueueTerms, starting: Starting | None
    ) -> Job | Deferred[Job]:
        try:
            worker = self._place(spec, target, terms)
        except (NoFreeSlot, Unreachable):
            if not terms.queue_timeout:
                raise
            if len(self._queue) >= self.queue_max:
                raise QueueFull(self.queue_max) from None
            named = self._worker(target.worker).name if target.worker is not None else None
            job_id = f"job-{next(self._ids)}"
            job = Job(job_id, spec, JobState.QUEUED, self._wall_time(), worker_name=named)
            job = evolve(job, group_id=job_id if terms.retry is not None else None)
            return self._wait(evolve(job, target=target, terms=terms, promised=True), 0.0)
        job = self._new(worker, spec, target=target, terms=terms)
        if terms.retry is not None:
            job = self._entries[job.id].job = evolve(job, group_id=job.id)
        if starting is not None:
            starting(job)
        if "start" in self.held:
            return self.held["start"].addCallback(lambda _: self._begin(job))
        return self._begin(job)

    def _begin(self, job: Job) -> Job:
        """Its worker is asked to start it."""
        if self.unanswered:
            self._entries[job.id].job = self._unknown(evolve(job, started_at=None), "the start was not answered")
            raise StartUnanswered(job.worker_name or "", job.id)
        if job.spec.command in self.refused:
            return self.finish(job.id, JobState.FAILED, reason=self.refused[job.spec.command], started_at=None)
        return job

    def _wait(self, job: Job, delay: float) -> Job:
        self._entries[job.id] = Entry(job)
        self._attendance.begin(job)
        self._queue.add(job, delay, self._serve, self._expire)
        return job

    def _serve(self) -> None:
        """Start all that wait and can be started."""
        for job in self._queue.due():
            entry = self._entries[job.id]
            try:
                worker = self._place(job.spec, job.target or Target(), job.terms)
            except SchedulerError:
                continue
            if entry.job.state is not JobState.QUEUED:
                continue  # one that ended at once made place for it
            self._queue.take(job.id)
            facts: dict[str, Any] = {"worker_id": worker.id, "worker_name": worker.name}
            entry.job = evolve(entry.job, state=JobState.RUNNING, started_at=self._wall_time(), **facts)
            with suppress(StartUnanswered):
                self._begin(entry.job)

    def _expire(self, job_id: str) -> None:
        seconds = units.format_duration(self._entries[job_id].job.terms.queue_timeout)
        reason = f"queue_timeout of {seconds} passed before a worker was free"
        self.finish(job_id, JobState.FAILED, reason=reason)

    def _follow_up(self, entry: Entry) -> None:
        retry = entry.job.terms.retry
        following = next_attempt(entry.job, f"{entry.job.id}-again", self._wall_time())
        if following is not None and retry is not None:
            entry.put(evolve(entry.job, retried_by=following.id))
            self._wait(following, retry.delay)

    def _attempts(self, job_id: str) -> list[Job]:
        """The job and those that followed it."""
        attempts = [self._entries[job_id].job]
        while attempts[-1].retried_by in self._entries:
            attempts.append(self._entries[attempts[-1].retried_by].job)
        return attempts

    def _place(self, spec: JobSpec, target: Target, terms: QueueTerms) -> Worker:
        if target.worker is not None:
            worker = self._worker(target.worker)
            if worker.draining:
                raise Conflict(f"worker {worker.name!r} is draining")
            if worker.is_core and not spec.fits_core:
                raise Unsupported(worker.name, "more than a command and a path")
            if not spec.features <= worker.features:
                raise Unsupported(worker.name, ", ".join(sorted(spec.features - worker.features)))
            if worker.state is not WorkerState.ONLINE:
                raise Unreachable(worker.name)
            if worker.name in self.shortages:
                raise (NoFreeSlot if terms.queue_timeout else Unavailable)(self.shortages[worker.name])
            return worker
        wanted = (target.selector or {}).items()
        matching = [
            view
            for view in map(self._view, self._workers.values())
            if wanted <= view.worker.labels.items()
            and not view.worker.draining
            and view.worker.slots != 0
            and (spec.fits_core or not view.worker.is_core)
            and spec.features <= view.worker.features
        ]
        if not matching:
            raise Conflict(f"no worker has these labels and supports: {', '.join(sorted(spec.features))}")
        free = [
            view
            for view in matching
            if view.worker.state is WorkerState.ONLINE
            and (view.worker.slots is None or view.running_jobs < view.worker.slots)
            and view.reason is None
        ]
        if not free:
            raise NoFreeSlot("no worker that has these labels is free")
        return min(free, key=lambda view: (view.running_jobs, view.worker.name)).worker

    def _matching(self, job: Job) -> set[str]:
        """Ids of the workers that could run it."""
        target = job.target or Target()
        return {
            worker.id
            for worker in self._workers.values()
            if job.spec.features <= worker.features
            and (job.spec.fits_core or not worker.is_core)
            and (
                target.worker in (worker.id, worker.name)
                if target.worker is not None
                else (target.selector or {}).items() <= worker.labels.items() and worker.slots != 0
            )
        }

    def _why_waiting(self, job: Job) -> str:
        views = [self._view(self._workers[worker_id]) for worker_id in self._matching(job)]
        taking = [view for view in views if not view.worker.draining]
        online = [view for view in taking if view.worker.state is WorkerState.ONLINE]
        if not views:
            return "no-match"
        if not taking:
            return "draining"
        if not online:
            return "unreachable"
        if all(view.reason is not None for view in online):
            return "backoff"
        return "no-free-slot"

    def _end_of(self, entry: Entry, seconds: float) -> Deferred[Job]:
        """The job at its end, or as it is after ``seconds``."""
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

    def _query(self, worker: str, job_id: str) -> Job:
        job = self._of_worker(worker, job_id).job
        if not (job.state.final or job.state is JobState.QUEUED):
            self._reachable(job)
        return job

    def _signal(self, job_id: str, signal: str, to: str) -> None:
        job = self._entry(job_id).job
        if job.over or job.state is JobState.QUEUED:
            raise JobNotRunning(job_id, job.state.value)
        self._reachable(job)
        worker = self._workers[job.worker_id or ""]
        if worker.is_core:
            raise Unsupported(worker.name, "sending signals to jobs")
        if job_id in self.left:
            raise Conflict(f"{signal} can't be sent to processes of job {job_id!r}")
        self.signals.append((job_id, signal, to))
        if signal == "SIGKILL":
            self.finish(job_id, JobState.FAILED, reason="signal: killed", signal=signal)
        if not self.answers_signals:
            raise DeadlineExceeded(f"{signal} to job {job_id}", 10.0, job_id)

    def _remove(self, job_id: str) -> bool:
        entry = self._entry(job_id)
        job = entry.job
        if not job.over:
            raise JobNotEnded(job_id, job.state.value)
        worker = self._workers.get(job.worker_id or "")
        if worker is not None and not worker.is_core and (self.resists or not self._is_reachable(job)):
            entry.job = evolve(job, remove_requested_at=job.remove_requested_at or self._wall_time())
            return False
        self._vanish(entry)
        return True

    def _vanish(self, entry: Entry) -> None:
        job_id = entry.job.id
        del self._entries[job_id]
        for key in self._keys.values():
            if key.job_id == job_id:
                self._keys[key.key] = evolve(key, answer=None, removed_at=self._wall_time())
        for reader in list(entry.readers):
            reader.break_with(NotFound("job", job_id))

    def _remove_waiting(self, worker: Worker) -> None:
        """What was to be removed when that worker can be told, or is gone."""
        for entry in list(self._entries.values()):
            if entry.job.worker_id == worker.id and entry.job.remove_requested_at is not None and not self.resists:
                self._vanish(entry)

    def _stop(self, job_id: str, worker: str | None) -> Deferred[Job]:
        entry = self._entry(job_id) if worker is None else self._of_worker(worker, job_id)

        def stopped(last: Job) -> Job:
            for attempt in self._attempts(entry.job.id) if last.over else ():
                left = self.left.get(attempt.id, ())
                if left:
                    raise LeftRunning(attempt.id, left, "processes could not be ended")
            return entry.job

        return self._stop_one(self._entries[self._attempts(job_id)[-1].id]).addCallback(stopped)

    def _stop_one(self, entry: Entry) -> Deferred[Job]:
        job = entry.job
        job_id = job.id
        if job.over:
            return succeed(job)
        job = entry.job = evolve(job, stop_requested_at=job.stop_requested_at or self._wall_time())
        if job.state is JobState.QUEUED:
            reason = job.stop_reason or "stopped before it was started"
            return succeed(self.finish(job_id, JobState.STOPPED, reason=reason))
        if not self._is_reachable(job):
            return succeed(job)
        self._end_stopped(entry)
        patience = job.spec.stop_grace + STOP_MARGIN_SECONDS

        def ended(job: Job) -> Job:
            if not job.over and patience <= STOP_WAIT_MAX_SECONDS:
                raise DeadlineExceeded(f"stop of job {job_id}", patience, job_id)
            return job

        return self._end_of(entry, min(patience, STOP_WAIT_MAX_SECONDS)).addCallback(ended)

    def _end_stopped(self, entry: Entry) -> None:
        """The worker has been told."""
        if self.ends_on_stop and entry.job.orphan:
            entry.job = evolve(entry.job, orphan=False)
            self.end_output(entry.job.id)
        elif self.ends_on_stop:
            reason = entry.job.stop_reason or "signal: terminated"
            self.finish(entry.job.id, JobState.STOPPED, reason=reason, signal="SIGTERM")

    def _stop_unattended(self, first: str) -> None:
        entry = self._entries[self._attempts(first)[-1].id]
        seconds = entry.job.terms.unattended_timeout
        why = f"stopped: no client followed it or waited for it for {seconds:g} s"
        if entry.job.stop_requested_at is None:
            entry.job = evolve(entry.job, stop_reason=why)
            self._stop_one(entry).addErrback(lambda _: None)

    def _attend(self, job_id: str) -> Callable[[], None]:
        """A client does, until what is returned is called."""

        def unfinished() -> Job | None:
            last = self._attempts(job_id)[-1]
            return None if last.over else last

        return self._attendance.enter(self._entries[job_id].job, unfinished)

    def _attended(self, job_id: str, end: Deferred[Job], seconds: float) -> Deferred[Job]:
        if end.called or not seconds:
            return end
        leave = self._attend(job_id)

        def over(result: Job | Failure) -> Job | Failure:
            leave()
            return result

        return end.addBoth(over)

    def _stop_matching(self, which: JobFilter) -> Deferred[tuple[Job, ...]]:
        jobs = self._of_named(which.worker, self._newest())
        last = [self._attempts(job.id)[-1] for job in jobs if _matches(job, which)]
        ids = list(dict.fromkeys(job.id for job in last if not job.over))
        stops = DeferredList([maybeDeferred(self._stop, job_id, None) for job_id in ids], consumeErrors=True)
        return stops.addCallback(lambda _: tuple(self._entries[job_id].job for job_id in ids))

    def _entry(self, job_id: str) -> Entry:
        if job_id not in self._entries:
            raise NotFound("job", job_id)
        return self._entries[job_id]

    def _of_worker(self, worker: str, job_id: str) -> Entry:
        entry = self._entries.get(job_id)
        if entry is not None and worker in (entry.job.worker_id, entry.job.worker_name):
            return entry
        self._worker(worker)
        raise NotFound("job", job_id)

    def _of_named(self, name: str | None, jobs: list[Job]) -> list[Job]:
        """Those of the worker that has the id or name; where none has, those that were given to it by that."""
        if name is None:
            return jobs
        try:
            worker = self._worker(name)
        except NotFound:
            given = {job.id for job in self._newest() if name in (job.worker_id, job.worker_name, _named(job))}
            if not given:
                raise
            return [job for job in jobs if job.id in given]
        return [job for job in jobs if (job.worker_id or _named(job)) in (worker.id, worker.name)]

    def _worker(self, name: str) -> Worker:
        if name in self._workers:
            return self._workers[name]
        for worker in self._workers.values():
            if worker.name == name:
                return worker
        raise NotFound("worker", name)

    def _reachable(self, job: Job) -> None:
        if not self._is_reachable(job):
            raise Unreachable(job.worker_name or "none")

    def _is_reachable(self, job: Job) -> bool:
        worker = self._workers.get(job.worker_id or "")
        return worker is not None and worker.state is WorkerState.ONLINE

    def _unknown(self, job: Job, why: str) -> Job:
        return evolve(job, state=JobState.UNKNOWN, unknown_since=self._wall_time(), reason=why)

    def _view(self, worker: Worker) -> WorkerView:
        reason = self.shortages.get(worker.name) or worker.refusing
        if worker.state is not WorkerState.ONLINE:
            reason = "no sign of life"
        if worker.deregistered_at is not None:
            reason = f"it deregistered at {units.format_moment(worker.deregistered_at)}"
        return WorkerView(worker, sum(job.worker_id == worker.id and not job.over for job in self._newest()), reason)

    def _set(self, name: str, /, **changes: Any) -> WorkerView:
        worker = evolve(self._worker(name), **changes)
        self._workers[worker.id] = worker
        self._serve()
        return self._view(worker)

    def _newest(self) -> list[Job]:
        return [entry.job for entry in reversed(self._entries.values())]

    def _supports_output(self, entry: Entry) -> None:
        worker = self._workers.get(entry.job.worker_id or "")
        if worker is not None and worker.is_core:
            raise Unsupported(worker.name, "output")

    @staticmethod
    def _look(entry: Entry) -> None:
        for reader in list(entry.readers):
            reader.look()


def _lost(job: Job) -> OutputGone:
    return OutputGone(job.id, f"the job is lost ({job.reason})")


def _named(job: Job) -> str | None:
    return None if job.target is None else job.target.worker


def _matches(job: Job, which: JobFilter) -> bool:
    return (
        (not which.states or job.state in which.states)
        and which.labels.items() <= job.spec.labels.items()
        and which.created_by in (None, job.created_by)
        and _between(job.created_at, which.created_after, which.created_before)
        and _between(job.finished_at, which.finished_after, which.finished_before)
        and which.orphan in (None, job.orphan)
        and which.group_id in (None, job.group_id)
        and job.id.startswith(which.id_prefix or "")
    )


def _between(when: float | None, after: float | None, before: float | None) -> bool:
    if after is None and before is None:
        return True
    return when is not None and (after is None or after <= when) and (before is None or when < before)
