"""Calls to workers, in memory: job runners answer them, as they do over the wire; and the failure twins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.errors import DeadlineExceeded, Invalid, SchedulerError, ShuttingDown, Unreachable, WorkerFault
from scheduler.interfaces import Deliver, IOutputStream, IWorkerClient
from scheduler.messages import Chunk, JobStatus
from scheduler.model import Job, JobState, Stream, Worker
from scheduler.worker_interfaces import IJobRunner

T = TypeVar("T")

#: Bytes of output in one chunk.
CHUNK_MAX_BYTES = 1024 * 1024


@implementer(IWorkerClient)
class FakeWorkerClient:
    """Workers in good health: ``runners`` by the workers' ids; one that is not there is unreachable.

    Answers come at once, streams flow by timers of the ``clock``. ``calls`` records
    (method, worker id, job id), ``streams`` those that are under way.
    """

    def __init__(self, clock: IReactorTime, runners: dict[str, IJobRunner]) -> None:
        self.runners = runners
        self.calls: list[tuple[str, str, str]] = []
        self.forgotten: list[str] = []
        self.streams: list[FakeStream] = []
        self.clock = clock

    def probe(self, worker: Worker) -> Deferred[None]:
        return self._call("probe", worker, "", lambda runner: None)

    def start_job(self, worker: Worker, job: Job, sent: Callable[[], None] | None = None) -> Deferred[JobStatus]:
        def start(runner: IJobRunner) -> Deferred[JobStatus]:
            if sent is not None:
                sent()
            if not worker.is_core:
                return runner.start(job.id, job.spec, job.created_at)
            return runner.start("", job.spec, None).addCallback(
                lambda status: JobStatus(status.job_id, JobState.RUNNING)
            )

        return self._call("start_job", worker, job.id, start)

    def stop_job(self, worker: Worker, job_id: str) -> Deferred[JobStatus | None]:
        def stop(runner: IJobRunner) -> Deferred[JobStatus | None]:
            return runner.stop(job_id, False).addCallback(lambda status: None if worker.is_core else status)

        return self._call("stop_job", worker, job_id, stop)

    def signal_job(self, worker: Worker, job_id: str, signal: str, to: str) -> Deferred[None]:
        return self._call("signal_job", worker, job_id, lambda runner: runner.signal(job_id, signal, to))

    def remove_job(self, worker: Worker, job_id: str) -> Deferred[None]:
        return self._call("remove_job", worker, job_id, lambda runner: runner.remove(job_id))

    def query_job(self, worker: Worker, job_id: str, seal: bool = False) -> Deferred[JobStatus]:
        return self._call("query_job", worker, job_id, lambda runner: (runner.seal if seal else runner.query)(job_id))

    def read_output(self, worker: Worker, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        def read(runner: IJobRunner) -> Chunk:
            return runner.read_output_thd(job_id, stream, offset, min(size, CHUNK_MAX_BYTES))

        return self._call("read_output", worker, job_id, read)

    def stream_output(
        self, worker: Worker, job_id: str, stream: Stream, offset: int, deliver: Deliver
    ) -> IOutputStream:
        opened = FakeStream(self, job_id, stream, offset, deliver)
        self.streams.append(opened)
        self._call("stream_output", worker, job_id, opened.begin).addErrback(opened.fail)
        return opened

    def forget(self, worker_id: str) -> None:
        self.forgotten.append(worker_id)

    def _call(
        self, method: str, worker: Worker, job_id: str, call: Callable[[IJobRunner], T | Deferred[T]]
    ) -> Deferred[T]:
        self.calls.append((method, worker.id, job_id))
        answer: Deferred[T] = self._answer(method, worker, call)
        return answer.addErrback(_as_told, worker.name)

    def _answer(self, method: str, worker: Worker, call: Callable[[IJobRunner], Any]) -> Deferred[Any]:
        runner = self.runners.get(worker.id)
        if runner is None:
            return fail(Unreachable(worker.name))
        return maybeDeferred(call, runner)


def _as_told(reason: Failure, worker: str) -> Failure:
    """What becomes of a worker's error on its way."""
    if reason.check(Invalid):
        return Failure(WorkerFault(worker, str(reason.value)))
    if reason.check(ShuttingDown):
        return Failure(Unreachable(worker, sent=True))
    return reason


