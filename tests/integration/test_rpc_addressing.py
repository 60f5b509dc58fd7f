"""The addressee of a call and the process that answers: refusals by the worker's server, and believed answers."""

from __future__ import annotations

import threading
from typing import Any

import grpc
from attrs import evolve
from grpc_health.v1 import health_pb2
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from scheduler.daemon.logs import REQUEST_ID
from scheduler.errors import (
    ANOTHER_PROCESS,
    Busy,
    DeadlineExceeded,
    Misdirected,
    NotFound,
    Refused,
    Unavailable,
    Unreachable,
    WorkerFault,
)
from scheduler.messages import Chunk
from scheduler.model import JobSpec, Stream, Worker
from scheduler.pb import worker_pb2
from scheduler.rpc import addressing, status, worker_calls
from tests.doubles.runner import FakeJobRunner
from tests.integration.http2 import ended, half_open
from tests.integration.rpc import Method, RpcCase, a_job, an_identity, later

#: Every method that the server has, and one that it lacks.
METHODS = (
    *(f"/jobscheduler.Worker/{method.name}" for method in worker_pb2.DESCRIPTOR.services_by_name["Worker"].methods),
    "/jobscheduler.Worker/OfLaterVersion",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)

MEANT = (("scheduler-worker-id", "w"), ("scheduler-worker-nonce", "mine"))


class ServerTests(RpcCase):
    """A worker ``w`` whose process has the nonce ``mine``."""

    def setUp(self) -> None:
        super().setUp()
        self.runner = FakeJobRunner()
        self.runner.start("j", JobSpec(command="true"), None)
        self.runner.write("j", b"abc")
        self.runner.end("j")
        self.identity = an_identity("mine", "w")
        self.server = self.worker_server(self.runner, identity=self.identity)
        self.wire = self.channel(self.server.bound)

    async def call(self, method: str, metadata: tuple = (), message: bytes = b"") -> grpc.Call:
        """A finished call."""

        def call_thd() -> grpc.Call:
            answers = self.wire.stream_stream(method)(iter([message]), metadata=metadata, timeout=10)
            try:
                if method.endswith("Watch"):  # a watch does not end
                    next(answers)
                    answers.cancel()
                list(answers)
            except grpc.RpcError:
                pass
            return answers

        return await deferToThread(call_thd)

    async def test_misdirected(self) -> None:
        """Whichever method is called, nothing runs for another worker or process; the error says so, and names the
        process.
        """
        self.runner.started.clear()
        for method in METHODS:
            for told in (
                {"scheduler-worker-id": "w", "scheduler-worker-nonce": "other"},
                {"scheduler-worker-nonce": "other"},
                {"scheduler-worker-id": "other"},
            ):
                call = await self.call(method, tuple(told.items()))
                self.assertIs(call.code(), grpc.StatusCode.FAILED_PRECONDITION, method)
                self.assertIsInstance(status.error_from_status(call), Misdirected)
                self.assertEqual(addressing.nonce_in(call.trailing_metadata()), "mine")
        self.assertEqual((self.runner.started, self.runner.stops, self.runner.signals), ([], [], []))

    async def test_signed(self) -> None:
        """Each answer names its process, also an error, and a stream before its first message."""
        job = worker_pb2.QueryJobReq(jobID="j").SerializeToString()
        codes = set()
        for method in METHODS:
            for metadata in (MEANT, ()):
                for message in (b"", job):
                    call = await self.call(method, metadata, message)
                    codes.add(call.code())
                    if not method.endswith("Watch"):  # a watch is cancelled here
                        self.assertEqual(addressing.nonce_in(call.trailing_metadata()), "mine", method)
                    if method.endswith(("Watch", "StreamJob", "Info")):
                        self.assertEqual(addressing.nonce_in(call.initial_metadata()), "mine", method)
        of = grpc.StatusCode
        self.assertLessEqual({of.OK, of.NOT_FOUND, of.INVALID_ARGUMENT, of.UNIMPLEMENTED}, codes)

    async def test_unaddressed(self) -> None:
        """A call without an addressee is answered, and so is one with a part of it."""
        query = worker_pb2.QueryJobReq(jobID="j").SerializeToString()
        for metadata in ((), MEANT[:1], MEANT[1:], MEANT, (("scheduler-worker-id", ""),)):
            call = await self.call("/jobscheduler.Worker/QueryJob", metadata, query)
            self.assertIs(call.code(), grpc.StatusCode.OK)

    async def test_scheduler(self) -> None:
        """The first call of each process of the scheduler is noticed, also a health check; a misdirected one is not."""
        told: list[str] = []
        self.identity.on_new_scheduler(lambda: told.append(threading.current_thread().name))
        for nonce, meant, count in (
            ("a", MEANT, 1),
            ("a", MEANT, 1),
            ("b", (("scheduler-worker-id", "other"),), 1),
            ("b", (), 2),
            ("", MEANT, 2),
            ("b", MEANT, 2),
        ):
            metadata = (*meant, ("scheduler-nonce", nonce)) if nonce else meant
            await self.call("/grpc.health.v1.Health/Check", metadata)
            await later(0)
            self.assertEqual(len(told), count, (nonce, meant))
        self.assertEqual(set(told), {threading.current_thread().name})

    async def test_scheduler_refused(self) -> None:
        """A caller that is not admitted is not noticed as a process of the scheduler."""
        told: list[str] = []

        def refuse_thd(_: object) -> None:
            raise Refused("not you")

        identity = an_identity("mine", "w")
        identity.on_new_scheduler(lambda: told.append("noticed"))
        self.wire = self.channel(self.worker_server(self.runner, identity=identity, admissions=[refuse_thd]).bound)
        for method in METHODS:
            await self.call(method, (*MEANT, ("scheduler-nonce", method)))
            await later(0)
        self.assertEqual(told, [])

    async def test_no_thread(self) -> None:
        """A refused call is answered though its message never comes, so it holds no thread."""
        address = (self.server.bound.host, self.server.bound.port)
        connection = half_open(address, "/jobscheduler.Worker/StopJob", 50, [("scheduler-worker-nonce", "other")])
        self.addCleanup(connection.close)
        await deferToThread(ended, connection, 50)


