"""The gRPC server of a worker: its answers, its limits, and its stop."""

import time
from collections.abc import Callable
from typing import TypeVar

import grpc
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread

from scheduler.daemon.logs import REQUEST_ID
from scheduler.errors import NotFound, Unreachable
from scheduler.messages import Chunk, JobStatus
from scheduler.model import JobSpec, JobState, Stream
from scheduler.pb import worker_pb2, worker_pb2_grpc
from scheduler.request_keys import RequestKey
from scheduler.rpc import convert, worker_server
from scheduler.rpc import server as rpc_server
from scheduler.worker_interfaces import IJobRunner
from tests.doubles.runner import FakeJobRunner
from tests.integration.rpc import ServerCase, a_job, a_worker, later

T = TypeVar("T")

SPEC = JobSpec(command="true")


class WorkerCase(ServerCase):
    """A worker's server, and a stub of gRPC's own."""

    runner: IJobRunner

    def setUp(self) -> None:
        super().setUp()
        self.runner = self.make_runner()
        self.server = self.worker_server(self.runner)
        self.stub = worker_pb2_grpc.WorkerStub(self.channel(self.server.bound))

    def make_runner(self) -> FakeJobRunner:
        return FakeJobRunner()

    async def stopped_soon(self) -> None:
        """The server stops because calls are released, before the grace time for calls is over."""
        self.patch(rpc_server, "STOP_GRACE_SECONDS", 30.0)
        began = time.monotonic()
        await self.server.stopService()
        self.assertLess(time.monotonic() - began, 8.0)


