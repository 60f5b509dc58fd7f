"""The double of ``IWorkerClient``: workers in good health, until the test says otherwise.

Calls are answered at once by the job runner of their worker. Per method a test can ``hold`` calls until it answers
them itself, have them ``fail``, or let them end ``silent``, at their deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.errors import (
    DeadlineExceeded,
    Invalid,
    Misdirected,
    SchedulerError,
    ShuttingDown,
    Unreachable,
    WorkerFault,
)
from scheduler.interfaces import Deliver, IOutputStream, IWorkerClient
from scheduler.messages import Chunk, JobStatus
from scheduler.model import Job, JobState, Stream, Worker
from scheduler.worker_interfaces import IJobRunner, IOwnIds

#: Bytes of output in one chunk.
CHUNK_MAX_BYTES = 1024 * 1024

#: The nonce of the calling process.
SCHEDULER_NONCE = "scheduler"

#: Methods that a test can hold, or let fail.
METHODS = (
    "probe",
    "answers",
    "start_job",
    "stop_job",
    "signal_job",
    "remove_job",
    "query_job",
    "read_output",
    "stream_output",
)


@define(eq=False)
class Call:
    """A call; ``args`` are those after the worker. While it is held, the test fires ``answer``."""

    method: str
    worker: Worker
    args: tuple[Any, ...]
    answer: Deferred[Any] = field(factory=Deferred)

    @property
    def worker_id(self) -> str:
        return self.worker.id

    @property
    def address(self) -> str:
        """The worker's address at the time of the call."""
        return self.worker.address

    @property
    def job_id(self) -> str:
        """The id of its job; ``""`` if there is none."""
        first = self.args[0] if self.args else ""
        return first.id if isinstance(first, Job) else str(first)


@frozen
class _Failing:
    """The failure of a method's calls: ``after`` seconds; ``arrives``: the worker still carries them out."""

    error: SchedulerError
    arrives: bool
    after: float = 0.0


