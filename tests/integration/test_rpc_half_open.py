"""Calls that make a server wait: for a message that does not come, or for an answer to be read."""

import threading
import time
from collections.abc import Callable, Iterator

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from scheduler.model import JobSpec
from scheduler.pb import scheduler_pb2, scheduler_pb2_grpc, worker_pb2, worker_pb2_grpc
from scheduler.rpc import server as rpc_server
from scheduler.rpc.server import GrpcServer
from tests.contract.test_scheduler_client import AsMembership
from tests.doubles.runner import FakeJobRunner
from tests.doubles.scheduler_client import FakeSchedulerClient
from tests.integration.http2 import Attack, pings
from tests.integration.rpc import RpcCase, later

REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
WATCH = "/grpc.health.v1.Health/Watch"
STOP = "/jobscheduler.Worker/StopJob"

LIST_SERVICES = reflection_pb2.ServerReflectionRequest(list_services="*")
OF_JOB = worker_pb2.QueryJobReq(jobID="j").SerializeToString()


class HalfOpenCase(RpcCase):
    """A server of each kind; the worker's has a running job ``j``."""

    def setUp(self) -> None:
        super().setUp()
        self.runner = FakeJobRunner()
        self.runner.start("j", JobSpec(command="true"), None)
        self.worker = self.worker_server(self.runner)
        self.scheduler = self.scheduler_server(AsMembership(FakeSchedulerClient()))

    def calls(self, server: GrpcServer) -> tuple[Callable[[], object], ...]:
        """A health check, and the most important call of the server."""
        channel = self.channel(server.bound)
        check = health_pb2_grpc.HealthStub(channel).Check
        stop = worker_pb2_grpc.WorkerStub(channel).StopJob
        beat = scheduler_pb2_grpc.SchedulerStub(channel).Heartbeat
        if server is self.worker:
            return (
                lambda: check(health_pb2.HealthCheckRequest(), timeout=10),
                lambda: stop(worker_pb2.StopJobReq(jobID="j", wait=False), timeout=10),
            )
        return (
            lambda: check(health_pb2.HealthCheckRequest(), timeout=10),
            lambda: self.assertIs(
                self.assertRaises(grpc.RpcError, beat, scheduler_pb2.HeartbeatReq(), timeout=10).code(),
                grpc.StatusCode.NOT_FOUND,
            ),
        )

    def called(self, server: GrpcServer, seconds: float) -> list[float]:
        """Make these calls for so long; the seconds that each of them took."""
        took = []
        calls = self.calls(server)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for call in calls:
                began = time.monotonic()
                call()
                took.append(time.monotonic() - began)
            time.sleep(0.05)
        return took

    async def attacked(
        self, server: GrpcServer, path: str, connections: int, seconds: float, message: bytes | None = None
    ) -> int:
        """Calls are answered in time during an attack; the number of the attackers' calls that were ended."""
        with Attack((server.bound.host, server.bound.port), path, connections, message) as attack:
            took = await deferToThread(self.called, server, seconds)
        # One slower call is allowed. Where nothing else runs it takes a tenth of that, and 5 s if threads are taken.
        self.assertLess(sorted(took)[-2], 3.0, f"of {len(took)} calls")
        return attack.ended

    async def both_attacked(self, connections: int) -> None:
        """Attack both with calls whose message never comes, for longer than their deadline."""
        heartbeat = "/jobscheduler.Scheduler/Heartbeat"
        ended = await gatherResults(
            Deferred.fromCoroutine(self.attacked(server, path, connections, 7.0))
            for server, path in ((self.worker, STOP), (self.scheduler, heartbeat))
        )
        self.assertGreaterEqual(ended[0], 80 * connections)
        self.assertGreaterEqual(ended[1], 8 * connections)


class AttackTests(HalfOpenCase):
    """Clients with all the calls they may have take nothing that others need."""

    async def test_one(self) -> None:
        """A single connection."""
        await self.both_attacked(1)

    async def test_four(self) -> None:
        await self.both_attacked(4)

    async def test_forty(self) -> None:
        await self.both_attacked(40)

    async def test_reflection(self) -> None:
        """Streams of the reflection service without a question, and with one whose answer is not read."""
        await self.attacked(self.scheduler, REFLECTION, 8, 2.0)
        await self.attacked(self.worker, REFLECTION, 4, 2.0, LIST_SERVICES.SerializeToString())

    async def test_watch(self) -> None:
        """Health watches without a message, and those whose answer is not read."""
        await self.attacked(self.scheduler, WATCH, 8, 2.0)
        await self.attacked(self.worker, WATCH, 4, 2.0, b"")

    async def test_output_untaken(self) -> None:
        """Streams of a job's output that is not read."""
        self.runner.write("j", b"x")
        await self.attacked(self.worker, "/jobscheduler.Worker/StreamJob", 4, 2.0, OF_JOB)


def silence(over: threading.Event, *messages: bytes) -> Iterator[bytes]:
    """These messages, and then none, without an end."""
    yield from messages
    over.wait(60)


