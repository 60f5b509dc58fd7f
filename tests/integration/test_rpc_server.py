"""Both gRPC servers: their start, their further services, and the answers of the scheduler's."""

import os
import socket
import subprocess
import sys
import threading

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from scheduler.messages import Peer
from scheduler.net import Address
from scheduler.pb import scheduler_pb2, scheduler_pb2_grpc
from scheduler.rpc import worker_server
from scheduler.rpc.scheduler_server import scheduler_server
from scheduler.rpc.server import GrpcServer, Threads
from tests.contract.test_scheduler_client import AsMembership
from tests.doubles.runner import FakeJobRunner
from tests.doubles.scheduler_client import FakeSchedulerClient
from tests.integration.rpc import ANY_PORT, ServerCase, a_worker, an_identity, later

NOTHING_YET = """
import os
from twisted.internet import reactor
from scheduler.daemon.tomlfile import Address
from scheduler.rpc.scheduler_client import SchedulerClient
from scheduler.rpc.scheduler_server import scheduler_server
from scheduler.rpc.worker_client import WorkerClient
from scheduler.rpc.worker_server import worker_server
from tests.integration.rpc import an_identity
address = Address("127.0.0.1", 0)
kept = (
    scheduler_server(reactor, address, None, None),
    worker_server(reactor, address, None, None, an_identity()),
    WorkerClient(reactor, None, "scheduler"),
    SchedulerClient(reactor, address, None),
)
os.write(1, b"%d" % len(os.listdir("/proc/self/task")))
"""


class StartTests(ServerCase):
    def test_nothing_before_the_start(self) -> None:
        """A server that was not started has no thread, so the process may fork to become a daemon."""
        done = subprocess.run(
            [sys.executable, "-c", NOTHING_YET],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        )
        self.assertEqual(done.stdout, b"1")

    def refused(self, address: Address) -> str:
        server = worker_server.worker_server(reactor, address, None, FakeJobRunner(), an_identity())
        self.addCleanup(server.stopService)
        return str(self.assertRaises(OSError, server.startService))

    def test_port_taken(self) -> None:
        """A port in use is reported at once, with the address, by whichever program it is used."""
        stranger = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(stranger.close)
        for taken in (self.worker_server(FakeJobRunner()).bound, Address(*stranger.getsockname())):
            self.assertIn(f"can't listen on {taken}", self.refused(taken))

    def test_no_address_of_ours(self) -> None:
        """An address of another machine is reported, too."""
        self.assertIn("can't listen on 192.0.2.1:0", self.refused(Address("192.0.2.1", 0)))

    async def test_before_privileges_go(self) -> None:
        """The port is bound while the process is still privileged, and served once it starts."""
        server = worker_server.worker_server(reactor, ANY_PORT, None, FakeJobRunner(), an_identity())
        server.privilegedStartService()
        self.addCleanup(server.stopService)
        bound = server.bound
        self.assertIn(str(bound), self.refused(bound))
        server.startService()
        self.assertEqual(server.bound, bound)
        await self.worker_client().probe(a_worker(bound))

    async def test_stop_without_threads(self) -> None:
        """A stop is immediate if the machine has no thread that could wait for the calls in flight."""
        server = worker_server.worker_server(reactor, ANY_PORT, None, FakeJobRunner(), an_identity())
        server.startService()
        await self.worker_client().probe(a_worker(server.bound))
        begun = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            if thread.name.startswith("Thread-"):  # grpc's threads
                raise RuntimeError("can't start new thread")
            begun(thread)

        self.patch(threading.Thread, "start", start)
        await server.stopService()

    async def test_again(self) -> None:
        """A port is free again once its server has stopped."""
        first = self.worker_server(FakeJobRunner())
        await first.stopService()
        self.worker_server(FakeJobRunner(), address=first.bound)


