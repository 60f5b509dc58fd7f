"""Calls to workers that give any answer, or none: their errors."""

import os
from functools import partial

import grpc
from grpc_health.v1 import health_pb2
from twisted.internet.defer import Deferred

from scheduler.daemon.logs import REQUEST_ID
from scheduler.errors import (
    Busy,
    DeadlineExceeded,
    NotAWorker,
    NotFound,
    OffsetBeyondEnd,
    SchedulerError,
    ShuttingDown,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
)
from scheduler.messages import Chunk, JobStatus
from scheduler.model import JobState, Stream
from scheduler.pb import worker_pb2
from scheduler.rpc import status, worker_calls
from tests.doubles.runner import FakeJobRunner
from tests.integration.rpc import RpcCase, a_job, a_worker


def answer(message: object):
    return lambda request, context: message


def refuse(code: grpc.StatusCode, details: str = "details"):
    return lambda request, context: context.abort(code, details)


def _tell(error: SchedulerError, request: object, context: grpc.ServicerContext) -> None:
    status.abort(context, error)


class AnswerTests(RpcCase):
    def setUp(self) -> None:
        super().setUp()
        self.client = self.worker_client(deadline=5.0)

    async def outcome(self, expected: type[SchedulerError], method, **methods) -> SchedulerError:
        worker = self.stand_in(**methods)
        error = await self.assertFailure(method(worker), expected)
        self.client.forget(worker.id)
        return error

    def query(self, worker) -> Deferred:
        return self.client.query_job(worker, "j")

    def start(self, worker) -> Deferred:
        return self.client.start_job(worker, a_job())

    def signal(self, worker) -> Deferred:
        return self.client.signal_job(worker, "j", "SIGHUP", "main")

    def remove(self, worker) -> Deferred:
        return self.client.remove_job(worker, "j")

    def read(self, worker) -> Deferred:
        return self.client.read_output(worker, "j", Stream.STDOUT, 5, 3)

    def stream(self, worker) -> Deferred:
        return self.client.stream_output(worker, "j", Stream.STDOUT, 0, lambda chunk: None).finished

    async def test_codes(self) -> None:
        """Each status of a core worker has its error."""
        code = grpc.StatusCode
        for refusal, error in (
            (code.NOT_FOUND, NotFound),
            (code.UNIMPLEMENTED, Unsupported),
            (code.UNAVAILABLE, Unreachable),
            (code.CANCELLED, Unreachable),
            (code.DEADLINE_EXCEEDED, DeadlineExceeded),
            (code.RESOURCE_EXHAUSTED, WorkerFault),
            (code.INTERNAL, WorkerFault),
            (code.UNKNOWN, WorkerFault),
            (code.INVALID_ARGUMENT, WorkerFault),
            (code.PERMISSION_DENIED, WorkerFault),
            (code.OUT_OF_RANGE, WorkerFault),
        ):
            for method, name in (
                (self.query, "QueryJob"),
                (self.start, "StartJob"),
                (self.read, "ReadOutput"),
                (self.stream, "StreamJob"),
            ):
                if error is Unsupported and name in ("StartJob", "QueryJob"):
                    continue
                expected = WorkerFault if error is NotFound and name == "StartJob" else error
                told = await self.outcome(expected, method, **{name: refuse(refusal)})
                self.assertIs(type(told), expected)
                if error is Unreachable:
                    self.assertTrue(told.sent)
                elif expected is NotFound:
                    self.assertEqual((told.kind, told.name), ("job", "j"))
                elif error is Unsupported:
                    self.assertEqual((told.worker, told.capability), ("stand-in", name))
                elif expected is WorkerFault:
                    self.assertEqual((told.worker, told.detail), ("stand-in", "details"))

    async def test_raises(self) -> None:
        """A worker that raises in its own code is at fault."""

        def fails(request: object, context: object) -> None:
            raise ZeroDivisionError

        await self.outcome(WorkerFault, self.query, QueryJob=fails)

    async def test_no_method(self) -> None:
        """A missing method is a missing capability."""
        for method in (self.read, self.stream, self.signal, self.remove):
            await self.outcome(Unsupported, method)

    async def test_no_worker(self) -> None:
        """A program without StartJob or QueryJob is no worker: the error says so, and that nothing was started."""
        for method, name in ((self.start, "StartJob"), (self.query, "QueryJob")):
            for methods in ({}, {name: refuse(grpc.StatusCode.UNIMPLEMENTED)}):
                told = await self.outcome(NotAWorker, method, **methods)
                self.assertEqual((told.name, told.kind, told.sent), ("stand-in", "worker", False))
                self.assertEqual(told.reason, f"it answers {name} with UNIMPLEMENTED: it is no worker")
                self.assertEqual(str(told), f"worker 'stand-in' can't be reached: {told.reason}")

    async def test_told(self) -> None:
        """Only those of our errors are accepted that a worker may have; none says that a start was not sent."""

        def telling(error: SchedulerError):
            return lambda request, context: status.abort(context, error)

        for told, error in (
            (OffsetBeyondEnd(5, 2), OffsetBeyondEnd),
            (Busy("streams", 64), Busy),
            (Unavailable("no room on the disk", 9), Unavailable),
            (Unreachable("w", sent=False), Unreachable),
            (ShuttingDown(), Unreachable),
        ):
            for method, name in ((self.read, "ReadOutput"), (self.start, "StartJob")):
                got = await self.outcome(error, method, **{name: telling(told)})
                self.assertIs(type(got), error)
                if error is Unreachable:
                    self.assertTrue(got.sent)

    async def test_told_not_found(self) -> None:
        """A worker may answer that a job, or its output, is unknown; in answer to a start that is a fault."""
        for told, kind in ((NotFound("job", "other"), "job"), (NotFound("what ever", "x"), "job")):
            refusal = partial(_tell, told)
            got = await self.outcome(NotFound, self.read, ReadOutput=refusal)
            self.assertEqual(got.kind, kind)
            fault = await self.outcome(WorkerFault, self.start, StartJob=refusal)
            self.assertEqual(fault.detail, str(told))

    async def test_nonsense(self) -> None:
        """Impossible answers are the worker's fault."""
        status_of = worker_pb2.JobStatus
        for message in (
            worker_pb2.StartJobRes(),
            worker_pb2.StartJobRes(jobID="a\nb"),
            worker_pb2.StartJobRes(jobID="j", status=status_of(jobID="j", outcome=77)),
        ):
            await self.outcome(WorkerFault, self.start, StartJob=answer(message))
        for message in (
            worker_pb2.QueryJobRes(status=status_of(jobID="other")),
            worker_pb2.QueryJobRes(status=status_of(jobID="j", startedAt=float("nan"))),
        ):
            await self.outcome(WorkerFault, self.query, QueryJob=answer(message))
        other = worker_pb2.StopJobRes(status=status_of(jobID="other"))
        await self.outcome(WorkerFault, lambda worker: self.client.stop_job(worker, "j"), StopJob=answer(other))
        for message in (
            worker_pb2.ReadOutputRes(output=b"abcd", offset=5, size=9),
            worker_pb2.ReadOutputRes(output=b"abc", offset=0, size=9),
            worker_pb2.ReadOutputRes(offset=5, size=-1),
        ):
            await self.outcome(WorkerFault, self.read, ReadOutput=answer(message))

    async def test_stop_without_a_status(self) -> None:
        """A core worker accepts a stop, and reports nothing else of the job."""
        worker = self.stand_in(StopJob=answer(worker_pb2.StopJobRes()))
        self.assertIsNone(await self.client.stop_job(worker, "j"))

    async def test_no_health(self) -> None:
        """A worker without health checks works like any other."""
        worker = self.stand_in(StartJob=answer(worker_pb2.StartJobRes(jobID="7")))
        self.assertIsNone(await self.client.probe(worker))
        self.assertEqual(await self.client.start_job(worker, a_job()), JobStatus("7", JobState.RUNNING))

    async def test_check(self) -> None:
        """A start is preceded by a check, unless another call was answered a moment ago."""
        checks: list[object] = []

        def check(request: object, context: grpc.ServicerContext) -> health_pb2.HealthCheckResponse:
            checks.append(request)
            return health_pb2.HealthCheckResponse()

        worker = self.stand_in(
            StartJob=answer(worker_pb2.StartJobRes(jobID="7")), QueryJob=answer(worker_pb2.QueryJobRes()), Check=check
        )
        for fresh, expected in ((60.0, 0), (0.0, 1)):
            self.patch(worker_calls, "CHECK_VALID_SECONDS", fresh)
            await self.client.query_job(worker, "j")
            await self.client.start_job(worker, a_job())
            self.assertEqual(len(checks), expected)

    async def test_stream_without_end(self) -> None:
        """A stream that the worker ends without an end is over, and its data is kept."""
        chunks: list[Chunk] = []
        worker = self.stand_in(StreamJob=lambda request, context: iter([worker_pb2.StreamJobRes(output=b"abc")]))
        await self.client.stream_output(worker, "j", Stream.STDOUT, 0, chunks.append).finished
        self.assertEqual(chunks, [Chunk(b"abc", 0)])

    async def test_request_id(self) -> None:
        """A call carries the id of its request, and none if it has no request."""
        seen: list[object] = []

        def query(request: object, context: grpc.ServicerContext) -> worker_pb2.QueryJobRes:
            seen.append(dict(context.invocation_metadata()).get("x-request-id"))
            return worker_pb2.QueryJobRes()

        worker = self.stand_in(QueryJob=query)
        await self.query(worker)
        token = REQUEST_ID.set("r-17")
        asked = self.query(worker)
        REQUEST_ID.reset(token)
        await asked
        self.assertEqual(seen, [None, "r-17"])