@implementer(IWorkerClient)
class Workers:
    """Doubles of workers: ``runners`` are the healthy ones, by their ids; any other is unreachable.

    ``calls`` has every call, ``held`` those that wait for the test, ``streams`` every opened stream, and ``forgotten``
    the ids of workers whose channels were closed. ``late`` has functions to call before a start on a core worker fails,
    if it may be answered later. ``on_call`` is called with each call as it is made. ``identities``, by worker ids, are
    the processes that answer at a worker's address, ``None`` for a program without a name; by default the addressee
    answers. Streams flow by timers of the ``clock``.
    """

    def __init__(self, clock: IReactorTime, runners: dict[str, IJobRunner] | None = None) -> None:
        self.clock = clock
        self.runners: dict[str, IJobRunner] = {} if runners is None else runners
        self.identities: dict[str, IOwnIds | None] = {}
        self.calls: list[Call] = []
        self.held: list[Call] = []
        self.streams: list[OutputStream] = []
        self.forgotten: list[str] = []
        self.late: list[Callable[[Deferred[JobStatus]], None]] = []
        self.on_call: Callable[[Call], None] = lambda call: None
        self._holding: set[str] = set()
        self._failing: dict[str, _Failing] = {}
        self._refusal: SchedulerError | None = None
        #: Bytes of output in one chunk, at most.
        self.piece = CHUNK_MAX_BYTES

    # what a test does

    def hold(self, *methods: str) -> None:
        """From now on calls of these methods wait for the test; without any, calls of all methods."""
        self._holding |= set(methods or METHODS)

    def release(self, *methods: str) -> None:
        """From now on calls of these methods are answered at once again; without any, calls of all methods."""
        for method in methods or METHODS:
            self._holding.discard(method)
            self._failing.pop(method, None)

    def take(self, method: str) -> Call:
        """The oldest held call, which must be of that method."""
        call = self.held.pop(0)
        assert call.method == method, call
        return call

    def fail(self, method: str, error: SchedulerError, arrives: bool = False) -> None:
        """From now on calls of the method fail with that error; ``arrives``: their workers still carry them out."""
        self._failing[method] = _Failing(error, arrives)

    def silence(self, deadline: float, arrives: bool = False) -> None:
        """From now on no call is answered: each ends at its deadline, in seconds."""
        for method in METHODS:
            self._failing[method] = _Failing(DeadlineExceeded(method, deadline), arrives, deadline)

    def refuse_stream(self, error: SchedulerError) -> None:
        """Refuse the next stream by raising the error."""
        self._refusal = error

    def running(self) -> list[OutputStream]:
        """Streams in progress."""
        return [stream for stream in self.streams if not stream.cancelled and not stream.over]

    def of_next_process(self, clock: IReactorTime) -> Workers:
        """The same workers, held and failing as before, for the next process of the scheduler."""
        workers = Workers(clock, self.runners)
        workers.identities = self.identities
        workers._holding = self._holding
        workers._failing = self._failing
        return workers

    # IWorkerClient

    def probe(self, worker: Worker) -> Deferred[None]:
        return self._call(Call("probe", worker, ()), lambda runner: None)

    def answers(self, worker: Worker) -> Deferred[bool | None]:
        def failed(reason: Failure) -> bool | None:
            reason.trap(Unreachable, DeadlineExceeded)
            return False if reason.check(Misdirected) else None

        return self._call(Call("answers", worker, ()), lambda runner: True).addErrback(failed)

    def start_job(
        self, worker: Worker, job: Job, late: Callable[[Deferred[JobStatus]], None] | None = None
    ) -> Deferred[JobStatus]:
        if late is not None and worker.is_core:
            self.late.append(late)

        def start(runner: IJobRunner) -> Deferred[JobStatus]:
            if not worker.is_core:
                return runner.start(job.id, job.spec, job.created_at, job.key)
            return runner.start("", job.spec, None).addCallback(
                lambda status: JobStatus(status.job_id, JobState.RUNNING)
            )

        return self._call(Call("start_job", worker, (job,)), start)

    def stop_job(self, worker: Worker, job_id: str) -> Deferred[JobStatus | None]:
        def stop(runner: IJobRunner) -> Deferred[JobStatus | None]:
            return runner.stop(job_id, False).addCallback(lambda status: None if worker.is_core else status)

        return self._call(Call("stop_job", worker, (job_id,)), stop)

    def signal_job(self, worker: Worker, job_id: str, signal: str, to: str) -> Deferred[None]:
        call = Call("signal_job", worker, (job_id, signal, to))
        return self._call(call, lambda runner: runner.signal(job_id, signal, to))

    def remove_job(self, worker: Worker, job_id: str) -> Deferred[None]:
        return self._call(Call("remove_job", worker, (job_id,)), lambda runner: runner.remove(job_id))

    def query_job(self, worker: Worker, job_id: str, seal: bool = False) -> Deferred[JobStatus]:
        call = Call("query_job", worker, (job_id, seal))
        return self._call(call, lambda runner: (runner.seal if seal else runner.query)(job_id))

    def read_output(self, worker: Worker, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        call = Call("read_output", worker, (job_id, stream, offset, size))
        return self._call(call, lambda runner: runner.read_output_thd(job_id, stream, offset, min(size, self.piece)))

    def stream_output(
        self, worker: Worker, job_id: str, stream: Stream, offset: int, deliver: Deliver, starting: bool = False
    ) -> IOutputStream:
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            raise refusal
        opened = OutputStream(self.clock, worker.id, job_id, stream, offset, deliver, self.piece, starting)
        self.streams.append(opened)
        self._call(Call("stream_output", worker, (job_id, stream, offset)), opened.flow_from).addErrback(opened.fail)
        return opened

    def forget(self, worker_id: str) -> None:
        self.forgotten.append(worker_id)

    def _call(self, call: Call, ask: Callable[[IJobRunner], Any]) -> Deferred[Any]:
        self.calls.append(call)
        self.on_call(call)
        if call.method in self._holding:
            self.held.append(call)
            return call.answer
        failing = self._failing.get(call.method)
        if failing is None or failing.arrives:
            answer = self._ask(call.worker, ask)
        if failing is None:
            return answer
        if failing.arrives:
            answer.addErrback(lambda _: None)
        late_probe = call.method == "probe" and failing.after
        error = Unreachable(call.worker.name) if late_probe else failing.error
        if not failing.after:
            return fail(error)
        return deferLater(self.clock, failing.after, succeed, None).addCallback(lambda _: fail(error))

    def _ask(self, worker: Worker, ask: Callable[[IJobRunner], Any]) -> Deferred[Any]:
        runner = self.runners.get(worker.id)
        if runner is None:
            return fail(Unreachable(worker.name))
        if worker.id in self.identities and not _is_meant(worker, self.identities[worker.id]):
            return fail(Misdirected(worker.name))
        return maybeDeferred(ask, runner).addErrback(_as_received, worker.name)


def _is_meant(worker: Worker, identity: IOwnIds | None) -> bool:
    """Whether the process that answers accepts a call to the worker, and is believed."""
    if identity is None:
        return not worker.nonce
    try:
        identity.check_thd(worker.id, worker.nonce, SCHEDULER_NONCE)
    except Misdirected:
        return False
    return True


def _as_received(reason: Failure, worker: str) -> Failure:
    """The error that a caller gets for the one that the worker raised."""
    if reason.check(Invalid):
        return Failure(WorkerFault(worker, str(reason.value)))
    if reason.check(ShuttingDown):
        return Failure(Unreachable(worker, sent=True))
    return reason


@implementer(IOutputStream)
class OutputStream:
    """A stream. No chunk is sent while the receiver holds the previous one: ``held``.

    It has a runner's output or, while it is held, the test's chunks.
    """

    def __init__(
        self,
        clock: IReactorTime,
        worker_id: str,
        job_id: str,
        stream: Stream,
        offset: int,
        deliver: Deliver,
        piece: int,
        starting: bool = False,
    ) -> None:
        self.worker_id = worker_id
        self.starting = starting
        self.key = (job_id, stream)
        self.offset = offset
        self.finished: Deferred[None] = Deferred()
        self.cancelled = False
        self.over = False
        self.held = False
        self._clock = clock
        self._deliver = deliver
        self._piece = piece
        self._runner: IJobRunner | None = None
        self._unwatch: Callable[[], None] = lambda: None

    # what a test does

    def send(self, chunk: Chunk) -> None:
        """Deliver a chunk; the stream is over when the receiver has taken the last one."""
        assert not self.held
        self.offset = chunk.next_offset
        self.held = True
        maybeDeferred(self._deliver, chunk).addCallback(self._delivered, chunk.end)

    def cut(self, error: Exception | None) -> None:
        """End it with an error, or with ``None`` without one."""
        self.over = True
        self._unwatch()
        if error is None:
            self.finished.callback(None)
        else:
            self.finished.errback(error)

    # IOutputStream

    def cancel(self) -> None:
        self.cancelled = True
        self._unwatch()

    # what ``Workers`` does

    def flow_from(self, runner: IJobRunner) -> Deferred[None]:
        """Send the runner's present and future output."""

        def flow(unwatch: Callable[[], None]) -> None:
            self._unwatch = unwatch
            self._runner = runner
            self._soon()

        return runner.watch_output(*self.key, self._soon).addCallback(flow)

    def fail(self, reason: Failure) -> None:
        """End it, unless it has ended."""
        if not self.over and not self.cancelled:
            self.cut(reason.value)

    def _soon(self) -> None:
        self._clock.callLater(0, self._flow)

    def _flow(self) -> None:
        if self.over or self.cancelled or self.held or self._runner is None:
            return
        try:
            chunk = self._runner.read_output_thd(*self.key, self.offset, self._piece)
        except SchedulerError as error:
            self.cut(error)
            return
        if chunk.data or chunk.end:
            self.send(Chunk(chunk.data, chunk.offset, chunk.end, cut=chunk.cut))

    def _delivered(self, _: object, end: bool) -> None:
        self.held = False
        if self.over or self.cancelled:
            return
        if end:
            self.cut(None)
        elif self._runner is not None:
            self._soon()
