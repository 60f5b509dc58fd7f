"""Many idle workers in one process, which speak our protocol: ``fleet.py SCHEDULER COUNT SECONDS [MUTE]``.

Each has a gRPC server of its own and registers. It sends a heartbeat each third of the lease, and at once when another
scheduler calls it. A job that is started there runs for ever. ``SECONDS``: the time until each answers a check.
``MUTE`` others send heartbeats all the time, while calls to them are neither refused nor answered, as behind a
firewall. Prints the name of each worker when it has registered.
"""

# ruff: noqa: T201 - errors are for people to read
from __future__ import annotations

import socket
import sys
import time
import uuid
from concurrent import futures
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from scheduler.pb import scheduler_pb2, scheduler_pb2_grpc, worker_pb2, worker_pb2_grpc

SCHEDULER, COUNT, CHECK_SECONDS = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
MUTE = int(sys.argv[4]) if len(sys.argv) > 4 else 0
RETRY_SECONDS = 1.0
DEADLINE_SECONDS = 10.0

#: Options of our workers: a connection of its own, and a quick retry after a failure.
OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)

serving = futures.ThreadPoolExecutor(16 + COUNT // 10)
calling = futures.ThreadPoolExecutor(8 + COUNT + MUTE)


class Worker(worker_pb2_grpc.WorkerServicer, health_pb2_grpc.HealthServicer, grpc.ServerInterceptor):
    """A worker; every answer names its process."""

    kind = "idle"

    def __init__(self, number: int) -> None:
        self.name = f"{self.kind}-{number:03}"
        self.nonce, self.folder_id = uuid.uuid4().hex, uuid.uuid4().hex
        self.worker_id, self.lease = "", 0.0
        self.jobs: list[str] = []
        self._called_by = ""
        self.scheduler = scheduler_pb2_grpc.SchedulerStub(grpc.insecure_channel(SCHEDULER, options=OPTIONS))
        self.address = self.listen()

    def listen(self) -> str:
        server = grpc.server(serving, interceptors=[self])
        worker_pb2_grpc.add_WorkerServicer_to_server(self, server)
        health_pb2_grpc.add_HealthServicer_to_server(self, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.server = server
        return f"127.0.0.1:{port}"

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        nonce = dict(details.invocation_metadata).get("scheduler-nonce", "")
        if nonce and nonce != self._called_by:
            self._called_by = nonce
            calling.submit(self.beat)
        handler = continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            context.set_trailing_metadata((("scheduler-worker-nonce", self.nonce),))
            return handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(answer, handler.request_deserializer, handler.response_serializer)

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        time.sleep(CHECK_SECONDS)
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    def StartJob(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.jobs.append(request.jobID)
        return worker_pb2.StartJobRes(jobID=request.jobID)

    def register(self) -> None:
        registration = scheduler_pb2.RegisterReq(
            address=self.address,
            name=self.name,
            slots=50,
            bootID="boot",
            version="1",
            features=["linger"],
            folderID=self.folder_id,
            nonce=self.nonce,
        )
        while not self.worker_id:
            try:
                answer = self.scheduler.RegisterWorker(registration, timeout=DEADLINE_SECONDS, wait_for_ready=True)
                self.worker_id, self.lease = answer.workerID, answer.lease
            except grpc.RpcError as error:
                print(f"{self.name}: {error.details()}", file=sys.stderr)
                time.sleep(RETRY_SECONDS)
        sys.stdout.write(f"{self.name}\n")  # in one write, whatever other threads write
        sys.stdout.flush()

    def beat(self) -> None:
        """Send a heartbeat. A scheduler that is away gets the next one."""
        beat = scheduler_pb2.HeartbeatReq(
            workerID=self.worker_id, bootID="boot", running=list(self.jobs), nonce=self.nonce
        )
        if self.worker_id:
            try:
                self.scheduler.Heartbeat(beat, timeout=DEADLINE_SECONDS, wait_for_ready=True)
            except grpc.RpcError as error:
                print(f"{self.name}: {error.code()}", file=sys.stderr)


class Mute(Worker):
    """Every other one gets data that it does not read; connections to the rest do not come up."""

    kind = "mute"

    def listen(self) -> str:
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=0)
        address = self.listening.getsockname()
        self.waiting = []
        for _ in range(3 * (int(self.name[-1]) % 2)):  # for those with room for connections
            self.waiting.append(socket.socket())
            self.waiting[-1].setblocking(False)
            self.waiting[-1].connect_ex(address)
        return f"127.0.0.1:{address[1]}"

    def beat_all_the_time(self) -> None:
        while True:
            time.sleep(RETRY_SECONDS)
            self.beat()


workers = [Worker(number) for number in range(COUNT)]
mute = [Mute(number) for number in range(MUTE)]
for registered in [calling.submit(worker.register) for worker in [*workers, *mute]]:
    registered.result()
for worker in mute:
    calling.submit(worker.beat_all_the_time)
while True:
    time.sleep(workers[0].lease / 3)
    for beat in [calling.submit(worker.beat) for worker in workers]:
        beat.result()
