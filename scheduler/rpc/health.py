"""The health service of both gRPC servers: each service that is served is healthy.

A check is refused to those who may not call the services, so the scheduler's probes find out what its calls would meet.
A watch is open to everybody.

The servicer of ``grpc_health`` is not used. It holds a lock while it sends the first answer of a watch, so a client
that does not read this answer would block all other checks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from scheduler.errors import SchedulerError
from scheduler.rpc import status

NAME = "grpc.health.v1.Health"

_Answer = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # grpc_health has no types
    """The health of the server (under the name ``""``) and of each of its services."""

    def __init__(self, services: Sequence[str], admit_thd: Callable[[grpc.ServicerContext], None]) -> None:
        """``admit_thd`` raises a ``SchedulerError`` for a caller who may not call."""
        self._services = frozenset(("", *services))
        self._admit_thd = admit_thd

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        try:
            self._admit_thd(context)
        except SchedulerError as error:
            status.abort(context, error)
        if request.service not in self._services:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            return _Answer()
        return _Answer(status=_Answer.SERVING)

    def Watch(
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,  # noqa: ARG002 - grpc gives it
        send_thd: Callable[[health_pb2.HealthCheckResponse], None],
    ) -> None:
        """Send one answer, since the health never changes. The stream stays open, without a thread."""
        is_served = request.service in self._services
        send_thd(_Answer(status=_Answer.SERVING if is_served else _Answer.SERVICE_UNKNOWN))

    Watch.experimental_non_blocking = True  # type: ignore[attr-defined]  # how grpcio is told
