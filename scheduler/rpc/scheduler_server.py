"""The gRPC ``Scheduler`` service, which workers call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import grpc

from scheduler.daemon.servers import TlsFiles
from scheduler.errors import Invalid
from scheduler.interfaces import IMembership
from scheduler.messages import Peer
from scheduler.net import Address, with_named_zone
from scheduler.pb import scheduler_pb2, scheduler_pb2_grpc
from scheduler.rpc import convert, heartbeats
from scheduler.rpc.callers import ANY_CALLER, CallerRules, Callers
from scheduler.rpc.channel import CALL_DEADLINE_SECONDS
from scheduler.rpc.server import Admission, GrpcServer, IServerReactor, ServerLimits, Servicer, answered
from scheduler.security.identities import Role
from scheduler.threads import Hop

# Calls are short. A connection gets fewer streams than there are threads, so no connection can occupy all threads.
_LIMITS = ServerLimits(threads=32, queue=256, streams=8)


def scheduler_server(
    reactor: IServerReactor,
    address: Address,
    tls: TlsFiles | None,
    membership: IMembership,
    rules: CallerRules = ANY_CALLER,
    admissions: Sequence[Admission] = (),
) -> GrpcServer:
    """Make the server that workers call, and nobody else. ``admissions``: further rules, asked about each call.

    Raises ``Invalid`` if the certificate can't be read.
    """
    callers = Callers(Role.WORKER, tls, rules)
    return GrpcServer(
        reactor,
        address,
        tls,
        _LIMITS,
        _SchedulerServicer(membership, Hop(reactor), callers, [callers.check_thd, *admissions]),
        scheduler_pb2_grpc.add_SchedulerServicer_to_server,
        ["jobscheduler.Scheduler"],
    )


def peer_host(peer: str) -> str:
    """The IP address, with its zone, in gRPC's ``ipv4:1.2.3.4:5`` or ``ipv6:[::1]:5``; ``Invalid`` for other texts."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in {"ipv4", "ipv6"}:
        raise Invalid("peer", f"{peer!r} is no IP address")
    return with_named_zone(rest.rpartition(":")[0].strip("[]"))


class _SchedulerServicer(Servicer, scheduler_pb2_grpc.SchedulerServicer):
    def __init__(self, membership: IMembership, hop: Hop, callers: Callers, admissions: Sequence[Admission]) -> None:
        super().__init__(hop, CALL_DEADLINE_SECONDS, admissions)
        self._membership = membership
        self._callers = callers

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
