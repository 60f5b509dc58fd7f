"""Real servers and clients in tests, on loopback; each test leaves no thread behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from scheduler.daemon.servers import TlsFiles
from scheduler.interfaces import IMembership
from scheduler.model import Job, JobSpec, JobState, Worker
from scheduler.net import Address
from scheduler.pb import worker_pb2_grpc
from scheduler.rpc.callers import ANY_CALLER, CallerRules
from scheduler.rpc.scheduler_client import SchedulerClient
from scheduler.rpc.scheduler_server import RefusedCall, scheduler_server
from scheduler.rpc.server import Admission, GrpcServer
from scheduler.rpc.worker_client import WorkerClient
from scheduler.rpc.worker_server import worker_server
from scheduler.worker.own_ids import OwnIds
from scheduler.worker_interfaces import IJobRunner, IOwnIds

ANY_PORT = Address("127.0.0.1", 0)


def later(seconds: float) -> Deferred[None]:
    """Wait for something that nothing reports."""
    deferred: Deferred[None] = Deferred()
    reactor.callLater(seconds, deferred.callback, None)
    return deferred


def a_worker(address: object, worker_id: str = "w", boot_id: str = "boot") -> Worker:
    """A worker at that address."""
    return Worker(worker_id, worker_id, str(address), boot_id=boot_id)


def a_job(job_id: str = "j", **spec: object) -> Job:
    """A job that is about to be started."""
    return Job(job_id, JobSpec(**{"command": "true", **spec}), JobState.STARTING, 7.0)


def an_identity(nonce: str = "nonce", worker_id: str = "") -> OwnIds:
    """The identity of a process with that nonce, which may know its id already."""
    identity = OwnIds(reactor.callFromThread, "folder", nonce)
    identity.worker_id = worker_id
    return identity


@implementer(IOwnIds)
class Heedless:
    """The identity of a program that ignores the metadata of calls, and does not name its process."""

    folder_id = nonce = worker_id = ""

    def check_thd(self, worker_id: str, nonce: str, scheduler: str) -> None:
        pass

    def on_new_scheduler(self, notify: Callable[[], None]) -> None:
        pass


Method = Callable[[Any, grpc.ServicerContext], Any]


class StandIn(worker_pb2_grpc.WorkerServicer, health_pb2_grpc.HealthServicer):
    """A worker with only these methods."""

    def __init__(self, methods: dict[str, Method]) -> None:
        for name, method in methods.items():
            setattr(self, name, method)


class RpcCase(TestCase):
    """Makes servers, clients and processes that are stopped at the end."""

    timeout = 60

    def setUp(self) -> None:
        reactor.suggestThreadPoolSize(20)  # for a test's own calls
        self.addCleanup(self.threads_end, frozenset(threading.enumerate()))

    async def threads_end(self, before: frozenset[threading.Thread]) -> None:
        """Wait until only the threads of ``before`` and the reactor's own are left."""
        before |= set(reactor.getThreadPool().threads)
        while not before.issuperset(threading.enumerate()):
            await later(0.01)

    def run_until_end(self, service: GrpcServer | WorkerClient | SchedulerClient) -> None:
        service.startService()
        self.addCleanup(lambda: service.running and service.stopService())

    def worker_server(
        self,
        runner: IJobRunner,
        tls: TlsFiles | None = None,
        address: Address = ANY_PORT,
        identity: IOwnIds | None = None,
        rules: CallerRules = ANY_CALLER,
        admissions: Sequence[Admission] = (),
    ) -> GrpcServer:
        server = worker_server(reactor, address, tls, runner, identity or an_identity(), rules, admissions)
        self.run_until_end(server)
        return server

    def worker_client(self, tls: TlsFiles | None = None, deadline: float = 10.0) -> WorkerClient:
        client = WorkerClient(reactor, tls, "scheduler", deadline)
        self.run_until_end(client)
        return client

    def scheduler_server(
        self,
        membership: IMembership,
        tls: TlsFiles | None = None,
        address: Address = ANY_PORT,
        rules: CallerRules = ANY_CALLER,
        refused: RefusedCall = lambda *_: None,
    ) -> GrpcServer:
        server = scheduler_server(reactor, address, tls, membership, rules, refused=refused)
        self.run_until_end(server)
        return server

    def scheduler_client(
        self, address: Address, tls: TlsFiles | None = None, deadline: float = 10.0
    ) -> SchedulerClient:
        client = SchedulerClient(reactor, address, tls, deadline)
        self.run_until_end(client)
        return client

    def stand_in(self, **methods: Method) -> Worker:
        """A worker whose methods are the test's, in threads of its own; it lacks all others."""
        server = grpc.server(threads := futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        stand_in = StandIn(methods)
        worker_pb2_grpc.add_WorkerServicer_to_server(stand_in, server)
        health_pb2_grpc.add_HealthServicer_to_server(stand_in, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.addCleanup(threads.shutdown, wait=False)
        self.addCleanup(lambda: server.stop(0).wait(5))
        return a_worker(f"127.0.0.1:{port}", "stand-in")

    def channel(self, address: object) -> grpc.Channel:
        """A channel of gRPC itself, for calls that our clients would never make."""
        channel = grpc.insecure_channel(str(address), options=[("grpc.use_local_subchannel_pool", 1)])
        self.addCleanup(channel.close)
        return channel

    def process(self, module: str, *arguments: str) -> tuple[subprocess.Popen, str]:
        """Run the module in a process; the process, and the first line it prints."""
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process, process.stdout.readline().strip()

    def dead_address(self) -> Address:
        """An address without a server: the port is bound, but nothing listens."""
        taken = socket.socket()
        self.addCleanup(taken.close)
        taken.bind(("127.0.0.1", 0))
        return Address(*taken.getsockname())

    def silent_address(self) -> Address:
        """An address where connections are accepted, and nothing is ever sent."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        return Address(*listening.getsockname())


class ServerCase(RpcCase):
    """Calls servers with stubs of gRPC itself."""

    details: str | None

    async def called(self, method, request: object, timeout: float = 10.0) -> object:
        """The answer of a stub of gRPC's own, called in a thread."""
        return await deferToThread(method, request, timeout=timeout)

    async def code(self, method, request: object, timeout: float = 10.0) -> grpc.StatusCode:
        """The status of the refusal."""
        error = await self.assertFailure(deferToThread(method, request, timeout=timeout), grpc.RpcError)
        self.details = error.details()
        return error.code()
