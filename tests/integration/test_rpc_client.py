"""Calls to workers that are slow, stuck, gone, or give any answer: their errors, and their cost."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc
from attrs import evolve
from grpc_health.v1 import health_pb2
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import blockingCallFromThread, deferToThread

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
from scheduler.rpc import status, worker_calls, worker_client
from tests.doubles.runner import FakeJobRunner
from tests.integration.rpc import RpcCase, a_job, a_worker, later


def answer(message: object):
    return lambda request, context: message


def refuse(code: grpc.StatusCode, details: str = "details"):
    return lambda request, context: context.abort(code, details)


def _tell(error: SchedulerError, request: object, context: grpc.ServicerContext) -> None:
    status.abort(context, error)


class AnswerTests(RpcCase):
    """Answers of a worker, and their meaning."""

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


class StuckTests(RpcCase):
    """Workers that accept calls and do not answer."""

    def setUp(self) -> None:
        super().setUp()
        self.go_on = threading.Event()
        self.addCleanup(self.go_on.set)
        self.arrived = threading.Semaphore(0)
        self.calls: list[str] = []

    def hang(self, request, context: grpc.ServicerContext):
        self.calls.append(request.jobID)
        self.arrived.release()
        self.go_on.wait()
        return worker_pb2.StopJobRes()

    def healthy(self):
        """Another worker, with a job."""
        runner = FakeJobRunner()
        runner.start("j", a_job().spec, None)
        return a_worker(self.worker_server(runner).bound, "healthy")

    async def test_start_unanswered(self) -> None:
        """A start that was taken and not answered is told from one that never left."""
        client, worker = self.worker_client(deadline=0.5), self.stand_in(StartJob=self.hang)
        error = await self.assertFailure(client.start_job(worker, a_job()), DeadlineExceeded)
        self.assertTrue(0 < error.seconds <= 0.5, error.seconds)  # less what the check before it took
        self.assertEqual(self.calls, ["j"])

    async def test_start_while_hung_up_on(self) -> None:
        """A start under way on a line that is closed may have arrived."""
        client, worker = self.worker_client(deadline=60.0), self.stand_in(StartJob=self.hang)
        start = client.start_job(worker, a_job())
        await deferToThread(self.arrived.acquire)
        client.forget(worker.id)
        self.assertTrue((await self.assertFailure(start, Unreachable)).sent)

    async def test_signal_unanswered(self) -> None:
        """A signal that was accepted may have been sent, whatever became of the answer; it is not repeated."""
        client, worker = self.worker_client(deadline=0.5), self.stand_in(SignalJob=self.hang)
        await self.assertFailure(client.signal_job(worker, "j", "SIGHUP", "main"), DeadlineExceeded)
        client, calls = self.worker_client(deadline=60.0), len(self.calls)
        signal = client.signal_job(worker, "j", "SIGHUP", "main")
        while len(self.calls) == calls:
            await deferToThread(self.arrived.acquire)
        client.forget(worker.id)
        await self.assertFailure(signal, DeadlineExceeded)
        self.assertEqual(self.calls, ["j", "j"])

    async def test_limits(self) -> None:
        """Four calls at a time and a queue, then Busy at once; a call that waited too long is never made."""
        client = self.worker_client(deadline=1.0)
        worker = self.stand_in(StopJob=self.hang)
        calls = [client.stop_job(worker, f"j{number}") for number in range(68)]
        beyond = await self.assertFailure(client.stop_job(worker, "beyond"), Busy)
        self.assertEqual(beyond.limit, 68)
        await self.assertFailure(client.start_job(worker, a_job()), Busy)
        await self.assertFailure(client.query_job(worker, "j"), Busy)
        await client.probe(worker)  # it has a queue of its own
        for number, call in enumerate(calls):
            error = await self.assertFailure(call, DeadlineExceeded, Busy)
            self.assertIsInstance(error, DeadlineExceeded if number < 4 else (DeadlineExceeded, Busy))
        self.assertIsInstance(error, Busy)  # the last one, whose start was certainly not sent
        self.assertLess(len(self.calls), 20)
        self.assertNotIn("beyond", self.calls)

    async def test_others(self) -> None:
        """Calls to others succeed meanwhile, and so do reads of output."""
        client = self.worker_client(deadline=5.0)
        stuck = self.stand_in(StopJob=self.hang, ReadOutput=answer(worker_pb2.ReadOutputRes()))
        healthy = self.healthy()
        calls = [client.stop_job(stuck, "j") for _ in range(30)]
        for _ in range(4):
            self.arrived.acquire()
        self.assertEqual((await client.query_job(healthy, "j")).state, JobState.RUNNING)
        self.assertEqual(await client.read_output(stuck, "j", Stream.STDOUT, 0, 9), Chunk(b"", 0))
        self.assertEqual(len(self.calls), 4)
        self.go_on.set()
        await gatherResults(calls)

    async def test_many_that_are_silent(self) -> None:
        """Two dozen workers on which all calls hang, and a dozen on which reads do, do not block the others."""
        client = self.worker_client(deadline=5.0)
        healthy, address = self.healthy(), self.silent_address()
        silent = [a_worker(address, f"silent-{number}") for number in range(24)]
        calls = [client.query_job(worker, "j") for worker in silent for _ in range(8)]
        calls += [client.read_output(worker, "j", Stream.STDOUT, 0, 1) for worker in silent[:12] for _ in range(8)]
        began = time.monotonic()
        self.assertEqual((await client.query_job(healthy, "j")).state, JobState.RUNNING)
        await client.read_output(healthy, "j", Stream.STDOUT, 0, 0)
        self.assertLess(time.monotonic() - began, 3.0)
        for call in calls:
            await self.assertFailure(call, DeadlineExceeded, Busy, Unreachable)

    async def test_stopped_process(self) -> None:
        """A frozen worker costs its callers no more than their deadline, and works again when it continues."""
        self.patch(worker_calls, "CHECK_VALID_SECONDS", 0.0)
        process, address = self.process("tests.integration.rpc_worker")
        frozen, healthy = a_worker(address, "frozen"), self.healthy()
        client = self.worker_client(deadline=1.0)
        await client.query_job(frozen, "j")
        await self.freeze(process)
        began = time.monotonic()
        start = client.start_job(frozen, a_job("k"))
        query = client.query_job(frozen, "j")
        probe = client.probe(frozen)
        await client.query_job(healthy, "j")
        self.assertFalse((await self.assertFailure(start, Unreachable)).sent)
        await self.assertFailure(query, DeadlineExceeded)
        await self.assertFailure(probe, Unreachable)
        self.assertLess(time.monotonic() - began, 5.0)
        process.send_signal(signal.SIGCONT)
        self.assertEqual((await client.query_job(frozen, "j")).state, JobState.RUNNING)
        await self.assertFailure(client.query_job(frozen, "k"), NotFound)

    async def freeze(self, process: subprocess.Popen) -> None:
        """Returns once every thread has stopped."""
        process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{process.pid}/task")
        while not all("\nState:\tT" in (task / "status").read_text() for task in tasks.iterdir()):
            await later(0.01)

    async def test_killed_process(self) -> None:
        """A stream from a worker that dies is cut at once, as unreachable."""
        self.patch(worker_calls, "CHECK_VALID_SECONDS", 0.0)
        process, address = self.process("tests.integration.rpc_worker")
        client, worker = self.worker_client(), a_worker(address)
        stream = client.stream_output(worker, "j", Stream.STDOUT, 0, lambda chunk: None)
        await client.query_job(worker, "j")
        process.kill()
        await self.assertFailure(stream.finished, Unreachable)
        error = await self.assertFailure(client.start_job(worker, a_job()), Unreachable)
        self.assertFalse(error.sent)

    async def test_stop(self) -> None:
        """A client that stops waits for nothing: calls in flight fail, and so do later ones."""
        client = self.worker_client(deadline=60.0)
        worker = self.stand_in(StopJob=self.hang)
        calls = [client.stop_job(worker, "j") for _ in range(9)]
        silent = client.stream_output(a_worker(self.silent_address(), "s"), "j", Stream.STDOUT, 0, lambda chunk: None)
        for _ in range(4):
            self.arrived.acquire()
        stopping = client.stopService()
        for call in calls:
            await self.assertFailure(call, Unreachable, ShuttingDown)
        await stopping
        await self.assertFailure(client.query_job(worker, "j"), ShuttingDown)
        await self.assertFailure(client.probe(worker), ShuttingDown)
        self.assertFalse(silent.finished.called)


class LateTests(RpcCase):
    """A core worker that answers a start after its deadline."""

    def setUp(self) -> None:
        super().setUp()
        self.client = self.worker_client(deadline=1.0)
        self.release = threading.Event()
        self.addCleanup(self.release.set)
        self.late: list[Deferred[JobStatus]] = []

    async def too_late(self, answer: Callable[[grpc.ServicerContext], worker_pb2.StartJobRes]) -> Deferred[JobStatus]:
        """A start that is answered after its deadline, once it is released."""

        def start(request: object, context: grpc.ServicerContext) -> worker_pb2.StartJobRes:
            self.release.wait(30)
            return answer(context)

        self.worker = evolve(self.stand_in(StartJob=start), boot_id="")
        starting = self.client.start_job(self.worker, a_job(), late=self.late.append)
        await self.assertFailure(starting, DeadlineExceeded)
        (late,) = self.late
        return late

    async def test_answered(self) -> None:
        """The late answer is passed on, with the worker's id of the job."""
        late = await self.too_late(lambda context: worker_pb2.StartJobRes(jobID="theirs"))
        self.release.set()
        self.assertEqual(await late, JobStatus("theirs", JobState.RUNNING))

    async def test_refused(self) -> None:
        """A late fault is passed on, too."""
        late = await self.too_late(lambda context: context.abort(grpc.StatusCode.INTERNAL, "no such image"))
        self.release.set()
        self.assertEqual((await self.assertFailure(late, WorkerFault)).detail, "no such image")

    async def test_never(self) -> None:
        """The wait for a late answer is limited."""
        self.patch(worker_calls, "LATE_ANSWER_MAX_SECONDS", 1.0)
        late = await self.too_late(lambda context: worker_pb2.StartJobRes(jobID="theirs"))
        await self.assertFailure(late, DeadlineExceeded)

    async def test_gone(self) -> None:
        """The wait also ends when the worker is forgotten."""
        late = await self.too_late(lambda context: worker_pb2.StartJobRes(jobID="theirs"))
        self.client.forget(self.worker.id)
        self.assertTrue((await self.assertFailure(late, Unreachable)).sent)

    async def test_too_many(self) -> None:
        """The number of awaited answers of one worker is limited."""
        self.patch(worker_client, "LATE_ANSWERS_PER_WORKER", 1)
        late = await self.too_late(lambda context: worker_pb2.StartJobRes(jobID="theirs"))
        again = self.client.start_job(self.worker, a_job(), late=self.late.append)
        await self.assertFailure(again, DeadlineExceeded)
        self.assertEqual(len(self.late), 1)
        self.release.set()
        await late

    async def test_ours(self) -> None:
        """A worker of ours is queried by our id, so no late answer is awaited."""
        worker = self.stand_in(StartJob=lambda request, context: self.release.wait(30))
        await self.assertFailure(self.client.start_job(worker, a_job(), late=self.late.append), DeadlineExceeded)
        self.assertEqual(self.late, [])


