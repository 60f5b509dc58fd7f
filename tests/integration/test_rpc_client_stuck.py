"""Calls to workers that are stuck, or answer too late: their errors, and their cost."""

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from scheduler.errors import Busy, DeadlineExceeded, NotFound, ShuttingDown, Unreachable, WorkerFault
from scheduler.messages import Chunk, JobStatus
from scheduler.model import JobState, Stream
from scheduler.pb import worker_pb2
from scheduler.rpc import worker_calls, worker_client
from tests.doubles.runner import FakeJobRunner
from tests.integration.rpc import RpcCase, a_job, a_worker, later


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
        stuck = self.stand_in(StopJob=self.hang, ReadOutput=lambda request, context: worker_pb2.ReadOutputRes())
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
