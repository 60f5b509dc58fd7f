"""A gRPC server that is no worker, but is registered as one: ``stranger.py SCHEDULER``.

Its health service answers. It prints the id that it was given, and then each called method that it lacks.
"""

# ruff: noqa: T201 - what it prints is what the test reads
from __future__ import annotations

import sys
from concurrent import futures
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from scheduler.pb import scheduler_pb2, scheduler_pb2_grpc


class Lacking(grpc.ServerInterceptor):
    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)
        if handler is None:
            print(details.method.rpartition("/")[2], flush=True)
        return handler


server = grpc.server(futures.ThreadPoolExecutor(4), interceptors=[Lacking()])
health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
server.start()
with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = scheduler_pb2_grpc.SchedulerStub(channel)
    print(stub.RegisterWorker(scheduler_pb2.RegisterReq(address=address), timeout=20).workerID, flush=True)
server.wait_for_termination()
