"""A sync gRPC server as a service: bound before privileges are dropped, drained when it stops.

Theory of operation. No grpc object exists before the service starts: twistd forks to become a daemon, and a server made
before the fork would be dead. A call gets a thread of the server's pool once its message has arrived (``arrivals``),
and reaches the reactor through the ``Hop``. To stop, the hop is closed first, which frees every thread that waits for
the reactor. Then calls get a short time to end, and the rest is cancelled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from functools import wraps
from typing import Any, NoReturn, TypeVar

import grpc
from attrs import define, frozen
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.logger import Logger

from scheduler.daemon.logs import METADATA_KEY, REQUEST_ID
from scheduler.daemon.servers import TlsFiles
from scheduler.daemon.services import Periodic
from scheduler.errors import Refused, SchedulerError, Unauthenticated
from scheduler.net import Address
from scheduler.rpc import credentials, health, status
from scheduler.rpc.admission import CHECK_INTERVAL_SECONDS, MessageFirst, WaitingCalls
from scheduler.rpc.channel import MESSAGE_MAX_BYTES, target
from scheduler.rpc.compression import NO_COMPRESSION
from scheduler.threads import Hop

S = TypeVar("S", bound="Servicer")
Request = TypeVar("Request")
Response = TypeVar("Response")

#: Decides whether a call is admitted. Called in the call's thread; raises a ``SchedulerError`` to refuse it.
Admission = Callable[[grpc.ServicerContext], None]

#: Seconds that calls may continue after the stop.
STOP_GRACE_SECONDS = 2.0
#: Calls to one method that may wait until grpcio looks at them.
MAX_PENDING_CALLS = 20_000
#: Threads for the streams of services other than ours.
OTHER_STREAM_THREADS = 4
#: Milliseconds a client must leave between two pings. A client that pings every 5 s, with some jitter, is within it.
PING_INTERVAL_MIN_MS = 2_500


@frozen
class ServerLimits:
    """Limits of a server: ``threads`` calls at once, ``queue`` more wait; ``streams`` calls on one connection.

    With fewer streams than threads, a single connection can't block all others. ``streams`` is also the most calls that
    are answered by a stream at once, over all connections.
    """

    threads: int
    queue: int
    streams: int


class Servicer:
    """The common part of both servicers: brings a call to the reactor and turns its result or error into an answer."""

    _log = Logger()

    #: The full name of its service.
    service = ""

    def __init__(self, hop: Hop, deadline: float, admissions: Sequence[Admission] = ()) -> None:
        """``deadline``: seconds, for calls whose client sets none or a longer one.

        ``admissions`` are asked in this order about each call, before anything else.
        """
        self.hop = hop
        self._deadline = deadline
        self._admissions = tuple(admissions)

    def stop(self) -> None:
        """Release the calls that wait, before the server ends."""

    def admit_thd(self, context: grpc.ServicerContext) -> None:
        """Raise the error with which a call is refused. Every method calls this before anything else."""
        for admit_thd in self._admissions:
            admit_thd(context)

    def answer_thd(self, context: grpc.ServicerContext, what: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call ``function`` on the reactor thread and wait for its result, within the client's deadline and ours."""
        seconds = min(context.time_remaining(), self._deadline)
        return self.hop.call_thd(what, seconds, _for_request, request_id(context), function, *args)

    def note(self, context: grpc.ServicerContext, method: str) -> None:
        """Log that the client calls the method, without the content of the call."""
        self._log.debug("{method} from {peer}", method=method, peer=context.peer(), request_id=request_id(context))

    def refused_thd(self, context: grpc.ServicerContext, method: str, error: SchedulerError) -> None:
        """Note that a call of the method, in the form ``SERVICE/METHOD``, is refused; for subclasses."""

    def fail_thd(self, context: grpc.ServicerContext, method: str, error: Exception) -> NoReturn:
        """End the call with an error. An exception that is no ``SchedulerError`` is a bug; its details are not sent."""
        if isinstance(error, Refused | Unauthenticated):
            self.refused_thd(context, method, error)
        if isinstance(error, SchedulerError):
            status.abort(context, error)
        self._log.failure("a gRPC call failed")
        context.abort(grpc.StatusCode.INTERNAL, "internal error")


def answered(
    method: Callable[[S, Request, grpc.ServicerContext], Response],
) -> Callable[[S, Request, grpc.ServicerContext], Response]:
    """Decorate a method of a servicer. An exception becomes the status of the call."""

    @wraps(method)
    def answer_thd(servicer: S, request: Request, context: grpc.ServicerContext) -> Response:
        servicer.note(context, method.__name__)
        try:
            servicer.admit_thd(context)
            return method(servicer, request, context)
        except Exception as error:
            servicer.fail_thd(context, f"{servicer.service}/{method.__name__}", error)

    return answer_thd


