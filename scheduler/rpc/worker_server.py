"""The gRPC ``Worker`` service, which the scheduler calls.

Theory of operation. Each call holds a thread. Output streams may use 64 threads, counted here, and short calls have
sixteen in reserve, so followers can never delay a stop. A stop that waits for the end of its job holds a thread of the
reserve, so only some stops wait at once. A further stop is carried out all the same, and ends the wait of the stop that
has waited longest. A stream reads the spool in its own thread, once the job is started. It sleeps until the file grows,
the call ends or the server ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import grpc
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from scheduler.daemon.servers import TlsFiles
from scheduler.errors import Busy, DeadlineExceeded, Invalid, NotFound, ShuttingDown
from scheduler.messages import JobStatus
from scheduler.model import Stream
from scheduler.net import Address
from scheduler.pb import worker_pb2, worker_pb2_grpc
from scheduler.rpc import convert
from scheduler.rpc.addressing import AddresseeCheck, caller_note
from scheduler.rpc.callers import ANY_CALLER, CallerRules, Callers
from scheduler.rpc.channel import CALL_DEADLINE_SECONDS, MAX_QUERIED_AT_ONCE, MAX_WORKER_CALLS
from scheduler.rpc.server import Admission, GrpcServer, IServerReactor, ServerLimits, Servicer, answered
from scheduler.security.identities import Role
from scheduler.threads import Hop
from scheduler.worker_interfaces import IJobRunner, IOwnIds

#: Output streams at once.
MAX_OUTPUT_STREAMS = 64
#: Threads reserved for all other calls.
RESERVED_THREADS = 16
#: Calls that have a thread at once. Further calls wait for a thread.
MAX_SERVED_CALLS = MAX_OUTPUT_STREAMS + 2 * RESERVED_THREADS
#: Stops that wait for the end of their job at once. A further stop ends the longest wait.
MAX_WAITING_STOPS = 8
#: Seconds that a stop waits for the end if its caller sets no deadline.
STOP_WAIT_MAX_SECONDS = 300.0
#: Bytes of output in one message.
CHUNK_MAX_BYTES = 1024 * 1024
#: Seconds that a stream waits for the start of its job, and seconds between two checks: the first, and the longest.
START_WAIT_MAX_SECONDS, START_RECHECK_SECONDS, START_RECHECK_MAX_SECONDS = 2.0, 0.001, 0.05
#: Seconds after which a stream checks its file even if nothing woke it.
RECHECK_INTERVAL_SECONDS = 30.0

# One connection gets what the scheduler needs: all output streams and the reserve. As much as the reserve is left to
# others.
_LIMITS = ServerLimits(
    threads=MAX_SERVED_CALLS, queue=MAX_WORKER_CALLS - MAX_SERVED_CALLS, streams=MAX_OUTPUT_STREAMS + RESERVED_THREADS
)


def worker_server(
    reactor: IServerReactor,
    address: Address,
    tls: TlsFiles | None,
    runner: IJobRunner,
    identity: IOwnIds,
    rules: CallerRules = ANY_CALLER,
    admissions: Sequence[Admission] = (),
) -> GrpcServer:
    """Make the server that the scheduler calls, and nobody else. It refuses calls that are meant for another process.

    ``admissions``: further rules, asked about each call. Raises ``Invalid`` if the certificate can't be read.
    """
    callers = Callers(Role.SCHEDULER, tls, rules)
    return GrpcServer(
        reactor,
        address,
        tls,
        _LIMITS,
        _WorkerServicer(runner, Hop(reactor), reactor, [callers.check_thd, *admissions, caller_note(identity)]),
        worker_pb2_grpc.add_WorkerServicer_to_server,
        [_WorkerServicer.service],
        [AddresseeCheck(identity)],
    )


class _Waits:
    """Admits at most ``limit`` waits at once. A further wait ends the longest one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: list[threading.Event] = []
        self._lock = threading.Lock()

    @contextmanager
    def one(self, wake: threading.Event) -> Iterator[None]:
        with self._lock:
            self._waiting.append(wake)
            if len(self._waiting) > self._limit:
                self._waiting.pop(0).set()
        try:
            yield
        finally:
            with self._lock, suppress(ValueError):  # it was woken to make room
                self._waiting.remove(wake)


