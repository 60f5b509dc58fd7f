"""Clients of workers that are unreachable, silent, or replaced by another process."""

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from scheduler.errors import (
    ANOTHER_PROCESS,
    DeadlineExceeded,
    JobNotRunning,
    Misdirected,
    NotFound,
    Unreachable,
    WorkerFault,
)
from scheduler.model import JobState, Stream
from scheduler.rpc import worker_client
from scheduler.rpc.server import GrpcServer
from scheduler.worker_interfaces import IOwnIds
from tests.contract.simulated import SimulatedCase
from tests.contract.worker_clients import MIB, Receiver
from tests.doubles.runner import FakeJobRunner
from tests.doubles.workers import METHODS, Workers
from tests.integration.rpc import ANY_PORT, Heedless, RpcCase, a_job, a_worker, an_identity
from tests.simulation.worker_calls import SimulatedWorkerClient


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

    async def ask_another(self, identity: IOwnIds | None) -> None:
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

    async def at_its_address(self, identity: IOwnIds | None) -> None:
        self.runner = self.client.runners["w"] = FakeJobRunner()
        self.client.identities["w"] = identity


class MisdirectedSimulatedTests(MisdirectedContract, SimulatedCase):
    def setUp(self) -> None:
        super().setUp()
        self.worker = evolve(a_worker("10.0.0.2:1"), nonce="meant")
        self.client = SimulatedWorkerClient(self.network, self.caller, "nonce", chunk=2 * MIB)

    async def at_its_address(self, identity: IOwnIds | None) -> None:
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

    async def at_its_address(self, identity: IOwnIds | None) -> None:
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