def request_id(context: grpc.ServicerContext) -> str:
    """The id of the HTTP request that caused the call, ``""`` if there is none."""
    for key, value in context.invocation_metadata():
        if key == METADATA_KEY and isinstance(value, str):
            return value[:64]
    return ""


def _for_request(request: str, function: Callable[..., Any], *args: Any) -> Any:
    token = REQUEST_ID.set(request)
    try:
        return function(*args)
    finally:
        REQUEST_ID.reset(token)


class Threads(futures.ThreadPoolExecutor):
    """The threads of a server.

    If the machine can't start a further thread, the work is left to the existing threads. Otherwise the error would end
    grpcio's serving thread, and with it the server.
    """

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:
            if not self._threads:
                raise


class IServerReactor(IReactorFromThreads, IReactorTime):
    """The interfaces that a server needs of its reactor."""


@define(eq=False, slots=False)
class GrpcServer(Service):
    """A gRPC server. ``bound`` is its address while it listens."""

    _log = Logger()

    _reactor: IServerReactor
    _address: Address
    _tls: TlsFiles | None
    _limits: ServerLimits
    _servicer: Servicer
    #: Puts the servicer on a server.
    _add: Callable[[Any, grpc.Server], None]
    #: The full names of its services.
    _names: Sequence[str]
    #: They see every call, also of the health checks.
    _interceptors: Sequence[grpc.ServerInterceptor[Any, Any]] = ()

    def __attrs_post_init__(self) -> None:
        self.bound: Address | None = None
        self._server: grpc.Server | None = None
        self._pools: list[futures.ThreadPoolExecutor] = []
        self.waiting = WaitingCalls(self._reactor.seconds)
        self._checks = Periodic(self._reactor, CHECK_INTERVAL_SECONDS, self.waiting.cancel_old)

    def privilegedStartService(self) -> None:
        """Bind the port. Raises ``OSError`` that names the address if it can't be bound."""
        super().privilegedStartService()
        threads = Threads(self._limits.threads, thread_name_prefix="grpc")
        others = Threads(OTHER_STREAM_THREADS, thread_name_prefix="grpc-other")
        self._pools = [threads, others]
        calls = self._limits.threads + self._limits.queue
        message_first = MessageFirst(self._names, self.waiting, threads, others, calls, self._limits.streams)
        server = grpc.server(
            threads,
            interceptors=[*self._interceptors, message_first],
            maximum_concurrent_rpcs=calls,
            options=(
                ("grpc.so_reuseport", 0),  # two servers on one port would share its calls
                ("grpc.max_concurrent_streams", self._limits.streams),
                # of more than 1000 calls to a method that arrive at once, some would be refused at random
                ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
                ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_CALLS),
                ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
                ("grpc.max_send_message_length", MESSAGE_MAX_BYTES),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.http2.ping_timeout_ms", 20_000),
                ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MIN_MS),
                ("grpc.keepalive_permit_without_calls", 1),
                *NO_COMPRESSION,
            ),
        )
        self._add(self._servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(health.Health(self._names, self._servicer), server)
        if self._address.loopback and self._tls is None:
            reflection.enable_server_reflection((*self._names, health.NAME, reflection.SERVICE_NAME), server)
        try:
            if self._tls is None:
                port = server.add_insecure_port(target(str(self._address)))
            else:
                port = server.add_secure_port(target(str(self._address)), credentials.for_server(self._tls))
        except RuntimeError:
            raise OSError(f"can't listen on {self._address}: it is in use, or no address of this machine") from None
        self._server = server
        self.bound = Address(self._address.host, port)

    def startService(self) -> None:
        super().startService()
        if self._server is None:
            self.privilegedStartService()
        assert self._server is not None
        self._pools[0].submit(int)  # makes sure of one thread, even if the machine has no more later
        self._server.start()
        self._checks.startService()
        self._log.info("gRPC on {address}", address=str(self.bound))

    def stopService(self) -> Deferred[None]:
        """Stop the server. Fires when no call is in flight."""
        super().stopService()
        self._servicer.hop.close()
        self._servicer.stop()
        self._checks.stopService()
        self.waiting.cancel_all()
        server, self._server = self._server, None
        pools, self._pools = self._pools, []
        stopped: Deferred[None] = Deferred()

        # Waiting blocks. The pools may be gone by then, so it has a thread of its own.
        def wait_thd() -> None:
            if server is not None:
                try:
                    stopping = server.stop(STOP_GRACE_SECONDS)
                except RuntimeError:  # the machine has no thread for grpc to wait in, so calls in flight are cut
                    stopping = server.stop(None)
                stopping.wait(STOP_GRACE_SECONDS + 5.0)
                for pool in pools:
                    pool.shutdown(wait=False, cancel_futures=True)
            self._reactor.callFromThread(stopped.callback, None)

        threading.Thread(target=wait_thd, name="grpc-stop", daemon=True).start()
        return stopped
