"""gRPC calls of users of this machine, over loopback without certificates."""

from __future__ import annotations

import socket
import struct

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from scheduler.daemon.servers import GrpcServerSettings
from scheduler.daemon.users import User
from scheduler.errors import Unauthenticated, Unreachable
from scheduler.messages import Registration
from scheduler.net import Address
from scheduler.pb import scheduler_pb2, scheduler_pb2_grpc, worker_pb2, worker_pb2_grpc
from scheduler.rpc.local_callers import LocalCallers
from scheduler.rpc.scheduler_server import RefusedCall, scheduler_server
from scheduler.rpc.server import GrpcServer
from scheduler.rpc.worker_server import worker_server
from scheduler.security.audit import Sender
from scheduler.security.socket_owners import SocketOwners
from tests.contract.test_scheduler_client import AsMembership
from tests.doubles.runner import FakeJobRunner
from tests.doubles.scheduler_client import FakeSchedulerClient
from tests.integration.http2 import ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, headers
from tests.integration.rpc import ANY_PORT, ServerCase, a_job, a_worker, an_identity
from tests.other_user import NOBODY, SKIP, Relay, as_user

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def settings(*users: User, address: Address = ANY_PORT, allow_insecure: bool = False) -> GrpcServerSettings:
    return GrpcServerSettings(
        addr=address,
        tls=None,
        allow_insecure=allow_insecure,
        local_users=users,
        unknown_users=(),
        peer_names=None,
        revoked=None,
    )


