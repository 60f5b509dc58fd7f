"""Real servers and clients in tests, on loopback; each test leaves no thread behind."""

from __future__ import annotations

import socket
import threading

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from scheduler.config import TlsFiles
from scheduler.configfile import Address
from scheduler.interfaces import IJobRunner, IMembership
from scheduler.model import Job, JobSpec, JobState, Worker
from scheduler.rpc.scheduler_client import SchedulerClient
from scheduler.rpc.scheduler_server import scheduler_server
from scheduler.rpc.server import GrpcServer
from scheduler.rpc.worker_client import WorkerClient
from scheduler.rpc.worker_server import worker_server

ANY_PORT = Address("127.0.0.1", 0)


def later(seconds: float) -> Deferred[None]:
    """For what nothing tells of."""
    deferred: Deferred[None] = Deferred()
    reactor.callLater(seconds, deferred.callback, None)
    return deferred


def a_worker(address: object, worker_id: str = "w", boot_id: str = "boot") -> Worker:
    """Listening there."""
    return Worker(worker_id, worker_id, str(address), boot_id=boot_id)


def a_job(job_id: str = "j", **spec: object) -> Job:
    """About to be started."""
    return Job(job_id, JobSpec(**{"command": "true", **spec}), JobState.STARTING, 7.0)


class RpcCase(TestCase):
    """Makes servers and clients that are stopped at the end."""

    timeout = 60

    def setUp(self) -> None:
        self.addCleanup(self.threads_end, frozenset(threading.enumerate()))

    async def threads_end(self, before: frozenset[threading.Thread]) -> None:
        """Once there are no others than before."""
        while not before.issuperset(threading.enumerate()):
            await later(0.01)

    def run_until_end(self, service: GrpcServer | WorkerClient | SchedulerClient) -> None:
        service.startService()
        self.addCleanup(lambda: service.running and service.stopService())

    def worker_server(self, runner: IJobRunner, tls: TlsFiles | None = None, address: Address = ANY_PORT) -> GrpcServer:
        server = worker_server(reactor, address, tls, runner)
        self.run_until_end(server)
        return server

    def worker_client(self, tls: TlsFiles | None = None, deadline: float = 10.0) -> WorkerClient:
        client = WorkerClient(reactor, tls, deadline)
        self.run_until_end(client)
        return client

    def scheduler_server(self, membership: IMembership, tls: TlsFiles | None = None) -> GrpcServer:
        server = scheduler_server(reactor, ANY_PORT, tls, membership)
        self.run_until_end(server)
        return server

    def scheduler_client(
        self, address: Address, tls: TlsFiles | None = None, deadline: float = 10.0
    ) -> SchedulerClient:
        client = SchedulerClient(reactor, address, tls, deadline)
        self.run_until_end(client)
        return client

    def dead_address(self) -> Address:
        """Where nobody listens: the port is taken, and not listened on."""
        taken = socket.socket()
        self.addCleanup(taken.close)
        taken.bind(("127.0.0.1", 0))
        return Address(*taken.getsockname())

    def silent_address(self) -> Address:
        """Where connections are taken and never spoken on."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        return Address(*listening.getsockname())