class ChannelTests(RpcCase):
    def setUp(self) -> None:
        super().setUp()
        self.runners = [FakeJobRunner(), FakeJobRunner()]
        self.addresses = [self.worker_server(runner).bound for runner in self.runners]
        self.client = self.worker_client()

    async def test_moved(self) -> None:
        """A worker that has moved is called at its new address."""
        for number, address in enumerate(self.addresses):
            await self.client.start_job(a_worker(address), a_job(f"j{number}"))
        self.assertEqual([runner.running() for runner in self.runners], [("j0",), ("j1",)])

    async def test_moved_while_called(self) -> None:
        """Calls in flight to its old address fail, and may have arrived."""
        self.runners[0].start("j", a_job().spec, None)
        stream = self.client.stream_output(
            a_worker(self.addresses[0]), "j", Stream.STDOUT, 0, lambda chunk: received.callback(None)
        )
        received: Deferred[None] = Deferred()
        self.runners[0].write("j", b"x")
        await received
        await self.client.probe(a_worker(self.addresses[1]))
        self.assertTrue((await self.assertFailure(stream.finished, Unreachable)).sent)

    async def test_proxy(self) -> None:
        """A worker is dialled directly, whatever proxies the environment names."""
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            self.addCleanup(os.environ.pop, name)
            os.environ[name] = f"http://{self.dead_address()}"
        await self.client.probe(a_worker(self.addresses[0]))