class LocalCase(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        self.owners = SocketOwners()
        self.addCleanup(self.owners.close)
        self.runner = FakeJobRunner()

    def worker(self, given: GrpcServerSettings, callers: LocalCallers | None = None) -> GrpcServer:
        callers = callers or LocalCallers(given, self.owners.owner_of, lambda: server.bound)
        server = worker_server(reactor, given.addr, None, self.runner, an_identity(), admissions=[callers.check_thd])
        self.run_until_end(server)
        return server

    def scheduler(self, given: GrpcServerSettings, refused: RefusedCall = lambda *_: None) -> GrpcServer:
        callers = LocalCallers(given, self.owners.owner_of, lambda: server.bound)
        membership = AsMembership(FakeSchedulerClient())
        server = scheduler_server(reactor, given.addr, None, membership, local_callers=callers, refused=refused)
        self.run_until_end(server)
        return server

    def through(self, uid: int, server: GrpcServer) -> Address:
        """An address at which a process of that user passes everything on to the server."""
        assert server.bound is not None
        relay = Relay(uid, server.bound.port)
        self.addCleanup(relay.stop)
        return Address("127.0.0.1", relay.port)


class StrangerTests(LocalCase):
    """Calls of a user who is not named."""

    if SKIP:
        skip = SKIP

    async def test_worker(self) -> None:
        """No method of a worker, unary or stream, answers another user; nothing is done."""
        stub = worker_pb2_grpc.WorkerStub(self.channel(self.through(NOBODY, self.worker(settings()))))
        for method, request in (
            (stub.StartJob, worker_pb2.StartJobReq(command="true")),
            (stub.StopJob, worker_pb2.StopJobReq(jobID="j")),
            (stub.SignalJob, worker_pb2.SignalJobReq(jobID="j", signal="TERM")),
            (stub.RemoveJob, worker_pb2.RemoveJobReq(jobID="j")),
            (stub.QueryJob, worker_pb2.QueryJobReq(jobID="j")),
            (stub.QueryJobs, worker_pb2.QueryJobsReq(jobID=["j"])),
            (stub.ReadOutput, worker_pb2.ReadOutputReq(jobID="j", max=1)),
            (lambda *given, **more: list(stub.StreamJob(*given, **more)), worker_pb2.StreamJobReq(jobID="j")),
        ):
            self.assertEqual(await self.code(method, request), UNAUTHENTICATED, request)
            assert self.details is not None
            self.assertIn(f"user {NOBODY}", self.details)
            self.assertIn("local_users", self.details)
        done = self.runner.started, self.runner.stops, self.runner.signals, self.runner.removals
        self.assertFalse(any(done), done)

    async def test_hang_up(self) -> None:
        """A client that sends a start and closes at once starts nothing: its closed socket is not root's."""
        server = self.worker(settings())
        assert server.bound is not None
        address, message = (server.bound.host, server.bound.port), worker_pb2.StartJobReq(command="true")
        body = message.SerializeToString()
        call = frame(HEADERS, END_HEADERS, 1, headers("/jobscheduler.Worker/StartJob"))
        call += frame(DATA, END_STREAM, 1, struct.pack(">BI", 0, len(body)) + body)

        def act() -> bytes:
            for _ in range(100):
                with socket.create_connection(address) as client:
                    client.sendall(PREFACE + frame(SETTINGS, 0, 0))
                    # With all of the server's greeting read, the end is no reset, which would cancel the call.
                    received = b""
                    while frame(SETTINGS, ACK, 0) not in received:
                        received += client.recv(65536)
                    client.sendall(frame(SETTINGS, ACK, 0) + call)
            return b"sent"

        self.assertEqual(await deferToThread(as_user, NOBODY, act), b"sent")
        await self.worker_client().probe(a_worker(server.bound))
        await server.stopService()
        self.assertEqual(self.runner.started, [])

    async def test_scheduler(self) -> None:
        """No method of the scheduler answers another user; who called is told, for the audit."""
        told: list[tuple[Sender, str, str]] = []
        server = self.scheduler(settings(), lambda *call: told.append(call))
        stub = scheduler_pb2_grpc.SchedulerStub(self.channel(self.through(NOBODY, server)))
        for method, request in (
            (stub.RegisterWorker, scheduler_pb2.RegisterReq(address="127.0.0.1:1")),
            (stub.DeregisterWorker, scheduler_pb2.DeregisterReq(workerID="w")),
            (stub.Heartbeat, scheduler_pb2.HeartbeatReq(workerID="w")),
        ):
            self.assertEqual(await self.code(method, request), UNAUTHENTICATED, request)
        methods = ("RegisterWorker", "DeregisterWorker", "Heartbeat")
        caller = Sender("", "127.0.0.1", NOBODY)
        self.assertEqual(told, [(caller, f"jobscheduler.Scheduler/{method}", "unauthenticated") for method in methods])

    async def test_other_services(self) -> None:
        """A health check is refused. The reflection service is open to every user of the machine."""
        channel = self.channel(self.through(NOBODY, self.worker(settings())))
        health = health_pb2_grpc.HealthStub(channel)
        for method in (health.Check, lambda *given, **more: list(health.Watch(*given, **more))):
            self.assertEqual(await self.code(method, health_pb2.HealthCheckRequest()), UNAUTHENTICATED)
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = await deferToThread(list, reflection.ServerReflectionInfo(iter([request]), timeout=10))
        self.assertIn("jobscheduler.Worker", str(answers))

    async def test_our_client(self) -> None:
        """A worker that refuses the scheduler can't be reached, for the reason that it gives; nothing is sent."""
        worker = a_worker(self.through(NOBODY, self.worker(settings())))
        client = self.worker_client()
        for call in (client.probe(worker), client.start_job(worker, a_job())):
            error = await self.assertFailure(call, Unreachable)
            self.assertIn(f"user {NOBODY} is not in local_users", error.reason)
            self.assertFalse(error.sent)
        error = await self.assertFailure(client.query_job(worker, "j"), Unreachable)
        self.assertIn("local_users", error.reason)

    async def test_refused_later(self) -> None:
        """A call that is refused although the check before it was not had no effect, and the error says so."""
        given = settings()
        answers: list[int] = []
        callers = LocalCallers(given, lambda *_: answers.pop(0), lambda: Address("127.0.0.1", 1))
        worker, client = a_worker(self.worker(given, callers).bound), self.worker_client()
        for call in (
            lambda: client.start_job(worker, a_job()),
            lambda: client.signal_job(worker, "j", "TERM", "main"),
        ):
            answers[:] = [0, NOBODY]
            error = await self.assertFailure(call(), Unreachable)
            self.assertIn(f"user {NOBODY} is not in local_users", error.reason)
            self.assertFalse(error.sent)
            self.assertEqual(answers, [])

    async def test_our_worker(self) -> None:
        """A worker that is refused by the scheduler learns why."""
        client = self.scheduler_client(self.through(NOBODY, self.scheduler(settings())))
        registration = Registration("127.0.0.1:1", folder_id="f", nonce="n", name="w")
        error = await self.assertFailure(client.register(registration), Unauthenticated)
        self.assertIn("local_users", str(error))


class KnownTests(LocalCase):
    async def test_own(self) -> None:
        """The process's own user and root may call."""
        health = health_pb2_grpc.HealthStub(self.channel(self.worker(settings()).bound))
        await self.called(health.Check, health_pb2.HealthCheckRequest())

    async def test_other_addresses(self) -> None:
        """The same holds for IPv6, and for each address of the loopback network."""
        for host in ("::1", "127.0.0.9"):
            health = health_pb2_grpc.HealthStub(self.channel(self.worker(settings(address=Address(host, 0))).bound))
            await self.called(health.Check, health_pb2.HealthCheckRequest())

    async def test_named(self) -> None:
        """A user who is named may call."""
        server = self.worker(settings(User(NOBODY, "nobody")))
        client, worker = self.worker_client(), a_worker(self.through(NOBODY, server), "nobody's")
        await client.probe(worker)

    test_named.skip = SKIP  # type: ignore[attr-defined]

    async def test_allow_insecure(self) -> None:
        """Everybody may call if the configuration says so."""
        server = self.worker(settings(allow_insecure=True))
        await self.worker_client().probe(a_worker(self.through(NOBODY, server)))

    test_allow_insecure.skip = SKIP  # type: ignore[attr-defined]

    async def test_each_call(self) -> None:
        """The user is looked up at each call, also of one connection; a user who is not known may not call."""
        answers = [0, None, 0, 4_000_001]
        given = settings()
        callers = LocalCallers(given, lambda *_: answers.pop(0), lambda: Address("127.0.0.1", 1))
        health = health_pb2_grpc.HealthStub(self.channel(self.worker(given, callers).bound))
        request = health_pb2.HealthCheckRequest()
        await self.called(health.Check, request)
        self.assertEqual(await self.code(health.Check, request), UNAUTHENTICATED)
        await self.called(health.Check, request)
        self.assertEqual(await self.code(health.Check, request), UNAUTHENTICATED)
        self.assertEqual(answers, [])