class _WorkerServicer(Servicer, worker_pb2_grpc.WorkerServicer):
    service = "jobscheduler.Worker"

    def __init__(
        self, runner: IJobRunner, hop: Hop, reactor: IReactorFromThreads, admissions: Sequence[Admission]
    ) -> None:
        super().__init__(hop, CALL_DEADLINE_SECONDS, admissions)
        self._runner = runner
        self._reactor = reactor
        self._stream_places = threading.Semaphore(MAX_OUTPUT_STREAMS)
        self._stops = _Waits(MAX_WAITING_STOPS)
        self._stopping = threading.Event()
        self._sleeping: set[threading.Event] = set()

    def stop(self) -> None:
        self._stopping.set()
        for wake in tuple(self._sleeping):
            wake.set()

    @answered
    def StartJob(self, request: worker_pb2.StartJobReq, context: grpc.ServicerContext) -> worker_pb2.StartJobRes:
        spec = convert.spec_from_pb(request)
        created_at = convert.created_at_from_pb(request)
        key = convert.key_from_pb(request)
        status = self.answer_thd(context, "StartJob", self._runner.start, request.jobID, spec, created_at, key)
        return worker_pb2.StartJobRes(jobID=status.job_id, status=convert.status_to_pb(status))

    @answered
    def StopJob(self, request: worker_pb2.StopJobReq, context: grpc.ServicerContext) -> worker_pb2.StopJobRes:
        if request.HasField("wait") and not request.wait:
            status = self.answer_thd(context, "StopJob", self._runner.stop, request.jobID, False)
        else:
            status = self._stop_and_wait_thd(request.jobID, context)
        return worker_pb2.StopJobRes(status=convert.status_to_pb(status))

    def _stop_and_wait_thd(self, job_id: str, context: grpc.ServicerContext) -> JobStatus:
        waiting: list[Deferred[Any]] = []
        ends: list[JobStatus | Failure] = []

        def begin(wake: threading.Event) -> None:
            waiting.append(self._runner.stop(job_id, True))
            waiting[0].addBoth(ends.append).addBoth(lambda _: wake.set())

        with self._waking(context) as wake, self._stops.one(wake):
            self.answer_thd(context, "StopJob", begin, wake)
            began = time.monotonic()
            wake.wait(min(context.time_remaining(), STOP_WAIT_MAX_SECONDS))
            if not ends:
                self._reactor.callFromThread(waiting[0].cancel)
                if self._stopping.is_set():
                    raise ShuttingDown()
                raise DeadlineExceeded(f"end of job {job_id}", round(time.monotonic() - began, 1))
        if isinstance(ends[0], Failure):
            ends[0].raiseException()
        return ends[0]

    @answered
    def SignalJob(self, request: worker_pb2.SignalJobReq, context: grpc.ServicerContext) -> worker_pb2.SignalJobRes:
        name, to = convert.signal_from_pb(request)
        self.answer_thd(context, "SignalJob", self._runner.signal, request.jobID, name, to)
        return worker_pb2.SignalJobRes()

    @answered
    def RemoveJob(self, request: worker_pb2.RemoveJobReq, context: grpc.ServicerContext) -> worker_pb2.RemoveJobRes:
        job_id = convert.checked_id("jobID", request.jobID)
        self.answer_thd(context, "RemoveJob", self._runner.remove, job_id)
        return worker_pb2.RemoveJobRes()

    @answered
    def QueryJob(self, request: worker_pb2.QueryJobReq, context: grpc.ServicerContext) -> worker_pb2.QueryJobRes:
        try:
            status = self._runner.query(request.jobID)  # in this thread: a hop would take longer than the query
        except NotFound:
            if not request.seal:
                raise
            status = self.answer_thd(context, "QueryJob", self._runner.seal, request.jobID)
        return convert.query_to_pb(status)

    @answered
    def QueryJobs(
        self,
        request: worker_pb2.QueryJobsReq,
        context: grpc.ServicerContext,  # noqa: ARG002 - grpc gives it
    ) -> worker_pb2.QueryJobsRes:
        if len(request.jobID) > MAX_QUERIED_AT_ONCE:
            raise Invalid("jobID", f"{len(request.jobID)} are more than {MAX_QUERIED_AT_ONCE}")
        known = []
        for job_id in request.jobID:
            try:
                known.append(convert.status_to_pb(self._runner.query(job_id)))
            except NotFound:
                continue
        return worker_pb2.QueryJobsRes(status=known)

    @answered
    def ReadOutput(
        self,
        request: worker_pb2.ReadOutputReq,
        context: grpc.ServicerContext,  # noqa: ARG002 - grpc gives it
    ) -> worker_pb2.ReadOutputRes:
        stream = convert.stream_from_pb(request.stream)
        offset = convert.checked_size("offset", request.offset)
        size = min(convert.checked_size("max", request.max), CHUNK_MAX_BYTES)
        chunk = self._runner.read_output_thd(request.jobID, stream, offset, size)
        return worker_pb2.ReadOutputRes(
            output=chunk.data, offset=chunk.offset, end=chunk.end, size=chunk.size, cut=chunk.cut
        )

    def StreamJob(
        self, request: worker_pb2.StreamJobReq, context: grpc.ServicerContext
    ) -> Iterator[worker_pb2.StreamJobRes]:
        self.note(context, "StreamJob")
        try:
            self.admit_thd(context)
            stream = convert.stream_from_pb(request.stream)
            offset = convert.checked_size("offset", request.offset)
            with self._stream_place(), self._waking(context) as wake:
                unwatch = self._watch_thd(request, stream, context, wake)
                try:
                    yield from self._stream_thd(request.jobID, stream, offset, context, wake)
                finally:
                    self._reactor.callFromThread(unwatch)
        except Exception as error:
            self.fail_thd(context, f"{self.service}/StreamJob", error)

    def _watch_thd(
        self, request: worker_pb2.StreamJobReq, stream: Stream, context: grpc.ServicerContext, wake: threading.Event
    ) -> Callable[[], None]:
        """Have ``wake`` set when the output grows. Waits for the job's start if ``request.starting``."""
        give_up_at, pause = time.monotonic() + START_WAIT_MAX_SECONDS, START_RECHECK_SECONDS
        while True:
            try:
                watch: Callable[[], None] = self.answer_thd(
                    context, "StreamJob", self._runner.watch_output, request.jobID, stream, wake.set
                )
            except NotFound:
                if not request.starting or time.monotonic() > give_up_at or wake.wait(pause):
                    raise
                pause = min(2 * pause, START_RECHECK_MAX_SECONDS)
            else:
                return watch

    def _stream_thd(
        self, job_id: str, stream: Stream, offset: int, context: grpc.ServicerContext, wake: threading.Event
    ) -> Iterator[worker_pb2.StreamJobRes]:
        while True:
            wake.clear()  # before the check, so that no later change is missed
            if self._stopping.is_set():
                raise ShuttingDown()
            if not context.is_active():
                return
            chunk = self._runner.read_output_thd(job_id, stream, offset, CHUNK_MAX_BYTES)
            if chunk.data or chunk.end:
                yield worker_pb2.StreamJobRes(output=chunk.data, offset=chunk.offset, end=chunk.end, cut=chunk.cut)
                offset = chunk.next_offset
            if chunk.end:
                return
            if not chunk.data:
                wake.wait(RECHECK_INTERVAL_SECONDS)

    @contextmanager
    def _stream_place(self) -> Iterator[None]:
        if not self._stream_places.acquire(blocking=False):
            raise Busy("output streams of this worker", MAX_OUTPUT_STREAMS)
        try:
            yield
        finally:
            self._stream_places.release()

    @contextmanager
    def _waking(self, context: grpc.ServicerContext) -> Iterator[threading.Event]:
        """Make an event that is also set when the call or the server ends."""
        wake = threading.Event()
        self._sleeping.add(wake)
        try:
            if not context.add_callback(wake.set) or self._stopping.is_set():
                wake.set()
            yield wake
        finally:
            self._sleeping.discard(wake)
