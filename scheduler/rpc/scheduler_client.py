"""A worker's calls to its scheduler.

Every call is idempotent, so it may be repeated even if it may have arrived. A status that carries an error of this
project in its metadata means that error. Any other is read by its code, and by the program or library that may have
made it (``scheduler.rpc.status``):

- UNAVAILABLE and CANCELLED: the scheduler can't be reached; DEADLINE_EXCEEDED: no answer in time;
- an answer that can't be read, or has no message: a fault, also with UNIMPLEMENTED, as from a proxy that does not know
  the scheduler;
- UNIMPLEMENTED: the scheduler lacks the method; a scheduler of the core protocol lacks ``Heartbeat``;
- NOT_FOUND to ``Heartbeat``: the scheduler does not know this worker, which must register again;
- RESOURCE_EXHAUSTED with "Concurrent RPC limit exceeded": the scheduler has no room for the call;
- any other: a fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.daemon.servers import TlsFiles
from scheduler.errors import (
    AnswerUnreadable,
    DeadlineExceeded,
    Invalid,
    NotFound,
    SchedulerError,
    ShuttingDown,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
)
from scheduler.messages import Heartbeat, HeartbeatAnswer, Registered, Registration
from scheduler.net import Address
from scheduler.pb import scheduler_pb2, scheduler_pb2_grpc
from scheduler.rpc import convert, heartbeats, status
from scheduler.rpc.channel import CALL_DEADLINE_SECONDS, Channel, Connection, Dialler
from scheduler.threads import Pool
from scheduler.worker_interfaces import ISchedulerClient

T = TypeVar("T")

#: The lease if the scheduler sends none.
DEFAULT_LEASE_SECONDS = 30.0


@implementer(ISchedulerClient)
class SchedulerClient(MultiService):
    """Calls the scheduler, while it runs as a service. Logs each new reason why the scheduler can't be reached."""

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorFromThreads,
        address: Address,
        tls: TlsFiles | None,
        deadline: float = CALL_DEADLINE_SECONDS,
    ) -> None:
        """``deadline``: seconds that a call may take."""
        super().__init__()
        self._address = str(address)
        self._tls = tls
        self._deadline = deadline
        self._reactor = reactor
        self._pool = Pool(reactor, "scheduler-calls", 3, least=1)
        self._pool.setServiceParent(self)
        self._dialler: Dialler | None = None
        self._channel: Channel | None = None
        #: Calls in flight.
        self._calls = 0
        self.connection = Connection(self._cut_thd, time.monotonic)
        self._notify: Callable[[], None] = lambda: None
        #: The last logged reason why the scheduler could not be reached.
        self._trouble = ""

    def startService(self) -> None:
        """Raises ``OSError`` if the certificates can't be read."""
        self._dialler = Dialler(self._tls)
        super().startService()

    def stopService(self) -> Deferred[Any]:
        """End the calls in flight. Fires when no thread is left."""
        self.hang_up()
        stopped: Deferred[Any] = super().stopService()
        return stopped

    def on_cut(self, notify: Callable[[], None]) -> None:
        self._notify = notify

    def _cut_thd(self) -> None:
        self._reactor.callFromThread(self._cut)

    def _cut(self) -> None:
        if self.running:
            self._notify()

    def _dial(self, dialler: Dialler) -> Channel:
        channel = dialler.dial_scheduler(self._address)
        self.connection = Connection(self._cut_thd, time.monotonic)
        channel.grpc_channel.subscribe(self.connection.changed_thd)
        return channel

    def hang_up(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            closed = self._pool.run(self.connection.close_thd, channel.grpc_channel)
            closed.addErrback(lambda reason: self._log.failure("a channel could not be closed", reason))

    def register(self, registration: Registration) -> Deferred[Registered]:
        request = convert.registration_to_pb(registration)
        return self._call(
            "RegisterWorker", request, lambda answer: convert.registered_from_pb(answer, DEFAULT_LEASE_SECONDS)
        )

    def deregister(self, worker_id: str, nonce: str) -> Deferred[None]:
        request = scheduler_pb2.DeregisterReq(workerID=worker_id, nonce=nonce)
        return self._call("DeregisterWorker", request, lambda _: None)

    def heartbeat(self, heartbeat: Heartbeat) -> Deferred[HeartbeatAnswer]:
        return self._call("Heartbeat", heartbeats.heartbeat_to_pb(heartbeat), heartbeats.answer_from_pb)

    def _call(self, method: str, request: Any, read: Callable[[Any], T]) -> Deferred[T]:
        if self._dialler is None or not self.running:
            return fail(ShuttingDown())
        if self._channel is not None and not self._calls and self._channel.is_outdated:
            self.hang_up()
        if self._channel is None:
            self._channel = self._dial(self._dialler)
        channel = self._channel
        self._calls += 1
        self.connection.used()
        stub = scheduler_pb2_grpc.SchedulerStub(channel.grpc_channel)
        answer: Deferred[T] = self._pool.run(self._call_thd, getattr(stub, method), channel, method, request, read)
        return answer.addBoth(self._over).addCallbacks(self._answered, self._failed, errbackArgs=(channel,))

    def _over(self, result: Any) -> Any:
        self._calls -= 1
        return result

    def _answered(self, result: T) -> T:
        self._trouble = ""
        return result

    def _failed(self, reason: Failure, channel: Channel) -> Failure:
        """Pass the failure on. The next call uses a new channel: after a failed connection, gRPC waits for seconds."""
        error = reason.value
        if isinstance(error, Unreachable) and error.reason and error.reason != self._trouble:
            self._trouble = error.reason
            self._log.warn("calls to the scheduler at {address} fail: {why}", address=self._address, why=error.reason)
        if reason.check(Unreachable) and self._channel is channel:
            self.hang_up()
        return reason

    def _call_thd(
        self, call: Callable[..., Any], channel: Channel, method: str, request: Any, read: Callable[[Any], T]
    ) -> T:
        try:
            answer = call(request, timeout=self._deadline)
            if answer is None:  # gRPC also reports a call as successful that ended well without a message
                raise AnswerUnreadable("scheduler", "its answer has no message")
            return read(answer)
        except grpc.RpcError as failure:
            raise self._understood(failure, channel, method, request) from failure
        except Invalid as error:
            raise WorkerFault("scheduler", str(error)) from None
        except ValueError:  # the channel was closed
            raise Unreachable(self._address, kind="scheduler") from None

    def _understood(self, failure: grpc.RpcError, channel: Channel, method: str, request: Any) -> SchedulerError:
        if (told := status.error_from_status(failure)) is not None:
            return told
        code, words = failure.code(), status.words(failure)
        match code:
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
                return Unreachable(self._address, sent=True, kind="scheduler", reason=channel.why(failure))
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return DeadlineExceeded(f"{method} at the scheduler", self._deadline)
        if status.is_unreadable(failure):
            return AnswerUnreadable("scheduler", words)
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return Unsupported("scheduler", method)
        if code is grpc.StatusCode.NOT_FOUND and method == "Heartbeat":
            return NotFound("worker", request.workerID)
        if status.is_without_a_place(failure):
            return Unavailable(f"the scheduler has no room for the call: {words}")
        return WorkerFault("scheduler", words)