class ChannelTests(RpcCase):
    """The destinations of calls."""

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


class StreamTests(RpcCase):
    """Streams, and the threads they hold."""

    def setUp(self) -> None:
        super().setUp()
        self.client = self.worker_client()

    def open(self, worker, deliver=lambda chunk: None):
        return self.client.stream_output(worker, "j", Stream.STDOUT, 0, deliver)

    async def test_all_streams(self) -> None:
        """The number of streams is limited. One more is Busy at once, and a cancelled one makes room at once."""
        worker = a_worker(self.silent_address())
        for _ in range(2):
            streams = [await self.open_when_free(worker) for _ in range(worker_client.MAX_OUTPUT_STREAMS)]
            self.assertEqual(self.assertRaises(Busy, self.open, worker).limit, worker_client.MAX_OUTPUT_STREAMS)
            for stream in streams:
                stream.cancel()

    async def open_when_free(self, worker):
        while True:
            try:
                return self.open(worker)
            except Busy:
                await later(0.01)

    async def test_cancelled_while_held(self) -> None:
        """A stream that is cancelled while its receiver delays it makes room at once."""
        self.patch(worker_client, "MAX_OUTPUT_STREAMS", 1)
        runner = FakeJobRunner()
        worker = a_worker(self.worker_server(runner).bound)
        runner.start("j", a_job().spec, None)
        runner.write("j", b"x")
        held: Deferred[None] = Deferred()

        def deliver(chunk: Chunk) -> Deferred[None]:
            held.callback(None)
            return Deferred()

        stream = self.open(worker, deliver)
        await held
        await later(0)  # not inside the receiver's call
        began = time.monotonic()
        stream.cancel()
        (await self.open_when_free(worker)).cancel()
        self.assertLess(time.monotonic() - began, worker_client.HELD_UP_MAX_SECONDS / 2)

    async def test_receiver_fails(self) -> None:
        """A receiver that raises ends its stream."""
        runner = FakeJobRunner()
        worker = a_worker(self.worker_server(runner).bound)
        runner.start("j", a_job().spec, None)
        runner.write("j", b"x")

        def deliver(chunk: Chunk) -> None:
            raise ZeroDivisionError

        await self.assertFailure(self.open(worker, deliver).finished, ZeroDivisionError)

    async def test_held_too_long(self) -> None:
        """A receiver that is never done is cut off."""
        self.patch(worker_client, "HELD_UP_MAX_SECONDS", 0.1)
        runner = FakeJobRunner()
        worker = a_worker(self.worker_server(runner).bound)
        runner.start("j", a_job().spec, None)
        runner.write("j", b"x")
        await self.assertFailure(self.open(worker, lambda chunk: Deferred()).finished, DeadlineExceeded)

    async def test_more_than_a_worker_has(self) -> None:
        """A worker whose streams are all in use says so, answers everything else, and has room when one ends."""
        runner = FakeJobRunner()
        worker = a_worker(self.worker_server(runner).bound)
        runner.start("j", a_job().spec, None)
        runner.write("j", b"x")
        received = [Deferred() for _ in range(64)]
        streams = [self.open(worker, lambda chunk, each=each: each.callback(None)) for each in received]
        await gatherResults(received)
        self.assertEqual((await self.assertFailure(self.open(worker).finished, Busy)).limit, 64)
        self.assertEqual((await self.client.query_job(worker, "j")).state, JobState.RUNNING)
        streams.pop().cancel()
        while True:
            received = Deferred()
            streams.append(self.open(worker, received.callback))
            streams[-1].finished.addErrback(received.errback)
            try:
                await received
                break
            except Busy:
                await later(0.01)
        for stream in streams:
            stream.cancel()

    def test_reactor_is_free(self) -> Deferred:
        """No silent worker blocks the reactor thread."""
        worker = a_worker(self.silent_address())
        streams = [self.open(worker) for _ in range(8)]
        probes = [self.client.probe(worker).addErrback(lambda _: None) for _ in range(8)]
        began = time.monotonic()
        done: Deferred[None] = Deferred()

        def check() -> None:
            blockingCallFromThread(reactor, lambda: None)
            reactor.callFromThread(done.callback, None)

        threading.Thread(target=check).start()

        def over(_: object) -> Deferred:
            self.assertLess(time.monotonic() - began, 1.0)
            for stream in streams:
                stream.cancel()
            self.client.forget(worker.id)
            return gatherResults(probes)

        return done.addCallback(over)