def signed(nonce: str, method: Method) -> Method:
    """A stand-in's method whose answer names that process."""

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        context.set_trailing_metadata(((addressing.WORKER_NONCE_KEY, nonce),))
        return method(request, context)

    return answer


def check(request: object, context: object) -> health_pb2.HealthCheckResponse:
    return health_pb2.HealthCheckResponse()


def giving(message: Any) -> Method:
    return lambda request, context: message


#: The details of a grpcio server that has no thread for a call.
NO_PLACE = "Concurrent RPC limit exceeded!"


def refusing(code: grpc.StatusCode, details: str = "details") -> Method:
    return lambda request, context: context.abort(code, details)


def telling(error: Any) -> Method:
    return lambda request, context: status.abort(context, error)


class ClientTests(RpcCase):
    """The metadata of calls, and the answers that are believed."""

    def setUp(self) -> None:
        super().setUp()
        self.client = self.worker_client()
        self.chunks: list[Chunk] = []

    def worker(self, **methods: Method) -> Worker:
        """A worker with the nonce ``n``, at whose address another program has these methods.

        Only its health check is answered as by the worker.
        """
        return evolve(self.stand_in(**{"Check": signed("n", check), **methods}), nonce="n")

    def asked(self, worker: Worker) -> dict[str, Deferred]:
        return {
            "Check": self.client.probe(worker),
            "StartJob": self.client.start_job(worker, a_job()),
            "StopJob": self.client.stop_job(worker, "j"),
            "SignalJob": self.client.signal_job(worker, "j", "SIGHUP", "main"),
            "RemoveJob": self.client.remove_job(worker, "j"),
            "QueryJob": self.client.query_job(worker, "j"),
            "ReadOutput": self.client.read_output(worker, "j", Stream.STDOUT, 0, 1),
            "StreamJob": self.client.stream_output(worker, "j", Stream.STDOUT, 0, self.chunks.append).finished,
        }

    async def test_metadata(self) -> None:
        """Every call names its addressee, as far as known, the calling process, and its request."""
        self.patch(worker_calls, "CHECK_VALID_SECONDS", 60.0)
        seen: dict[str, dict[str, str]] = {}

        def noting(name: str) -> Method:
            def note(request: object, context: grpc.ServicerContext) -> None:
                seen[name] = {key: value for key, value in context.invocation_metadata() if key != "user-agent"}
                context.abort(grpc.StatusCode.NOT_FOUND, "")

            return note

        names = ("Check", "StartJob", "StopJob", "SignalJob", "RemoveJob", "QueryJob", "ReadOutput", "StreamJob")
        worker = self.stand_in(**{name: noting(name) for name in names})
        for nonce in ("", "n"):
            token = REQUEST_ID.set("r-17")
            asked = self.asked(evolve(worker, nonce=nonce))
            REQUEST_ID.reset(token)
            for call in asked.values():
                await call.addErrback(lambda reason: reason.trap(NotFound, Misdirected, WorkerFault))
            expected = {
                "x-request-id": "r-17",
                "scheduler-worker-id": "stand-in",
                "scheduler-nonce": "scheduler",
                **({"scheduler-worker-nonce": nonce} if nonce else {}),
            }
            self.assertEqual(seen, dict.fromkeys(names if not nonce else seen, expected))
            self.assertIn("Check", seen)
            seen.clear()

    async def test_unsigned_errors(self) -> None:
        """No error of another program is believed: neither that a job is unknown, nor that a start was refused."""
        code = grpc.StatusCode
        for refusal in (
            refusing(code.NOT_FOUND),
            refusing(code.FAILED_PRECONDITION),
            refusing(code.INTERNAL),
            refusing(code.UNIMPLEMENTED),
            telling(NotFound("job", "j")),
            telling(Unavailable("no space left")),
            telling(Busy("calls", 4)),
            signed("other", refusing(code.UNAVAILABLE)),
            signed("other", refusing(code.RESOURCE_EXHAUSTED, NO_PLACE)),
            refusing(code.RESOURCE_EXHAUSTED),
        ):
            names = ("StartJob", "StopJob", "SignalJob", "RemoveJob", "QueryJob", "ReadOutput", "StreamJob")
            asked = self.asked(self.worker(**dict.fromkeys(names, refusal)))
            await asked.pop("Check")
            for name, call in asked.items():
                error = await self.assertFailure(call, Misdirected, Unreachable, DeadlineExceeded)
                if name == "StartJob" and not isinstance(error, Misdirected):
                    self.assertEqual((error.sent, error.reason), (True, ANOTHER_PROCESS))
                elif name != "SignalJob":
                    self.assertIsInstance(error, Misdirected, name)

    async def test_unsigned_answers(self) -> None:
        """No other answer of it is believed either. A start and a signal may have been accepted there, which is
        reported.
        """
        asked = self.asked(
            self.worker(
                StartJob=giving(worker_pb2.StartJobRes(jobID="j")),
                StopJob=giving(worker_pb2.StopJobRes()),
                SignalJob=giving(worker_pb2.SignalJobRes()),
                RemoveJob=signed("other", giving(worker_pb2.RemoveJobRes())),
                QueryJob=giving(worker_pb2.QueryJobRes()),
                ReadOutput=giving(worker_pb2.ReadOutputRes(output=b"a", size=1)),
                StreamJob=lambda request, context: iter([worker_pb2.StreamJobRes(output=b"a", end=True)]),
            )
        )
        await asked.pop("Check")
        start = await self.assertFailure(asked.pop("StartJob"), Unreachable)
        self.assertEqual((type(start), start.sent, start.reason), (Unreachable, True, ANOTHER_PROCESS))
        await self.assertFailure(asked.pop("SignalJob"), DeadlineExceeded)
        for call in asked.values():
            await self.assertFailure(call, Misdirected)
        self.assertEqual(self.chunks, [])

    async def test_empty_stream(self) -> None:
        """A stream of another program that ends without a message does not count as ended."""
        worker = self.worker(StreamJob=lambda request, context: iter(()))
        stream = self.client.stream_output(worker, "j", Stream.STDOUT, 0, self.chunks.append)
        await self.assertFailure(stream.finished, Misdirected)

    async def test_no_such_method(self) -> None:
        """A program that lacks StartJob has started nothing."""
        await self.assertFailure(self.client.start_job(self.worker(), a_job()), Misdirected)

    async def test_refused_after_the_check(self) -> None:
        """A start or signal that another process refuses was not accepted, though the check before it was answered."""
        refusal = signed("other", telling(Misdirected("w")))
        worker = self.worker(StartJob=refusal, SignalJob=refusal)
        await self.assertFailure(self.client.start_job(worker, a_job()), Misdirected)
        await self.assertFailure(self.client.signal_job(worker, "j", "SIGHUP", "main"), Misdirected)

    async def test_of_grpc_itself(self) -> None:
        """A status that gRPC makes in place of a server can't name a process, and keeps its meaning."""
        code = grpc.StatusCode
        for refusal, error in (
            (code.UNAVAILABLE, Unreachable),
            (code.CANCELLED, Unreachable),
            (code.DEADLINE_EXCEEDED, DeadlineExceeded),
            (code.RESOURCE_EXHAUSTED, Unavailable),
        ):
            words = NO_PLACE if error is Unavailable else "details"
            worker = self.worker(StartJob=refusing(refusal, words), QueryJob=refusing(refusal, words))
            for call in (self.client.start_job(worker, a_job()), self.client.query_job(worker, "j")):
                told = await self.assertFailure(call, error)
                self.assertIs(type(told), error)
                if error is Unreachable:
                    self.assertEqual((told.sent, told.reason), (True, "" if refusal is code.CANCELLED else "details"))

    async def test_no_place(self) -> None:
        """A server without a thread for a check can't name its process: nothing is known, and no start is sent."""
        worker = evolve(self.stand_in(Check=refusing(grpc.StatusCode.RESOURCE_EXHAUSTED, NO_PLACE)), nonce="n")
        await self.assertFailure(self.client.probe(worker), Busy)
        await self.assertFailure(self.client.start_job(worker, a_job()), Busy)
        await self.client.probe(evolve(worker, nonce=""))

    async def test_freshness(self) -> None:
        """A call answered by one process does not count as a check of another."""
        self.patch(worker_calls, "CHECK_VALID_SECONDS", 60.0)
        checks: list[str] = []

        def noting(request: object, context: grpc.ServicerContext) -> health_pb2.HealthCheckResponse:
            nonce = dict(context.invocation_metadata())["scheduler-worker-nonce"]
            checks.append(nonce)
            return signed(nonce, check)(request, context)

        query = giving(worker_pb2.QueryJobRes())
        worker = self.worker(
            Check=noting, QueryJob=signed("n", query), StartJob=signed("n", giving(worker_pb2.StartJobRes(jobID="j")))
        )
        await self.client.query_job(worker, "j")
        await self.client.start_job(worker, a_job())
        self.assertEqual(checks, [])
        await self.assertFailure(self.client.start_job(evolve(worker, nonce="m"), a_job()), Unreachable)
        self.assertEqual(checks, ["m"])

    async def test_many_queries(self) -> None:
        """An answer of another program to simultaneous queries is not believed."""
        worker = self.worker(QueryJobs=giving(worker_pb2.QueryJobsRes()))
        for call in [self.client.query_job(worker, f"j{number}") for number in range(3)]:
            await self.assertFailure(call, Misdirected)


class OlderWorkerTests(RpcCase):
    """A worker that registered without a nonce, like one of an earlier version, and ignores metadata."""

    async def test_older(self) -> None:
        """A worker without a nonce is called as before; its errors are believed."""
        client = self.worker_client()
        worker = self.stand_in(
            StartJob=giving(worker_pb2.StartJobRes(jobID="j")),
            QueryJob=refusing(grpc.StatusCode.NOT_FOUND),
            StopJob=telling(Unavailable("no room")),
        )
        await client.probe(worker)
        self.assertEqual((await client.start_job(worker, a_job())).job_id, "j")
        await self.assertFailure(client.query_job(worker, "j"), NotFound)
        self.assertIs(type(await self.assertFailure(client.stop_job(worker, "j"), Unavailable)), Unavailable)