class CancelTests(HalfOpenCase):
    """The times at which calls are ended, and the client's errors."""

    def setUp(self) -> None:
        super().setUp()
        self.over = threading.Event()
        self.addCleanup(self.over.set)

    def open(self, server: GrpcServer, path: str, *messages: bytes) -> tuple[grpc.StatusCode, str, float]:
        """Send these messages, and nothing after them; the end, and the seconds until then."""
        call = self.channel(server.bound).stream_stream(path)
        began = time.monotonic()
        answers = call(silence(self.over, *messages), timeout=20)
        try:
            for _ in answers:
                pass
        except grpc.RpcError as error:
            return error.code(), error.details(), time.monotonic() - began
        return grpc.StatusCode.OK, "", time.monotonic() - began

    async def test_no_message(self) -> None:
        """A call is cancelled when no message has come for five seconds, and a stream when no further one has."""
        opened = [
            (server, path, messages)
            for server, paths in (
                (self.worker, (STOP, "/jobscheduler.Worker/StreamJob", WATCH, REFLECTION)),
                (self.scheduler, ("/jobscheduler.Scheduler/RegisterWorker", "/grpc.health.v1.Health/Check")),
            )
            for path in paths
            for messages in ((), (LIST_SERVICES.SerializeToString(),))
            if path is REFLECTION or not messages
        ]
        for code, details, seconds in await gatherResults(
            deferToThread(self.open, *each[:2], *each[2]) for each in opened
        ):
            self.assertIs(code, grpc.StatusCode.CANCELLED, details)
            self.assertGreater(seconds, 4.5)
            self.assertLess(seconds, 10.0)

    def asked_slowly(self) -> int:
        """The number of answers of a reflection stream with a question every three seconds, within six."""

        def questions() -> Iterator[reflection_pb2.ServerReflectionRequest]:
            for _ in range(3):
                yield LIST_SERVICES
                time.sleep(3)

        ask = reflection_pb2_grpc.ServerReflectionStub(self.channel(self.worker.bound)).ServerReflectionInfo
        return len(list(ask(questions(), timeout=20)))

    def watched(self, service: str) -> list[int]:
        """The answers of a watch within seven seconds, at whose end it is cancelled."""
        said = []
        watch = health_pb2_grpc.HealthStub(self.channel(self.worker.bound)).Watch
        try:
            for answer in watch(health_pb2.HealthCheckRequest(service=service), timeout=7):
                said.append(answer.status)
        except grpc.RpcError as error:
            self.assertIs(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        return said

    async def test_not_cancelled(self) -> None:
        """A watch stays open, and so does a reflection stream that continues to ask."""
        watches = (deferToThread(self.watched, service) for service in ("", "jobscheduler.Worker", "none"))
        answers, *watched = await gatherResults([deferToThread(self.asked_slowly), *watches])
        status = health_pb2.HealthCheckResponse
        self.assertEqual(answers, 3)
        self.assertEqual(watched, [[status.SERVING], [status.SERVING], [status.SERVICE_UNKNOWN]])

    async def code(self, *messages: bytes) -> grpc.StatusCode:
        """The status of a query that sends these messages, and their end."""
        call = self.channel(self.worker.bound).stream_unary("/jobscheduler.Worker/QueryJob")
        error = await self.assertFailure(deferToThread(call, iter(messages), timeout=10), grpc.RpcError)
        return error.code()

    async def test_other_messages(self) -> None:
        """A call without a message, or with an invalid one, is refused like gRPC does; an empty message is valid."""
        self.assertIs(await self.code(), grpc.StatusCode.UNIMPLEMENTED)
        self.assertIs(await self.code(b"\xff"), grpc.StatusCode.INTERNAL)
        self.assertIs(await self.code(b""), grpc.StatusCode.NOT_FOUND)

    async def test_late_message(self) -> None:
        """A late message within the five seconds is answered."""

        def late() -> Iterator[bytes]:
            time.sleep(2)
            yield OF_JOB

        call = self.channel(self.worker.bound).stream_unary("/jobscheduler.Worker/QueryJob")
        answer = await deferToThread(call, late(), timeout=20)
        self.assertFalse(worker_pb2.QueryJobRes.FromString(answer).done)

    async def test_gone(self) -> None:
        """A client that leaves before its message leaves nothing behind."""
        with Attack((self.worker.bound.host, self.worker.bound.port), STOP, 1):
            while len(self.worker.waiting) < 80:
                await later(0.01)
        while self.worker.waiting:
            await later(0.01)

    async def test_stop_of_server(self) -> None:
        """A server that stops does not wait for messages."""
        self.patch(rpc_server, "STOP_GRACE_SECONDS", 30.0)
        opened = deferToThread(self.open, self.worker, STOP)
        while not self.worker.waiting:
            await later(0.01)
        began = time.monotonic()
        await self.worker.stopService()
        self.assertLess(time.monotonic() - began, 8.0)
        await opened


class PingTests(HalfOpenCase):
    async def test_pings(self) -> None:
        """A client may ping every five seconds, even if the network delays some pings."""
        asked = (
            deferToThread(pings, (server.bound.host, server.bound.port), 5, 3.0)
            for server in (self.worker, self.scheduler)
        )
        self.assertEqual(await gatherResults(asked), [True, True])
