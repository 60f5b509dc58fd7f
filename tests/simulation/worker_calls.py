"""Calls of the scheduler to workers: ``IWorkerClient`` over the simulated network.

The network's results become the documented errors of the real client (``scheduler.rpc.worker_calls``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.errors import (
    Busy,
    Conflict,
    DeadlineExceeded,
    Invalid,
    Misdirected,
    NotAWorker,
    NotFound,
    OffsetBeyondEnd,
    OutputPruned,
    SchedulerError,
    ShuttingDown,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
)
from scheduler.interfaces import Deliver, IOutputStream, IWorkerClient
from scheduler.messages import Chunk, JobStatus
from scheduler.model import Job, JobSpec, Stream, Worker
from scheduler.rpc import convert
from scheduler.rpc.reasons import no_answer
from scheduler.rpc.worker_calls import CHECK_DEADLINE_SECONDS
from scheduler.worker_interfaces import IOwnIds
from tests.simulation.core_starts import LISTENS, CoreStarts
from tests.simulation.flows import Flow
from tests.simulation.network import DEADLINE, Call, Caller, CallFailed, Network
from tests.simulation.streams import serve_stream

#: Seconds: of a check whether a worker answers, and for which such an answer is valid.
CHECK_DEADLINE = CHECK_DEADLINE_SECONDS
FRESH = 0.02

#: Seconds after which a process that does not answer counts as gone.
ANSWERS_DEADLINE = 2.0

#: The most bytes of output in one answer.
CHUNK = 128

#: Output streams at once, and seconds after which one is cut.
STREAMS = 12
STREAM_DEADLINE = 60.0


class _Line:
    """The connection to one worker."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.answered = float("-inf")
        self.calls: dict[Call, None] = {}
        self.streams: dict[_OutputStream, None] = {}


@implementer(IOutputStream)
class _OutputStream:
    """A stream in progress over a connection."""

    def __init__(self, line: _Line, flow: Flow, understood: Callable[[Failure], Failure]) -> None:
        self.finished: Deferred[None] = Deferred()
        self._line = line
        self._flow = flow
        line.streams[self] = None
        flow.finished.addErrback(understood).addBoth(self._end)

    def cancel(self) -> None:
        if self._line.streams.pop(self, self) is None:
            self._flow.cancel()

    def cut(self) -> None:
        """The connection is closed, because the worker is forgotten or has another address."""
        if self in self._line.streams:
            self.cancel()
            self.finished.errback(Unreachable("the worker"))

    def _end(self, result: Any) -> None:
        if self._line.streams.pop(self, self) is None:
            self.finished.callback(result)  # a Failure starts the errbacks