class Counting(FakeJobRunner):
    """Counts reads, and resources that are not released."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.watching = 0
        self.waiting = 0

    def read_output_thd(self, job_id: str, stream: Stream, offset: int, size: int) -> Chunk:
        self.reads += 1
        return super().read_output_thd(job_id, stream, offset, size)

    def watch_output(self, job_id: str, stream: Stream, notify: Callable[[], None]) -> Deferred[Callable[[], None]]:
        def counted(unwatch: Callable[[], None]) -> Callable[[], None]:
            self.watching += 1

            def remove() -> None:
                unwatch()
                self.watching -= 1

            return remove

        return super().watch_output(job_id, stream, notify).addCallback(counted)

    def stop(self, job_id: str, wait: bool) -> Deferred[JobStatus]:
        def over(result: T) -> T:
            self.waiting -= 1
            return result

        self.waiting += 1
        return super().stop(job_id, wait).addBoth(over)


class WorkerTests(WorkerCase):
    def make_runner(self) -> FakeJobRunner:
        return Counting()

    async def test_chosen_id(self) -> None:
        """A start without an id gets one of the worker's choice."""
        answer = await self.called(self.stub.StartJob, worker_pb2.StartJobReq(command="true"))
        self.assertEqual(answer.jobID, "job-1")

    async def test_bad_values(self) -> None:
        """Impossible values are refused by name, and nothing is started."""
        for method, request, field in (
            (self.stub.StartJob, worker_pb2.StartJobReq(jobID="a/b"), "jobID"),
            (self.stub.StartJob, worker_pb2.StartJobReq(timeout=float("nan")), "timeout"),
            (self.stub.StartJob, worker_pb2.StartJobReq(createdAt=-1), "createdAt"),
            (self.stub.SignalJob, worker_pb2.SignalJobReq(jobID="j"), "signal"),
            (self.stub.SignalJob, worker_pb2.SignalJobReq(jobID="j", signal="USR1"), "signal"),
            (self.stub.SignalJob, worker_pb2.SignalJobReq(jobID="j", signal="SIGUSR1", to="all"), "to"),
            (self.stub.RemoveJob, worker_pb2.RemoveJobReq(jobID="../j"), "jobID"),
            (self.stub.ReadOutput, worker_pb2.ReadOutputReq(jobID="j", offset=-1), "offset"),
            (self.stub.ReadOutput, worker_pb2.ReadOutputReq(jobID="j", max=-1), "max"),
            (self.stub.ReadOutput, worker_pb2.ReadOutputReq(jobID="j", stream=7), "stream"),
        ):
            self.assertIs(await self.code(method, request), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertTrue(self.details.startswith(f"{field}: "), self.details)
        for bad in (worker_pb2.StreamJobReq(jobID="j", offset=-1), worker_pb2.StreamJobReq(jobID="j", stream=7)):
            code = await self.code(lambda request, timeout: list(self.stub.StreamJob(request, timeout=timeout)), bad)
            self.assertIs(code, grpc.StatusCode.INVALID_ARGUMENT)
        self.assertEqual(self.runner.running(), ())

    async def test_no_deadline(self) -> None:
        """A client that sets no deadline is answered."""
        answer = await self.called(self.stub.StartJob, worker_pb2.StartJobReq(command="true"), timeout=None)
        self.assertEqual(answer.jobID, "job-1")

    def test_query_of_busy(self) -> None:
        """A query is answered though the reactor is busy."""
        self.runner.start("j", SPEC, None)
        answer = self.stub.QueryJob(worker_pb2.QueryJobReq(jobID="j"), timeout=10)  # blocks the reactor
        self.assertIs(convert.query_from_pb("j", answer).state, JobState.RUNNING)

    async def test_query_many(self) -> None:
        """A query for several jobs returns the known ones, even if the reactor is busy; too many are refused."""
        self.runner.start("j", SPEC, None)
        self.runner.start("k", SPEC, None)
        ended = self.runner.end("k", 3)
        request = worker_pb2.QueryJobsReq(jobID=["k", "none", "j", "../j", ""] + ["j"] * 59)
        answer = self.stub.QueryJobs(request, timeout=10)  # blocks the reactor
        self.assertEqual(convert.status_from_pb(answer.status[0]), ended)
        self.assertEqual([status.jobID for status in answer.status], ["k", *["j"] * 60])
        request.jobID.append("j")
        self.assertIs(await self.code(self.stub.QueryJobs, request), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertTrue(self.details.startswith("jobID: 65 "), self.details)
        answer = await self.called(self.stub.QueryJobs, worker_pb2.QueryJobsReq())
        self.assertEqual(len(answer.status), 0)

    async def test_stop_waits(self) -> None:
        """A stop without ``wait`` is answered at the job's end, with its status."""
        self.runner.ends_on_stop = False
        self.runner.start("j", SPEC, None)
        answer = self.called(self.stub.StopJob, worker_pb2.StopJobReq(jobID="j"))
        answer = Deferred.fromCoroutine(answer)
        await self.stops(1)
        self.assertFalse(answer.called)
        self.runner.end("j", 9)
        self.assertEqual((await answer).status.exitCode, 9)

    async def stops(self, count: int) -> None:
        """Wait until so many stops have arrived."""
        while len(self.runner.stops) < count:
            await later(0.01)

    async def test_stop_of_ended(self) -> None:
        """A stop of an ended job is answered at once, and of an unknown one with NOT_FOUND."""
        self.runner.start("j", SPEC, None)
        self.runner.end("j")
        answer = await self.called(self.stub.StopJob, worker_pb2.StopJobReq(jobID="j"))
        self.assertEqual(answer.status.outcome, worker_pb2.SUCCEEDED)
        request = worker_pb2.StopJobReq(jobID="k")
        self.assertIs(await self.code(self.stub.StopJob, request), grpc.StatusCode.NOT_FOUND)

    async def test_stop_too_long(self) -> None:
        """A stop waits no longer than its client, and then leaves nothing behind."""
        self.runner.ends_on_stop = False
        self.runner.start("j", SPEC, None)
        code = await self.code(self.stub.StopJob, worker_pb2.StopJobReq(jobID="j"), timeout=0.5)
        self.assertIs(code, grpc.StatusCode.DEADLINE_EXCEEDED)
        while self.runner.waiting:
            await later(0.01)

    async def test_many_stops(self) -> None:
        """A limited number of stops wait. One more is carried out, and replaces the one that has waited longest."""
        self.runner.ends_on_stop = False
        self.runner.start("j", SPEC, None)
        request = worker_pb2.StopJobReq(jobID="j")
        longest = Deferred.fromCoroutine(self.code(self.stub.StopJob, request, timeout=60))
        await self.stops(1)
        waiting = [
            Deferred.fromCoroutine(self.called(self.stub.StopJob, request, timeout=60))
            for _ in range(worker_server.MAX_WAITING_STOPS - 1)
        ]
        await self.stops(worker_server.MAX_WAITING_STOPS)
        self.assertFalse(longest.called)
        waiting.append(Deferred.fromCoroutine(self.called(self.stub.StopJob, request, timeout=60)))
        self.assertIs(await longest, grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertIn("end of job j", self.details)
        await self.stops(worker_server.MAX_WAITING_STOPS + 1)
        await self.called(self.stub.StopJob, worker_pb2.StopJobReq(jobID="j", wait=False))
        await self.called(self.stub.QueryJob, worker_pb2.QueryJobReq(jobID="j"))
        self.runner.end("j")
        for answer in waiting:
            self.assertEqual((await answer).status.outcome, worker_pb2.SUCCEEDED)
        while self.runner.waiting:
            await later(0.01)

    async def test_cancelled_stream(self) -> None:
        """A stream whose client is gone is released, even if its job writes nothing."""
        self.runner.start("j", SPEC, None)
        stream = self.stub.StreamJob(worker_pb2.StreamJobReq(jobID="j"))
        while not self.runner.watching:
            await later(0.01)
        stream.cancel()
        while self.runner.watching:
            await later(0.01)

    async def test_stream_before_its_start(self) -> None:
        """A stream that was told of a start on the way waits for it, but not for long; any other does not wait."""
        chunks: list[Chunk] = []
        worker, client = a_worker(self.server.bound), self.worker_client()
        early = client.stream_output(worker, "j", Stream.STDOUT, 0, chunks.append, starting=True)
        never = client.stream_output(worker, "k", Stream.STDOUT, 0, chunks.append, starting=True)
        await self.assertFailure(client.stream_output(worker, "j", Stream.STDOUT, 0, chunks.append).finished, NotFound)
        self.runner.start("j", SPEC, None)
        self.runner.write("j", b"x")
        self.runner.end("j")
        await early.finished
        self.assertEqual([chunk.data for chunk in chunks if chunk.data], [b"x"])
        await self.assertFailure(never.finished, NotFound)

    async def test_idle_stream(self) -> None:
        """A stream of a job that writes nothing sleeps until it is woken."""
        self.runner.start("j", SPEC, None)
        received: Deferred[None] = Deferred()
        worker = a_worker(self.server.bound)
        client = self.worker_client()
        client.stream_output(worker, "j", Stream.STDOUT, 0, lambda chunk: received.callback(None))
        while not self.runner.watching:
            await later(0.01)
        for _ in range(20):
            await client.query_job(worker, "j")
        self.assertLessEqual(self.runner.reads, 2)
        self.runner.write("j", b"x")
        await received
        self.assertLessEqual(self.runner.reads, 4)

    async def test_big_chunks(self) -> None:
        """No message is larger than a client accepts by default, however much output exists."""
        self.runner.start("j", SPEC, None)
        self.runner.write("j", bytes(9 << 20))
        self.runner.end("j")
        request = worker_pb2.ReadOutputReq(jobID="j", max=1 << 60)
        self.assertLessEqual(len((await self.called(self.stub.ReadOutput, request)).output), 3 << 20)
        messages = await deferToThread(lambda: list(self.stub.StreamJob(worker_pb2.StreamJobReq(jobID="j"))))
        self.assertEqual(sum(len(message.output) for message in messages), 9 << 20)

    async def test_stop_of_server(self) -> None:
        """A server that stops releases waiting streams and stops at once, with the error that it shuts down."""
        self.runner.ends_on_stop = False
        self.runner.start("j", SPEC, None)
        self.runner.write("j", b"x")
        client = self.worker_client()
        received: Deferred[None] = Deferred()
        stream = client.stream_output(
            a_worker(self.server.bound), "j", Stream.STDOUT, 0, lambda chunk: received.callback(None)
        )
        await received
        stop = Deferred.fromCoroutine(self.code(self.stub.StopJob, worker_pb2.StopJobReq(jobID="j"), 60))
        await self.stops(1)
        await self.stopped_soon()
        await self.assertFailure(stream.finished, Unreachable)
        self.assertIs(await stop, grpc.StatusCode.UNAVAILABLE)
        while self.runner.watching or self.runner.waiting:
            await later(0.01)


class NeverAnswers(FakeJobRunner):
    """A start is never answered."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled = 0
        self.asked: Deferred[None] = Deferred()

    def start(
        self, job_id: str, spec: JobSpec, created_at: float | None, key: RequestKey | None = None
    ) -> Deferred[JobStatus]:
        def cancelled(_: Deferred[JobStatus]) -> None:
            self.cancelled += 1

        self.asked.called or self.asked.callback(None)
        return Deferred(cancelled)


class SlowWorkerTests(WorkerCase):
    def make_runner(self) -> FakeJobRunner:
        return NeverAnswers()

    async def test_deadline(self) -> None:
        """A call that misses the client's deadline is abandoned on both sides."""
        began = time.monotonic()
        code = await self.code(self.stub.StartJob, worker_pb2.StartJobReq(command="true"), timeout=0.5)
        self.assertIs(code, grpc.StatusCode.DEADLINE_EXCEEDED)
        while not self.runner.cancelled:
            await later(0.01)
        self.assertLess(time.monotonic() - began, 8.0)

    async def test_stop_of_server(self) -> None:
        """A server stops though a call waits for the reactor; its client learns that the start may have arrived."""
        start = self.worker_client().start_job(a_worker(self.server.bound), a_job())
        await self.runner.asked
        await self.stopped_soon()
        self.assertTrue((await self.assertFailure(start, Unreachable)).sent)


class Bug(FakeJobRunner):
    """Has bugs, in every thread."""

    def stop(self, job_id: str, wait: bool) -> Deferred[JobStatus]:
        raise ZeroDivisionError("secret")

    def read_output_thd(self, job_id: str, stream: Stream, offset: int, size: int) -> Chunk:
        raise ZeroDivisionError("secret")


class BugTests(WorkerCase):
    def make_runner(self) -> FakeJobRunner:
        return Bug()

    async def test_bug(self) -> None:
        """A bug is logged, and its details are not sent."""
        self.runner.start("j", SPEC, None)
        read = worker_pb2.ReadOutputReq(jobID="j")
        stream = worker_pb2.StreamJobReq(jobID="j")
        for method, request in (
            (self.stub.StopJob, worker_pb2.StopJobReq(jobID="j", wait=False)),
            (self.stub.ReadOutput, read),
            (lambda request, timeout: list(self.stub.StreamJob(request, timeout=timeout)), stream),
        ):
            self.assertIs(await self.code(method, request), grpc.StatusCode.INTERNAL)
            self.assertEqual(self.details, "internal error")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)


class Notes(FakeJobRunner):
    """Records the request for which it is called."""

    def stop(self, job_id: str, wait: bool) -> Deferred[JobStatus]:
        self.noted = REQUEST_ID.get()
        return succeed(JobStatus(job_id, JobState.RUNNING))


class RequestTests(WorkerCase):
    def make_runner(self) -> FakeJobRunner:
        return Notes()

    async def test_request_id(self) -> None:
        """Code that runs for a request knows its id, which ends with the call, and whose length is limited."""
        for metadata, noted in (
            ((("x-request-id", "r-1"),), "r-1"),
            ((("x-request-id", "x" * 1000),), "x" * 64),
            (None, ""),
        ):
            request = worker_pb2.StopJobReq(jobID="j", wait=False)
            await deferToThread(self.stub.StopJob, request, timeout=10, metadata=metadata)
            self.assertEqual(self.runner.noted, noted)
        self.assertEqual(REQUEST_ID.get(), "")
