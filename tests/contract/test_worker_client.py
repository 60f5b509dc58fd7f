"""The contract of every client of workers, and its failures: over the wire, in memory, and simulated."""

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from scheduler.errors import (
    ANOTHER_PROCESS,
    Conflict,
    DeadlineExceeded,
    JobNotEnded,
    JobNotRunning,
    Misdirected,
    NotFound,
    OffsetBeyondEnd,
    OutputPruned,
    SchedulerError,
    Unavailable,
    Unreachable,
    WorkerFault,
)
from scheduler.interfaces import IOutputStream, IWorkerClient
from scheduler.messages import Chunk
from scheduler.model import JobSpec, JobState, Stream
from scheduler.rpc import worker_client
from scheduler.rpc.server import GrpcServer
from scheduler.worker_interfaces import IIdentity
from tests.contract.simulated import SimulatedCase
from tests.doubles.runner import FakeJobRunner
from tests.doubles.workers import METHODS, Workers
from tests.integration.rpc import ANY_PORT, Heedless, RpcCase, a_job, a_worker, an_identity
from tests.simulation.calls import SimulatedWorkerClient

MIB = 1024 * 1024


class Receiver:
    """Receives a stream; while ``holding`` it delays each chunk until ``release``."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.holding = False
        self._held: list[Deferred[None]] = []
        self._wanted: list[tuple[int, Deferred[None]]] = []

    def __call__(self, chunk: Chunk) -> Deferred[None] | None:
        self.chunks.append(chunk)
        for entry in list(self._wanted):
            if len(self.data) >= entry[0]:
                self._wanted.remove(entry)
                entry[1].callback(None)
        if not self.holding:
            return None
        held: Deferred[None] = Deferred()
        self._held.append(held)
        return held

    @property
    def data(self) -> bytes:
        return b"".join(chunk.data for chunk in self.chunks)

    def has(self, count: int) -> Deferred[None]:
        """Fires once so many bytes have arrived."""
        deferred: Deferred[None] = Deferred()
        if len(self.data) >= count:
            deferred.callback(None)
        else:
            self._wanted.append((count, deferred))
        return deferred

    def release(self) -> None:
        self.holding = False
        held, self._held = self._held, []
        for each in held:
            each.callback(None)


class Contract:
    """Mixed into an RpcCase that has ``client``, and ``runner`` behind ``worker``."""

    async def failure(self, error: type[SchedulerError], call: Deferred) -> SchedulerError:
        return await self.assertFailure(call, error)

    async def started(self, job_id: str = "j", **spec: object) -> None:
        await self.client.start_job(self.worker, a_job(job_id, **spec))

    def follow(self, stream: Stream = Stream.STDOUT, offset: int = 0) -> tuple[IOutputStream, Receiver]:
        receiver = Receiver()
        return self.client.stream_output(self.worker, "j", stream, offset, receiver), receiver

    def test_interface(self) -> None:
        """The client provides its interface, with the right arguments."""
        verifyObject(IWorkerClient, self.client)

    async def test_start(self) -> None:
        """A start is answered with the job's status, and the worker gets the whole spec."""
        spec = JobSpec(
            "sh", ("-c", "x"), "a.sh", {"A": "b"}, "/tmp", b"\0in", b"#!\xff", 1.5, 2.5, {"l": "v"}, merge_stderr=True
        )
        status = await self.client.start_job(self.worker, evolve(a_job(), spec=spec))
        self.assertEqual((status.job_id, status.state), ("j", JobState.RUNNING))
        self.assertEqual(status, self.runner.query("j"))
        self.assertEqual(self.runner.started, [("j", spec, 7.0)])

    async def test_start_again(self) -> None:
        """A repeated start is answered with the existing job."""
        await self.started()
        self.runner.end("j", 3)
        status = await self.client.start_job(self.worker, a_job())
        self.assertEqual((status.state, status.exit_code), (JobState.FAILED, 3))

    async def test_refused(self) -> None:
        """A job that the worker refuses to run has failed, with the reason."""
        self.runner.refused["rm"] = "not allowed"
        status = await self.client.start_job(self.worker, a_job(command="rm"))
        self.assertEqual((status.state, status.reason), (JobState.FAILED, "not allowed"))

    async def test_no_job(self) -> None:
        """An impossible job is the worker's fault."""
        error = await self.failure(WorkerFault, self.client.start_job(self.worker, a_job("../j")))
        self.assertIn("jobID", error.detail)

    async def test_going_down(self) -> None:
        """A worker that is stopping can't be reached; a start in progress there may have happened."""
        self.runner.shutting_down = True
        error = await self.failure(Unreachable, self.client.start_job(self.worker, a_job()))
        self.assertTrue(error.sent)

    async def test_core_worker(self) -> None:
        """A core worker chooses the id, and starts the core part of the spec."""
        core = evolve(self.worker, boot_id="")
        status = await self.client.start_job(core, a_job(command="sh", path="a.sh"))
        self.assertEqual((status.job_id, status.state), ("job-1", JobState.RUNNING))
        ((asked, spec, created_at),) = self.runner.started
        self.assertEqual((asked, spec, created_at), ("", JobSpec(command="sh", path="a.sh"), None))

    async def test_stop(self) -> None:
        """A stop does not wait for the end; it is answered with the present status."""
        self.runner.ends_on_stop = False
        await self.started()
        self.assertEqual(await self.client.stop_job(self.worker, "j"), self.runner.query("j"))
        self.assertEqual(self.runner.stops, [("j", False)])
        ended = self.runner.end("j")
        self.assertEqual(await self.client.stop_job(self.worker, "j"), ended)

    async def test_stop_that_leaves_processes(self) -> None:
        """The answer to a stop of an ended job lists its processes that still run."""
        await self.started()
        self.runner.left["j"] = (123, 124)
        self.assertEqual(self.runner.end("j").leftover, (123, 124))
        self.assertEqual((await self.client.stop_job(self.worker, "j")).leftover, (123, 124))
        self.runner.left["j"] = (124,)
        self.assertEqual((await self.client.stop_job(self.worker, "j")).leftover, (124,))
        self.assertEqual((await self.client.query_job(self.worker, "j")).leftover, (123, 124))  # as at the job's end

    async def test_signal(self) -> None:
        """A signal arrives once, at its target; a job that has ended gets none, and failures are reported."""
        await self.started()
        for name, to in (("SIGUSR1", "main"), ("SIGSTOP", "tree")):
            self.assertIsNone(await self.client.signal_job(self.worker, "j", name, to))
        self.assertEqual(self.runner.signals, [("j", "SIGUSR1", "main"), ("j", "SIGSTOP", "tree")])
        self.runner.left["j"] = (123,)
        error = await self.failure(Conflict, self.client.signal_job(self.worker, "j", "SIGUSR1", "tree"))
        self.assertIn("can't be sent", str(error))
        self.runner.end("j")
        error = await self.failure(JobNotRunning, self.client.signal_job(self.worker, "j", "SIGUSR1", "main"))
        self.assertEqual((error.job_id, error.state), ("j", "succeeded"))

    async def test_remove(self) -> None:
        """An ended job is removed, its id stays used, and that may be repeated. A running job stays."""
        await self.started()
        error = await self.failure(JobNotEnded, self.client.remove_job(self.worker, "j"))
        self.assertEqual((error.job_id, error.state), ("j", "running"))
        self.runner.end("j")
        self.runner.resists = "its folder can't be moved"
        error = await self.failure(Unavailable, self.client.remove_job(self.worker, "j"))
        self.assertEqual(str(error), self.runner.resists)
        self.runner.resists = ""
        for _ in range(2):
            self.assertIsNone(await self.client.remove_job(self.worker, "j"))
        self.assertEqual(self.runner.unacknowledged(), ())
        await self.failure(OutputPruned, self.client.read_output(self.worker, "j", Stream.STDOUT, 0, 1))
        await self.failure(Conflict, self.client.start_job(self.worker, a_job()))

    async def test_query(self) -> None:
        """A query is answered with the whole status, running or ended."""
        await self.started()
        self.assertEqual(await self.client.query_job(self.worker, "j"), self.runner.query("j"))
        self.runner.write("j", b"abc")
        ended = self.runner.end("j", None, JobState.STOPPED, "signal: killed", "SIGKILL")
        self.assertEqual(await self.client.query_job(self.worker, "j"), ended)

    async def test_seal(self) -> None:
        """A sealing query is answered like any other; an unknown job is not started afterwards."""
        await self.failure(NotFound, self.client.query_job(self.worker, "j"))
        await self.started()
        self.assertEqual(await self.client.query_job(self.worker, "j", seal=True), self.runner.query("j"))
        error = await self.failure(NotFound, self.client.query_job(self.worker, "k", seal=True))
        self.assertEqual((error.kind, error.name), ("job", "k"))
        error = await self.failure(Conflict, self.client.start_job(self.worker, a_job("k")))
        self.assertIn("'k'", str(error))

    async def test_many_queries(self) -> None:
        """Simultaneous queries each get their own answer, or that the job is unknown, even if some callers give up."""
        for number in range(100):
            await self.started(f"j{number}")
        for number in range(0, 100, 2):
            self.runner.end(f"j{number}", number)
        for begin in (0, 50):
            asked = {f"j{n}": self.client.query_job(self.worker, f"j{n}", n % 3 == 0) for n in range(begin, begin + 50)}
            twice = self.client.query_job(self.worker, "j1")
            missing = self.client.query_job(self.worker, "k")
            sealed = self.client.query_job(self.worker, f"s{begin}", seal=True)
            given_up = self.client.query_job(self.worker, "j1")
            given_up.addErrback(lambda reason: reason.trap(CancelledError))
            given_up.cancel()
            for job_id, answer in asked.items():
                self.assertEqual(await answer, self.runner.query(job_id))
            self.assertEqual(await twice, self.runner.query("j1"))
            self.assertEqual((await self.failure(NotFound, missing)).name, "k")
            self.assertEqual((await self.failure(NotFound, sealed)).name, f"s{begin}")
            await self.failure(Conflict, self.client.start_job(self.worker, a_job(f"s{begin}")))
        await self.started("k")

    async def test_not_found(self) -> None:
        """An unknown job is not found, with its id, for every method."""
        stream, _ = self.follow()
        for call in (
            self.client.stop_job(self.worker, "j"),
            self.client.signal_job(self.worker, "j", "SIGUSR1", "main"),
            self.client.query_job(self.worker, "j"),
            self.client.read_output(self.worker, "j", Stream.STDOUT, 0, 1),
            stream.finished,
        ):
            error = await self.failure(NotFound, call)
            self.assertEqual((error.kind, error.name), ("job", "j"))

    async def read(self, offset: int, size: int, stream: Stream = Stream.STDOUT) -> Chunk:
        return await self.client.read_output(self.worker, "j", stream, offset, size)

    async def test_read(self) -> None:
        """A read returns the existing output, up to the requested size, and its length."""
        await self.started()
        self.runner.write("j", b"hello\0\xff")
        self.runner.write("j", b"err", Stream.STDERR)
        self.assertEqual(await self.read(1, 3), Chunk(b"ell", 1, False, 7))
        self.assertEqual(await self.read(0, 100), Chunk(b"hello\0\xff", 0, False, 7))
        self.assertEqual(await self.read(0, 0), Chunk(b"", 0, False, 7))
        self.assertEqual(await self.read(7, 1), Chunk(b"", 7, False, 7))
        self.assertEqual(await self.read(0, 9, Stream.STDERR), Chunk(b"err", 0, False, 3))
        self.runner.end("j")
        self.assertEqual(await self.read(0, 100), Chunk(b"hello\0\xff", 0, True, 7))
        self.assertEqual(await self.read(0, 7), Chunk(b"hello\0\xff", 0, True, 7))
        self.assertEqual(await self.read(0, 6), Chunk(b"hello\0", 0, False, 7))

    async def test_read_much(self) -> None:
        """A large read returns a part, and the next one continues after it."""
        await self.started()
        self.runner.write("j", bytes(5 * MIB))
        chunk = await self.read(0, 1 << 40)
        self.assertEqual((chunk.offset, chunk.size), (0, 5 * MIB))
        self.assertTrue(0 < chunk.next_offset <= 5 * MIB)

    async def test_beyond_end(self) -> None:
        """For an offset past the end the error has the length."""
        await self.started()
        self.runner.write("j", b"abc")
        stream, _ = self.follow(offset=9)
        for call in (self.client.read_output(self.worker, "j", Stream.STDOUT, 9, 1), stream.finished):
            error = await self.failure(OffsetBeyondEnd, call)
            self.assertEqual((error.offset, error.size), (9, 3))

    async def test_pruned(self) -> None:
        """Pruned output differs from output that never existed, in a read and in a stream in progress."""
        await self.started()
        self.runner.write("j", bytes(4 * MIB))
        stream, received = self.follow()
        received.holding = True
        await received.has(1)
        self.runner.end("j")
        self.runner.acknowledge(["j"])
        self.runner.prune("j")
        received.release()
        reads = [Deferred.fromCoroutine(self.read(*span)) for span in ((0, 1), (0, 0), (9 * MIB, 1))]
        for call in (stream.finished, *reads):
            self.assertEqual((await self.failure(OutputPruned, call)).job_id, "j")
        self.assertFalse(any(chunk.end for chunk in received.chunks))
        await self.failure(Conflict, self.client.start_job(self.worker, a_job()))

    async def test_stream(self) -> None:
        """A stream has the existing output, then the new, and ends with the job."""
        await self.started()
        self.runner.write("j", b"before")
        stream, received = self.follow(offset=3)
        verifyObject(IOutputStream, stream)
        await received.has(3)
        for part in (b"\0\xff", b"\n", b"more"):
            self.runner.write("j", part)
            self.runner.write("j", b"other", Stream.STDERR)
            await received.has(len(self.runner.read_output_thd("j", Stream.STDOUT, 3, 100).data))
        self.runner.end("j")
        self.assertIsNone(await stream.finished)
        self.assertEqual(received.data, b"ore\0\xff\nmore")
        self.assertEqual([chunk.end for chunk in received.chunks], [False] * (len(received.chunks) - 1) + [True])
        position = 3
        for chunk in received.chunks:
            self.assertEqual(chunk.offset, position)
            position = chunk.next_offset

    async def test_cut(self) -> None:
        """The end has the reason why output was cut, read and streamed; earlier chunks do not."""
        await self.started()
        self.runner.write("j", b"hello")
        self.runner.end("j", output_error="stdout: No space left on device")
        for offset in (0, 5):
            stream, received = self.follow(offset=offset)
            await stream.finished
            whole = received.chunks[-1]
            for chunk in (whole, await self.read(offset, 100)):
                self.assertEqual((chunk.data, chunk.end), (b"hello"[offset:], True))
                self.assertEqual(chunk.cut, "stdout: No space left on device")
        self.assertEqual((await self.read(0, 4)).cut, "")

    async def test_stream_of_nothing(self) -> None:
        """The stream of a job that ended without output is only its end."""
        await self.started()
        self.runner.end("j")
        for which in Stream:
            stream, received = self.follow(which)
            await stream.finished
            self.assertEqual(received.chunks, [Chunk(b"", 0, True)])

    async def test_streams_side_by_side(self) -> None:
        """Each stream of a job arrives completely, however large it is."""
        await self.started()
        data = bytes(range(256)) * (20 * MIB // 256) + b"rest"
        self.runner.write("j", data)
        streams = [self.follow() for _ in range(3)]
        self.runner.end("j")
        for stream, received in streams:
            await stream.finished
            self.assertTrue(received.data == data)

    async def test_held_up(self) -> None:
        """A receiver that is not done with a chunk gets no other, and misses none."""
        await self.started()
        stream, received = self.follow()
        received.holding = True
        self.runner.write("j", b"first")
        await received.has(5)
        for _ in range(20):  # long enough for a chunk that must not come
            self.runner.write("j", bytes(MIB))
            await self.client.query_job(self.worker, "j")
        self.assertEqual(len(received.chunks), 1)
        self.runner.end("j")
        received.release()
        await stream.finished
        self.assertEqual(received.data, b"first" + bytes(20 * MIB))

    async def test_cancelled(self) -> None:
        """After a cancel nothing is delivered, even if more was on its way; a second cancel does nothing."""
        await self.started()
        self.runner.write("j", bytes(8 * MIB))
        stream, received = self.follow()
        received.holding = True
        await received.has(1)
        stream.cancel()
        stream.cancel()
        received.release()
        self.runner.write("j", b"more")
        for _ in range(5):
            await self.client.query_job(self.worker, "j")
        self.assertEqual(len(received.chunks), 1)

    async def test_cancelled_by_receiver(self) -> None:
        """A receiver may cancel within its call."""
        await self.started()
        self.runner.write("j", bytes(8 * MIB))
        chunks: list[Chunk] = []
        cancelled: Deferred[None] = Deferred()

        def deliver(chunk: Chunk) -> Deferred[None]:
            chunks.append(chunk)
            stream.cancel()
            cancelled.callback(None)
            return Deferred()  # this never fires

        stream = self.client.stream_output(self.worker, "j", Stream.STDOUT, 0, deliver)
        await cancelled
        for _ in range(5):
            await self.client.query_job(self.worker, "j")
        self.assertEqual(len(chunks), 1)

    async def test_probe(self) -> None:
        """A worker that answers can be reached."""
        self.assertIsNone(await self.client.probe(self.worker))

    async def test_forget(self) -> None:
        """A forgotten worker can be called again; forgetting an unknown one does nothing."""
        self.client.forget("stranger")
        await self.started()
        self.client.forget(self.worker.id)
        self.assertEqual((await self.client.query_job(self.worker, "j")).state, JobState.RUNNING)


class GivingUp:
    """The part of the contract that needs answers that take time."""

    async def test_given_up(self) -> None:
        """A caller that gives up gets CancelledError."""
        await self.started()
        for call in (self.client.query_job(self.worker, "j"), self.client.stop_job(self.worker, "j")):
            call.cancel()
            await self.assertFailure(call, CancelledError)


class FakeTests(Contract, RpcCase):
    """In memory."""

    def setUp(self) -> None:
        super().setUp()
        self.runner = FakeJobRunner()
        self.worker = a_worker("nowhere:1")
        self.client = Workers(reactor, {self.worker.id: self.runner})


class AsCoreWorker(FakeJobRunner):
    """Can also be called like a core worker, in the simulation."""

    def core_start(self, spec: JobSpec, known_as: str) -> Deferred[str]:
        return self.start("", spec, None).addCallback(lambda status: status.job_id)


class SimulatedTests(Contract, GivingUp, SimulatedCase):
    """Over a simulated network."""

    def setUp(self) -> None:
        super().setUp()
        self.runner = AsCoreWorker()
        self.worker = a_worker(self.listen(self.runner))
        self.client = SimulatedWorkerClient(self.network, self.caller, "nonce", chunk=2 * MIB)


class RealTests(Contract, GivingUp, RpcCase):
    """Over the wire."""

    def setUp(self) -> None:
        super().setUp()
        self.runner = FakeJobRunner()
        self.worker = a_worker(self.worker_server(self.runner).bound)
        self.client = self.worker_client()


class Unanswered:
    """Mixed into an RpcCase whose ``client`` can't reach ``worker``: all of its methods."""

    def asked(self) -> dict[str, Deferred]:
        self.stream = self.client.stream_output(self.worker, "j", Stream.STDOUT, 0, lambda chunk: None)
        return {
            "probe": self.client.probe(self.worker),
            "start": self.client.start_job(self.worker, a_job()),
            "stop": self.client.stop_job(self.worker, "j"),
            "signal": self.client.signal_job(self.worker, "j", "SIGUSR1", "main"),
            "remove": self.client.remove_job(self.worker, "j"),
            "query": self.client.query_job(self.worker, "j"),
            "read": self.client.read_output(self.worker, "j", Stream.STDOUT, 0, 1),
            "stream": self.stream.finished,
        }


class UnreachableContract(Unanswered):
    async def test_unreachable(self) -> None:
        """Nothing listens: every method says so at once, and the start was not sent."""
        for name, call in self.asked().items():
            error = await self.assertFailure(call, Unreachable)
            self.assertEqual((error.name, error.kind), (self.worker.name, "worker"), name)
            if name in ("start", "signal"):
                self.assertFalse(error.sent)
        self.assertIs(await self.client.answers(self.worker), None)


class UnreachableFakeTests(UnreachableContract, RpcCase):
    def setUp(self) -> None:
        super().setUp()
        self.worker = a_worker("nowhere:1")
        self.client = Workers(reactor)


class UnreachableSimulatedTests(UnreachableContract, SimulatedCase):
    def setUp(self) -> None:
        super().setUp()
        self.worker = a_worker("10.0.0.2:1")
        self.client = SimulatedWorkerClient(self.network, self.caller, "nonce")


class UnreachableRealTests(UnreachableContract, RpcCase):
    def setUp(self) -> None:
        super().setUp()
        self.worker = a_worker(self.dead_address())
        self.client = self.worker_client()


class MisdirectedContract(Unanswered):
    """Mixed into an RpcCase whose ``at_its_address`` makes another process answer at the worker's address."""

    async def ask_another(self, identity: IIdentity | None) -> None:
        await self.at_its_address(identity)
        for name, call in self.asked().items():
            error = await self.assertFailure(call, Misdirected)
            self.assertEqual((error.name, error.sent, error.reason), ("w", False, ANOTHER_PROCESS), name)
        self.assertEqual(self.runner.started, [])
        self.assertIs(await self.client.answers(self.worker), False)

    async def test_another_process(self) -> None:
        """Another process of the worker refuses every call, and does nothing: no start was sent, no job is missing."""
        await self.ask_another(an_identity("another", "w"))

    async def test_another_worker(self) -> None:
        """Another worker does the same."""
        await self.ask_another(an_identity("another", "another"))

    async def test_another_without_a_nonce(self) -> None:
        """A worker without a nonce is recognised by its id."""
        self.worker = evolve(self.worker, nonce="")
        await self.ask_another(an_identity("another", "another"))

    async def test_another_program(self) -> None:
        """The answers of a program that does not name its process are not believed."""
        await self.ask_another(None)

    async def test_restarted(self) -> None:
        """A later process of a worker is not mistaken for the earlier one, nor the other way round."""
        await self.at_its_address(an_identity("first", "w"))
        first, second = evolve(self.worker, nonce="first"), evolve(self.worker, nonce="second")
        await self.client.start_job(first, a_job())
        await self.assertFailure(self.client.start_job(second, a_job("k")), Misdirected)
        self.assertEqual(self.runner.running(), ("j",))
        await self.client.query_job(first, "j")
        await self.at_its_address(an_identity("second", "w"))
        for _ in range(3):
            await self.assertFailure(self.client.start_job(first, a_job("k")), Misdirected)
        await self.assertFailure(self.client.signal_job(first, "k", "SIGHUP", "main"), Misdirected)
        self.assertEqual(self.runner.started, [])
        self.assertIs((await self.client.start_job(second, a_job("k"))).state, JobState.RUNNING)

    async def test_meant(self) -> None:
        """Calls to the right process are answered, with errors too; so are those to a process without a nonce."""
        for identity, nonce in ((an_identity("meant", "w"), "meant"), (an_identity("meant", "w"), ""), (None, "")):
            await self.at_its_address(identity)
            self.worker = evolve(self.worker, nonce=nonce)
            await self.assertFailure(self.client.query_job(self.worker, "j"), NotFound)
            await self.client.probe(self.worker)
            self.assertIs(await self.client.answers(self.worker), True)
            await self.client.start_job(self.worker, a_job())
            self.runner.write("j", b"abc")
            self.runner.end("j")
            received = Receiver()
            await self.client.stream_output(self.worker, "j", Stream.STDOUT, 0, received).finished
            self.assertEqual(received.data, b"abc")
            await self.assertFailure(self.client.signal_job(self.worker, "j", "SIGUSR1", "main"), JobNotRunning)

    async def test_no_id_yet(self) -> None:
        """A process that does not know its id yet is recognised by its nonce."""
        await self.at_its_address(an_identity("meant"))
        await self.client.start_job(self.worker, a_job())


class MisdirectedFakeTests(MisdirectedContract, RpcCase):
    def setUp(self) -> None:
        super().setUp()
        self.worker = evolve(a_worker("nowhere:1"), nonce="meant")
        self.client = Workers(reactor)

    async def at_its_address(self, identity: IIdentity | None) -> None:
        self.runner = self.client.runners["w"] = FakeJobRunner()
        self.client.identities["w"] = identity


class MisdirectedSimulatedTests(MisdirectedContract, SimulatedCase):
    def setUp(self) -> None:
        super().setUp()
        self.worker = evolve(a_worker("10.0.0.2:1"), nonce="meant")
        self.client = SimulatedWorkerClient(self.network, self.caller, "nonce", chunk=2 * MIB)

    async def at_its_address(self, identity: IIdentity | None) -> None:
        if self.network.endpoint("there", 1) is not None:
            self.network.close("there", 1)
        self.runner = FakeJobRunner()
        if identity is not None:
            self.runner.identity = identity
        self.worker = evolve(self.worker, address=self.listen(self.runner))


class MisdirectedRealTests(MisdirectedContract, RpcCase):
    def setUp(self) -> None:
        super().setUp()
        self.worker = evolve(a_worker("nowhere:1"), nonce="meant")
        self.client = self.worker_client()
        self.server: GrpcServer | None = None

    async def at_its_address(self, identity: IIdentity | None) -> None:
        if self.server is not None:
            await self.server.stopService()
        self.runner = FakeJobRunner()
        address = ANY_PORT if self.server is None else self.server.bound
        self.server = self.worker_server(self.runner, address=address, identity=identity or Heedless())
        self.worker = evolve(self.worker, address=str(self.server.bound))


class SilentContract(Unanswered):
    async def test_silent(self) -> None:
        """No answer comes: every call ends by its deadline with that error, or as unreachable."""
        asked = self.asked()
        del asked["stream"]  # it may take its time
        self.stream.cancel()
        for name, call in asked.items():
            error = await self.assertFailure(call, Unreachable, DeadlineExceeded)
            if name in ("stop", "remove", "query", "read"):
                self.assertIsInstance(error, DeadlineExceeded)
            elif name == "probe":
                self.assertIsInstance(error, Unreachable)


class SilentFakeTests(SilentContract, RpcCase):
    def setUp(self) -> None:
        super().setUp()
        self.worker = a_worker("nowhere:1")
        self.client = Workers(reactor)
        self.client.silence(0.1)

    async def test_stream(self) -> None:
        """In memory, a stream ends so, too."""
        stream = self.client.stream_output(self.worker, "j", Stream.STDOUT, 0, lambda chunk: None)
        await self.assertFailure(stream.finished, DeadlineExceeded)

    async def test_arrives(self) -> None:
        """A request without an answer may be carried out all the same."""
        runner = FakeJobRunner()
        client = Workers(reactor, {self.worker.id: runner})
        client.silence(0.1, arrives=True)
        await self.assertFailure(client.start_job(self.worker, a_job()), DeadlineExceeded)
        self.assertEqual(runner.running(), ("j",))


class SilentSimulatedTests(SilentContract, SimulatedCase):
    def setUp(self) -> None:
        super().setUp()
        self.network.cut["there", "here"] = None
        self.worker = a_worker(self.listen(FakeJobRunner()))
        self.client = SimulatedWorkerClient(self.network, self.caller, "nonce")


class SilentRealTests(SilentContract, RpcCase):
    def setUp(self) -> None:
        super().setUp()
        self.worker = a_worker(self.silent_address())
        self.patch(worker_client, "CALLS_PER_WORKER", 8)  # all these calls at once
        self.client = self.worker_client(deadline=0.5)


class HeldFakeTests(Unanswered, RpcCase):
    async def test_held(self) -> None:
        """Held calls reach no worker until the test releases them; later calls are not held."""
        self.worker = a_worker("nowhere:1")
        runner = FakeJobRunner()
        self.client = Workers(reactor, {self.worker.id: runner})
        self.client.hold()
        asked = list(self.asked().values())
        made = [method for method in METHODS if method not in {"answers", "stream_output"}]
        self.assertEqual([call.method for call in self.client.held], ["stream_output", *made])
        self.assertEqual(runner.started, [])
        self.client.take("stream_output").answer.errback(WorkerFault("w", "on fire"))
        self.client.take("probe").answer.callback(None)
        self.assertIsNone(await asked[0])
        await self.assertFailure(self.stream.finished, WorkerFault)
        self.client.release()
        status = await self.client.start_job(self.worker, a_job())
        self.assertEqual((status.state, len(self.client.held)), (JobState.RUNNING, len(made) - 1))


class FailingFakeTests(Unanswered, RpcCase):
    async def test_failing(self) -> None:
        """The double fails as told, and records the requests."""
        self.worker = a_worker("nowhere:1")
        self.client = Workers(reactor)
        for method in METHODS:
            self.client.fail(method, WorkerFault("w", "on fire"))
        for call in self.asked().values():
            await self.assertFailure(call, WorkerFault)
        self.assertEqual(
            [(call.method, call.worker_id, call.job_id) for call in self.client.calls],
            [
                ("stream_output", "w", "j"),
                ("probe", "w", ""),
                ("start_job", "w", "j"),
                ("stop_job", "w", "j"),
                ("signal_job", "w", "j"),
                ("remove_job", "w", "j"),
                ("query_job", "w", "j"),
                ("read_output", "w", "j"),
            ],
        )
        self.assertEqual(self.client.running(), [])