@implementer(IWorkerClient)
class SimulatedWorkerClient:
    """The scheduler's calls to workers: one connection for each worker id, replaced when its address changes."""

    def __init__(
        self,
        network: Network,
        caller: Caller,
        nonce: str,
        arrived: Callable[[Worker, str, Any], None] = lambda worker, name, server: None,
        answered: Callable[[Worker, Exception | None], None] = lambda worker, error: None,
        start_failed: Callable[[Worker], None] = lambda worker: None,
        stopping: Callable[[Worker, str], None] = lambda worker, job_id: None,
        chunk: int = CHUNK,
    ) -> None:
        """``nonce`` is that of the scheduler's process.

        ``arrived`` is called for each call that a server accepts, with the worker, the call's name, and the server.
        ``answered`` is called with the worker of each answered call, and its error, if any; ``start_failed`` with the
        worker of each start that fails. ``stopping`` is called for each stop that is sent, with the worker and its id
        of the job. ``chunk``: the most bytes of output in one answer; a message of a stream has half of that.
        """
        self._network = network
        self._caller = caller
        self._nonce = nonce
        self._arrived = arrived
        self._answered = answered
        self._start_failed = start_failed
        self._stopping = stopping
        self._chunk = chunk
        self._lines: dict[str, _Line] = {}
        self.core_starts = CoreStarts(caller.process, DEADLINE)

    def probe(self, worker: Worker) -> Deferred[None]:
        probed = self._call(worker, "probe", lambda server: None, CHECK_DEADLINE)

        def failed(reason: Failure) -> Failure:
            error = reason.value
            if isinstance(error, DeadlineExceeded):
                return Failure(Unreachable(worker.name, reason=no_answer(CHECK_DEADLINE)))
            if type(error) is Unreachable:
                return Failure(Unreachable(worker.name, reason=error.reason))
            return reason

        return probed.addErrback(failed)

    def answers(self, worker: Worker) -> Deferred[bool | None]:
        def served(server: Any) -> bool:
            self._check(worker, server)
            return True

        def failed(reason: Failure) -> bool | None:
            return False if reason.trap(CallFailed, Misdirected) is Misdirected else None

        asked = self._network.call(self._caller, worker.address, "answers?", served, ANSWERS_DEADLINE, worker.name)
        return asked.answer.addErrback(failed)

    def start_job(
        self, worker: Worker, job: Job, late: Callable[[Deferred[JobStatus]], None] | None = None
    ) -> Deferred[JobStatus]:
        def failed(reason: Failure) -> Failure:
            self._start_failed(worker)
            return reason

        return Deferred.fromCoroutine(self._start(worker, job, late)).addErrback(failed)

    async def _start(self, worker: Worker, job: Job, late: Callable[[Deferred[JobStatus]], None] | None) -> JobStatus:
        line = self._line(worker)
        if self._caller.process.loop.now - line.answered > FRESH:
            await self.probe(worker)
        if worker.is_core:
            spec = JobSpec(command=job.spec.command, path=job.spec.path)
            started = self._call(
                worker, "start", lambda server: server.core_start(spec, job.id), DEADLINE + LISTENS, f"job={job.id}"
            )
            return await self.core_starts.follow(job.id, started, late)
        facts = (job.id, job.spec, job.created_at, job.key)
        return await self._call(worker, "start", lambda server: server.start(*facts), wire=f"job={job.id}")

    def stop_job(self, worker: Worker, job_id: str) -> Deferred[JobStatus | None]:
        self._stopping(worker, job_id)

        def stop(server: Any) -> Any:
            return server.core_stop(job_id) if worker.is_core else server.stop(job_id, False)

        return self._call(worker, "stop", stop, wire=f"job={job_id}")

    def signal_job(self, worker: Worker, job_id: str, signal: str, to: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self._signal(worker, job_id, signal, to))

    async def _signal(self, worker: Worker, job_id: str, signal: str, to: str) -> None:
        await self.probe(worker)
        wire = f"job={job_id} {signal}"
        try:
            await self._call(worker, "signal", lambda server: server.signal(job_id, signal, to), wire=wire)
        except Unreachable as error:  # it may have arrived
            raise DeadlineExceeded(f"signal on worker {worker.name!r}", DEADLINE) from error

    def remove_job(self, worker: Worker, job_id: str) -> Deferred[None]:
        return self._call(worker, "remove", lambda server: server.remove(job_id), wire=f"job={job_id}")

    def query_job(self, worker: Worker, job_id: str, seal: bool = False) -> Deferred[JobStatus]:
        def query(server: Any) -> Any:
            if worker.is_core:
                return convert.query_from_pb(job_id, server.core_query(job_id))
            return server.seal(job_id) if seal else server.query(job_id)

        return self._call(worker, "seal" if seal else "query", query, wire=f"job={job_id}")

    def read_output(self, worker: Worker, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        def read(server: Any) -> Chunk:
            return server.read_output_thd(job_id, stream, offset, min(size, self._chunk))

        return self._call(worker, "read", read, wire=f"job={job_id} from {offset}")

    def stream_output(
        self, worker: Worker, job_id: str, stream: Stream, offset: int, deliver: Deliver, starting: bool = False
    ) -> IOutputStream:
        line = self._line(worker)
        if sum(len(each.streams) for each in self._lines.values()) >= STREAMS:
            raise Busy("output streams", STREAMS)

        def serve(server: Any, flow: Flow) -> None:
            try:
                self._check(worker, server)
            except Misdirected as error:
                flow.fail(error)
                return
            serve_stream(server, flow, job_id, stream, offset, self._chunk // 2, starting)

        flow = Flow(
            self._network,
            self._caller,
            worker.address,
            "stream",
            serve,
            deliver,
            STREAM_DEADLINE,
            f"{worker.name} job={job_id} {stream.value} from {offset}",
        )
        return _OutputStream(line, flow, lambda reason: self._understood(reason, worker, "stream", STREAM_DEADLINE))

    def forget(self, worker_id: str) -> None:
        line = self._lines.pop(worker_id, None)
        if line is None:
            return
        # Like a closed channel, it notifies the callers a moment later, not within this call.
        for call in list(line.calls):
            self._caller.process.after(0, self._network.hang_up, call)
        for stream in list(line.streams):
            self._caller.process.after(0, stream.cut)

    def _line(self, worker: Worker) -> _Line:
        line = self._lines.get(worker.id)
        if line is None or line.address != worker.address:
            self.forget(worker.id)
            line = self._lines[worker.id] = _Line(worker.address)
        return line

    def _call(
        self, worker: Worker, name: str, make: Callable[[Any], Any], deadline: float = DEADLINE, wire: str = ""
    ) -> Deferred[Any]:
        line = self._line(worker)

        def told(server: Any) -> Deferred[Any]:
            self._check(worker, server)
            self._arrived(worker, name, server)
            return maybeDeferred(make, server)

        call = self._network.call(self._caller, worker.address, name, told, deadline, f"{worker.name} {wire}".rstrip())
        line.calls[call] = None

        def over(result: Any) -> Any:
            line.calls.pop(call, None)
            error = result.value if isinstance(result, Failure) else None
            if not isinstance(error, CallFailed | Misdirected):
                self._answered(worker, error)
            if not isinstance(result, Failure):
                line.answered = self._caller.process.loop.now
                return result
            return self._understood(result, worker, name, deadline)

        return call.answer.addBoth(over)

    def _check(self, worker: Worker, server: Any) -> None:
        """``Misdirected`` if the call is meant for another process; another program has no nonce."""
        identity: IOwnIds | None = getattr(server, "identity", None)
        if identity is not None:
            identity.check_thd(worker.id, worker.nonce, self._nonce)
        elif worker.nonce:
            raise Misdirected(worker.name)

    @staticmethod
    def _understood(reason: Failure, worker: Worker, name: str, deadline: float) -> Failure:
        error = reason.value
        if isinstance(error, CallFailed):
            if error.why == "deadline":
                return Failure(DeadlineExceeded(f"{name} on worker {worker.name!r}", deadline))
            return Failure(Unreachable(worker.name, sent=True, reason=f"connection {error.why}"))
        if isinstance(error, Misdirected):
            return Failure(Misdirected(worker.name))
        told = (NotFound, Conflict, OutputPruned, OffsetBeyondEnd, Busy, Unsupported, NotAWorker, CancelledError)
        if isinstance(error, told) or type(error) is Unavailable:
            return reason
        if isinstance(error, ShuttingDown):
            return Failure(Unreachable(worker.name, sent=True))
        if isinstance(error, Invalid | SchedulerError):
            return Failure(WorkerFault(worker.name, str(error)))
        return Failure(WorkerFault(worker.name, f"{type(error).__name__}: {error}"))