class BesideTests(ServerCase):
    """Services of every gRPC server."""

    def servers(self) -> list[tuple[GrpcServer, str]]:
        return [
            (self.worker_server(FakeJobRunner()), "jobscheduler.Worker"),
            (self.scheduler_server(AsMembership(FakeSchedulerClient())), "jobscheduler.Scheduler"),
        ]

    async def test_health(self) -> None:
        """Health is answered, for the whole server and for the service."""
        for server, service in self.servers():
            check = health_pb2_grpc.HealthStub(self.channel(server.bound)).Check
            for name in ("", service):
                answer = await self.called(check, health_pb2.HealthCheckRequest(service=name))
                self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)

    async def services(self, address: object) -> set[str]:
        ask = reflection_pb2_grpc.ServerReflectionStub(self.channel(address)).ServerReflectionInfo
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = await deferToThread(lambda: list(ask(iter([question]), timeout=10)))
        return {each.name for each in answer.list_services_response.service}

    async def test_reflection(self) -> None:
        """On loopback a server lists its services."""
        for server, service in self.servers():
            self.assertIn(service, await self.services(server.bound))

    async def test_no_reflection(self) -> None:
        """On other addresses it does not."""
        server = self.worker_server(FakeJobRunner(), address=Address("0.0.0.0", 0))
        error = await self.assertFailure(
            Deferred.fromCoroutine(self.services(f"127.0.0.1:{server.bound.port}")), grpc.RpcError
        )
        self.assertIs(error.code(), grpc.StatusCode.UNIMPLEMENTED)


class Slow(AsMembership):
    """Answers when the test says so."""

    def __init__(self) -> None:
        super().__init__(FakeSchedulerClient())
        self.asked: Deferred[None] = Deferred()

    def deregister(self, worker_id: str, nonce: str, peer: Peer) -> Deferred[None]:
        self.asked.callback(None)
        return Deferred()


class SchedulerTests(ServerCase):
    async def test_core_protocol(self) -> None:
        """A worker that knows only its address registers, and leaves."""
        scheduler = FakeSchedulerClient()
        server = self.scheduler_server(AsMembership(scheduler))
        stub = scheduler_pb2_grpc.SchedulerStub(self.channel(server.bound))
        answer = await self.called(stub.RegisterWorker, scheduler_pb2.RegisterReq(address="127.0.0.1:30000"))
        self.assertEqual((answer.success, answer.workerID), (True, "w1"))
        answer = await self.called(stub.DeregisterWorker, scheduler_pb2.DeregisterReq(workerID="w1"))
        self.assertTrue(answer.success)
        request = scheduler_pb2.DeregisterReq(workerID="w1")
        self.assertIs(await self.code(stub.DeregisterWorker, request), grpc.StatusCode.NOT_FOUND)

    async def test_bound_is_not_serving(self) -> None:
        """A worker that calls while the process is still starting is answered once it has started."""
        scheduler = FakeSchedulerClient()
        server = scheduler_server(reactor, ANY_PORT, None, AsMembership(scheduler))
        server.privilegedStartService()
        self.addCleanup(server.stopService)
        stub = scheduler_pb2_grpc.SchedulerStub(self.channel(server.bound))
        request = scheduler_pb2.RegisterReq(address="127.0.0.1:30000")
        calling = deferToThread(stub.RegisterWorker, request, timeout=10.0)
        await later(0.2)
        self.assertEqual((scheduler.calls, calling.called), ([], False))
        server.startService()
        self.assertTrue((await calling).success)

    async def test_bad_heartbeat(self) -> None:
        """An impossible heartbeat is refused, and one with an id of another scheduler is of no known worker."""
        server = self.scheduler_server(AsMembership(FakeSchedulerClient()))
        stub = scheduler_pb2_grpc.SchedulerStub(self.channel(server.bound))
        for request, code in (
            (scheduler_pb2.HeartbeatReq(workerID="../w", bootID="b"), grpc.StatusCode.NOT_FOUND),
            (scheduler_pb2.HeartbeatReq(workerID="w"), grpc.StatusCode.INVALID_ARGUMENT),
        ):
            self.assertIs(await self.code(stub.Heartbeat, request), code)

    async def test_stop_of_server(self) -> None:
        """A server stops though a call waits for the reactor."""
        membership = Slow()
        server = self.scheduler_server(membership)
        stub = scheduler_pb2_grpc.SchedulerStub(self.channel(server.bound))
        code = Deferred.fromCoroutine(self.code(stub.DeregisterWorker, scheduler_pb2.DeregisterReq(workerID="w"), 60))
        await membership.asked
        await server.stopService()
        self.assertIs(await code, grpc.StatusCode.UNAVAILABLE)


class ThreadsTests(SynchronousTestCase):
    def test_no_further_thread(self) -> None:
        """If the machine has no further thread, the existing ones do the work."""
        threads = Threads(4)
        self.addCleanup(threads.shutdown)
        self.assertEqual(threads.submit(int).result(60), 0)

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        refused = self.patch(threading.Thread, "start", refuse)
        work = [threads.submit(int, number) for number in range(20)]
        refused.restore()
        self.assertEqual([each.result(60) for each in work], list(range(20)))
