"""Every kind of client of workers, each with a worker: in memory, simulated, and over the wire."""

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from scheduler.errors import SchedulerError
from scheduler.interfaces import IOutputStream
from scheduler.messages import Chunk
from scheduler.model import JobSpec, Stream, Worker
from tests.contract.simulated import SimulatedCase
from tests.doubles.runner import FakeJobRunner
from tests.doubles.workers import Workers
from tests.integration.rpc import RpcCase, a_job, a_worker
from tests.simulation.worker_calls import SimulatedWorkerClient

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


class ClientCase:
    """Mixed into a ``TestCase`` that makes ``client``, and ``runner`` behind ``worker``."""

    client: Any
    runner: FakeJobRunner
    worker: Worker

    async def failure(self, error: type[SchedulerError], call: Deferred) -> SchedulerError:
        return await self.assertFailure(call, error)

    async def started(self, job_id: str = "j", **spec: object) -> None:
        await self.client.start_job(self.worker, a_job(job_id, **spec))

    def follow(self, stream: Stream = Stream.STDOUT, offset: int = 0) -> tuple[IOutputStream, Receiver]:
        receiver = Receiver()
        return self.client.stream_output(self.worker, "j", stream, offset, receiver), receiver


class InMemory(ClientCase, RpcCase):
    """A client in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.runner = FakeJobRunner()
        self.worker = a_worker("nowhere:1")
        self.client = Workers(reactor, {self.worker.id: self.runner})


class AsCoreWorker(FakeJobRunner):
    """Can also be called like a core worker, in the simulation."""

    def core_start(self, spec: JobSpec, known_as: str) -> Deferred[str]:
        return self.start("", spec, None).addCallback(lambda status: status.job_id)


class Simulated(ClientCase, SimulatedCase):
    """A client of the simulated network."""

    def setUp(self) -> None:
        super().setUp()
        self.runner = AsCoreWorker()
        self.worker = a_worker(self.listen(self.runner))
        self.client = SimulatedWorkerClient(self.network, self.caller, "nonce", chunk=2 * MIB)


class OverTheWire(ClientCase, RpcCase):
    """A client over the wire."""

    def setUp(self) -> None:
        super().setUp()
        self.runner = FakeJobRunner()
        self.worker = a_worker(self.worker_server(self.runner).bound)
        self.client = self.worker_client()
