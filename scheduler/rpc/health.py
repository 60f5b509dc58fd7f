"""The health service of both gRPC servers: each service that is served is healthy.

The servicer of ``grpc_health`` is not used. It holds a lock while it sends the first answer of a watch, so a client
that does not read this answer would block all other checks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

NAME = "grpc.health.v1.Health"

_Answer = health_pb2.HealthCheckResponse


class Admitting(Protocol):
    """The servicer beside which the health service runs."""

    def admit_thd(self, context: grpc.ServicerContext) -> None:
        """Raise the error with which a call is refused."""

    def fail_thd(self, context: grpc.ServicerContext, method: str, error: Exception) -> NoReturn:
        """End the call of a method, in the form ``SERVICE/METHOD``, with an error."""


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # grpc_health has no types
    """The health of the server (under the name ``""``) and of each of its services."""

    def __init__(self, services: Sequence[str], servicer: Admitting) -> None:
        """Calls are admitted as to ``servicer``: a check that succeeds means that calls are not refused."""
        self._services = frozenset(("", *services))
        self._servicer = servicer

    def _admit_thd(self, context: grpc.ServicerContext, method: str) -> None:
        try:
            self._servicer.admit_thd(context)
        except Exception as error:
            self._servicer.fail_thd(context, f"{NAME}/{method}", error)

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        self._admit_thd(context, "Check")
        if request.service not in self._services:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            return _Answer()
        return _Answer(status=_Answer.SERVING)

    def Watch(
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send_thd: Callable[[health_pb2.HealthCheckResponse], None],
    ) -> None:
        """Send one answer, since the health never changes. The stream stays open, without a thread."""
        self._admit_thd(context, "Watch")
        is_served = request.service in self._services
        send_thd(_Answer(status=_Answer.SERVING if is_served else _Answer.SERVICE_UNKNOWN))

    Watch.experimental_non_blocking = True  # type: ignore[attr-defined]  # how grpcio is told