@implementer(IOutputStream)
class FakeStream:
    """One stream; ``over`` once nothing more will come."""

    def __init__(self, client: FakeWorkerClient, job_id: str, stream: Stream, offset: int, deliver: Deliver) -> None:
        self.finished: Deferred[None] = Deferred()
        self.over = False
        self._client = client
        self._what = (job_id, stream)
        self._offset = offset
        self._deliver = deliver
        self._held = False
        self._runner: IJobRunner | None = None
        self._unwatch: Callable[[], None] = lambda: None

    def begin(self, runner: IJobRunner) -> Deferred[None]:
        """Flow, from that runner."""
        self._runner = runner

        def flow(unwatch: Callable[[], None]) -> None:
            self._unwatch = unwatch
            self._later()

        return runner.watch_output(*self._what, self._later).addCallback(flow)

    def cancel(self) -> None:
        if not self.over:
            self._end()

    def fail(self, reason: Failure) -> None:
        """Be cut."""
        if not self.over:
            self._end()
            self.finished.errback(reason)

    def _end(self) -> None:
        self.over = True
        self._client.streams.remove(self)
        self._unwatch()

    def _later(self, _: object = None) -> None:
        self._client.clock.callLater(0, self._flow)

    def _flow(self) -> None:
        if self.over or self._held or self._runner is None:
            return
        try:
            chunk = self._runner.read_output_thd(*self._what, self._offset, CHUNK_MAX_BYTES)
        except SchedulerError as error:
            self.fail(Failure(error))
            return
        if not chunk.data and not chunk.end:
            return
        self._offset = chunk.next_offset
        self._held = True
        sent = Chunk(chunk.data, chunk.offset, chunk.end, cut=chunk.cut)
        maybeDeferred(self._deliver, sent).addCallback(self._delivered, chunk.end)

    def _delivered(self, _: object, end: bool) -> None:
        self._held = False
        if self.over:
            return
        if end:
            self._end()
            self.finished.callback(None)
        else:
            self._later()


class FailingWorkerClient(FakeWorkerClient):
    """Every call fails with that error, and reaches nobody."""

    def __init__(self, clock: IReactorTime, error: SchedulerError) -> None:
        super().__init__(clock, {})
        self.error = error

    def _answer(self, method: str, worker: Worker, call: Callable[[IJobRunner], Any]) -> Deferred[Any]:
        return fail(self.error)


class UnreachableWorkerClient(FakeWorkerClient):
    """Nobody listens, anywhere."""

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__(clock, {})


class SilentWorkerClient(FakeWorkerClient):
    """Calls leave and are never answered, so that all end at their deadline, in seconds of the clock.

    ``arrives`` says whether they reach the runners all the same.
    """

    def __init__(
        self, clock: IReactorTime, runners: dict[str, IJobRunner], deadline: float = 10.0, arrives: bool = False
    ) -> None:
        super().__init__(clock, runners)
        self._deadline = deadline
        self._arrives = arrives

    def _answer(self, method: str, worker: Worker, call: Callable[[IJobRunner], Any]) -> Deferred[Any]:
        if method == "probe":
            return self._too_late(Unreachable(worker.name))
        if self._arrives:
            super()._answer(method, worker, call).addErrback(lambda _: None)
        return self._too_late(DeadlineExceeded(method, self._deadline))

    def _too_late(self, error: SchedulerError) -> Deferred[Any]:
        return deferLater(self.clock, self._deadline, lambda: succeed(None)).addCallback(lambda _: fail(error))
