"""A worker's calls to its scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from zope.interface import implementer

from scheduler.config import TlsFiles
from scheduler.configfile import Address
from scheduler.errors import (
    DeadlineExceeded,
    SchedulerError,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
)
from scheduler.interfaces import ISchedulerClient
from scheduler.model import Heartbeat, HeartbeatAnswer, Registered, Registration
from scheduler.pb import scheduler_pb2, scheduler_pb2_grpc
from scheduler.rpc import convert, status
from scheduler.rpc.channel import DEADLINE, dial
from scheduler.threads import Pool

T = TypeVar("T")

#: Seconds between signs of life where the scheduler tells no lease.
DEFAULT_LEASE = 30.0


@implementer(ISchedulerClient)
class SchedulerClient(MultiService):
    """Usable while it runs as a service."""

    def __init__(self, reactor: IReactorFromThreads, address: Address, tls: TlsFiles | None) -> None:
        super().__init__()
        self._address = str(address)
        self._tls = tls
        self._pool = Pool(reactor, "scheduler-calls", 2)
        self._pool.setServiceParent(self)
        self._channel: grpc.Channel | None = None

    def stopService(self) -> Deferred[Any]:
        """Cuts what is under way; fires when no thread is left."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        stopped: Deferred[Any] = super().stopService()
        return stopped

    def register(self, registration: Registration) -> Deferred[Registered]:
        request = convert.registration_to_pb(registration)
        return self._call("RegisterWorker", request, lambda answer: convert.registered_from_pb(answer, DEFAULT_LEASE))

    def deregister(self, worker_id: str) -> Deferred[None]:
        return self._call("DeregisterWorker", scheduler_pb2.DeregisterReq(workerID=worker_id), lambda _: None)

    def heartbeat(self, heartbeat: Heartbeat) -> Deferred[HeartbeatAnswer]:
        return self._call("Heartbeat", convert.heartbeat_to_pb(heartbeat), convert.answer_from_pb)

    def _call(self, method: str, request: Any, read: Callable[[Any], T]) -> Deferred[T]:
        if self._channel is None:
            self._channel = dial(self._address, self._tls)
        answer: Deferred[T] = self._pool.run(_call_thd, self._channel, self._address, method, request, read)
        return answer


def _call_thd(channel: grpc.Channel, address: str, method: str, request: Any, read: Callable[[Any], T]) -> T:
    try:
        return read(getattr(scheduler_pb2_grpc.SchedulerStub(channel), method)(request, timeout=DEADLINE))
    except grpc.RpcError as failure:
        raise _understood(failure, address, method) from None
    except ValueError:  # the channel was closed
        raise Unreachable(address, kind="scheduler") from None


def _understood(failure: grpc.RpcError, address: str, method: str) -> SchedulerError:
    told = status.told(failure)
    if told is not None:
        return told
    match failure.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return Unreachable(address, sent=True, kind="scheduler")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"{method} at the scheduler", DEADLINE)
        case grpc.StatusCode.UNIMPLEMENTED:
            return Unsupported("scheduler", method)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Unavailable(f"the scheduler has no room for the call: {failure.details()}")
        case _:
            return WorkerFault("scheduler", failure.details() or failure.code().name)
