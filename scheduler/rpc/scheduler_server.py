"""The gRPC ``Scheduler`` service, which workers call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import grpc

from scheduler.daemon.servers import TlsFiles
from scheduler.errors import Invalid, SchedulerError
from scheduler.interfaces import IMembership
from scheduler.messages import Peer
from scheduler.net import Address, with_named_zone
from scheduler.pb import scheduler_pb2, scheduler_pb2_grpc
from scheduler.rpc import convert, heartbeats
from scheduler.rpc.callers import ANY_CALLER, CallerRules, Callers
from scheduler.rpc.channel import CALL_DEADLINE_SECONDS
from scheduler.rpc.local_callers import LocalCallers
from scheduler.rpc.server import GrpcServer, IServerReactor, ServerLimits, Servicer, answered, request_id
from scheduler.security.audit import Sender
from scheduler.security.identities import Role
from scheduler.security.trail import result_of
from scheduler.threads import Hop

#: Is told who made a call that is refused, of which method (``SERVICE/METHOD``), and the name of the error.
RefusedCall = Callable[[Sender, str, str], None]

# Calls are short. A connection gets fewer streams than there are threads, so no connection can occupy all threads.
_LIMITS = ServerLimits(threads=32, queue=256, streams=8)


def scheduler_server(
    reactor: IServerReactor,
    address: Address,
    tls: TlsFiles | None,
    membership: IMembership,
    rules: CallerRules = ANY_CALLER,
    local_callers: LocalCallers | None = None,
    refused: RefusedCall = lambda *_: None,
) -> GrpcServer:
    """Make the server that workers call, and nobody else. ``local_callers`` says which users of this machine may.

    ``refused`` is called on the reactor thread for each call that is refused. Raises ``Invalid`` if the certificate
    can't be read.
    """
    callers = Callers(Role.WORKER, tls, rules)
    return GrpcServer(
        reactor,
        address,
        tls,
        _LIMITS,
        _SchedulerServicer(membership, Hop(reactor), callers, local_callers, refused),
        scheduler_pb2_grpc.add_SchedulerServicer_to_server,
        [_SchedulerServicer.service],
    )


def peer_host(peer: str) -> str:
    """The IP address, with its zone, in gRPC's ``ipv4:1.2.3.4:5`` or ``ipv6:[::1]:5``; ``Invalid`` for other texts."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in {"ipv4", "ipv6"}:
        raise Invalid("peer", f"{peer!r} is no IP address")
    return with_named_zone(rest.rpartition(":")[0].strip("[]"))


class _SchedulerServicer(Servicer, scheduler_pb2_grpc.SchedulerServicer):
    service = "jobscheduler.Scheduler"

    def __init__(
        self,
        membership: IMembership,
        hop: Hop,
        callers: Callers,
        local_callers: LocalCallers | None,
        refused: RefusedCall,
    ) -> None:
        local = [] if local_callers is None else [local_callers.check_thd]
        super().__init__(hop, CALL_DEADLINE_SECONDS, [callers.check_thd, *local])
        self._membership = membership
        self._callers = callers
        self._local_callers = local_callers
        self._refused = refused

    def refused_thd(self, context: grpc.ServicerContext, method: str, error: SchedulerError) -> None:
        who, origin = self._callers.principal_thd(context), peer_host(context.peer())
        uid = None if self._local_callers is None else self._local_callers.uid_thd(context)
        sender = Sender(who, origin, uid, request_id(context))
        self.hop.tell_thd(self._refused, sender, method, result_of(error))

    def _peer_thd(self, context: grpc.ServicerContext) -> Peer:
        return Peer(peer_host(context.peer()), self._callers.names_thd(context))

    @answered
    def RegisterWorker(
        self, request: scheduler_pb2.RegisterReq, context: grpc.ServicerContext
    ) -> scheduler_pb2.RegisterRes:
        def register() -> Any:
            return self._membership.register(convert.registration_from_pb(request), peer)

        peer = self._peer_thd(context)
        return convert.registered_to_pb(self.answer_thd(context, "RegisterWorker", register))

    @answered
    def DeregisterWorker(
        self, request: scheduler_pb2.DeregisterReq, context: grpc.ServicerContext
    ) -> scheduler_pb2.DeregisterRes:
        peer, deregister = self._peer_thd(context), self._membership.deregister
        self.answer_thd(context, "DeregisterWorker", deregister, request.workerID, request.nonce, peer)
        return scheduler_pb2.DeregisterRes(success=True)

    @answered
    def Heartbeat(
        self, request: scheduler_pb2.HeartbeatReq, context: grpc.ServicerContext
    ) -> scheduler_pb2.HeartbeatRes:
        heartbeat, peer = heartbeats.heartbeat_from_pb(request), self._peer_thd(context)
        return heartbeats.answer_to_pb(
            self.answer_thd(context, "Heartbeat", self._membership.heartbeat, heartbeat, peer)
        )
