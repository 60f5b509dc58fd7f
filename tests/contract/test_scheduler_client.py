"""The contract of every client of the scheduler, and its failures: over the wire, in memory, and simulated."""

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import globalLogPublisher
from zope.interface import implementer
from zope.interface.verify import verifyObject

from scheduler.errors import (
    Conflict,
    DeadlineExceeded,
    Invalid,
    NotFound,
    Refused,
    SchedulerError,
    StoreFailed,
    Unreachable,
)
from scheduler.interfaces import IMembership
from scheduler.messages import Heartbeat, HeartbeatAnswer, JobReport, JobStatus, Peer, Registered, Registration
from scheduler.model import JobSpec, JobState
from scheduler.worker_interfaces import ISchedulerClient
from tests.contract.simulated import SimulatedCase
from tests.doubles.scheduler_client import FakeSchedulerClient, SilentSchedulerClient, UnreachableSchedulerClient
from tests.integration.rpc import RpcCase, later
from tests.simulation.scheduler_calls import SimulatedSchedulerClient

FACTS = Registration("127.0.0.1:30000", "", "box", {"gpu": "2"}, 0, "boot", "1.0")
ENDED = JobStatus("ended", JobState.FAILED, "exit status 3", 1.0, 2.0, 3, None, 7, 0, "killed", (4, 5), "disk full")
SPEC = JobSpec("sh", ("-c", "x"), labels={"a": "b"}, timeout=0.5)


@implementer(IMembership)
class AsMembership:
    """A scheduler in memory, as its gRPC server sees it."""

    def __init__(self, scheduler: FakeSchedulerClient) -> None:
        self._scheduler = scheduler
        self.peers: list[Peer] = []

    def register(self, registration: Registration, peer: Peer) -> Deferred[Registered]:
        self.peers.append(peer)
        return self._scheduler.register(registration)

    def deregister(self, worker_id: str, nonce: str, peer: Peer) -> Deferred[None]:
        self.peers.append(peer)
        return self._scheduler.deregister(worker_id, nonce)

    def heartbeat(self, heartbeat: Heartbeat, peer: Peer) -> Deferred[HeartbeatAnswer]:
        self.peers.append(peer)
        return self._scheduler.heartbeat(heartbeat)


class Contract:
    """Mixed into an RpcCase that has ``client``, and ``scheduler`` behind it."""

    def test_interface(self) -> None:
        """The client provides its interface, with the right arguments."""
        verifyObject(ISchedulerClient, self.client)

    async def test_register(self) -> None:
        """The scheduler gets the whole registration, and assigns an id and a lease."""
        self.assertEqual(await self.client.register(FACTS), Registered("w1", 30.0))
        self.assertEqual(self.scheduler.calls, [("register", FACTS)])

    async def test_register_again(self) -> None:
        """An earlier id is confirmed."""
        held = Registration("127.0.0.1:30000", worker_id="w-7", boot_id="boot")
        self.assertEqual((await self.client.register(held)).worker_id, "w-7")

    async def test_deregister(self) -> None:
        """A worker that leaves is not known any more, and an unknown one never was."""
        await self.client.register(FACTS)
        self.assertIsNone(await self.client.deregister("w1", ""))
        self.assertEqual(self.scheduler.workers, {})
        error = await self.assertFailure(self.client.deregister("w1", ""), NotFound)
        self.assertEqual((error.kind, error.name), ("worker", "w1"))

    async def test_heartbeat(self) -> None:
        """A heartbeat arrives complete; the answer has the acknowledged and the requested jobs."""
        await self.client.register(FACTS)
        self.scheduler.knows.add("ended")
        heartbeat = Heartbeat(
            "w1",
            "boot",
            ("known", "strange"),
            (JobReport(ENDED),),
            (JobReport(JobStatus("known", JobState.RUNNING, started_at=1.5), SPEC, 1.25),),
            leaving=True,
        )
        self.assertEqual(await self.client.heartbeat(heartbeat), HeartbeatAnswer(30.0, ("ended",), ("strange",)))
        self.assertEqual(self.scheduler.heartbeats, [heartbeat])

    async def test_forgotten(self) -> None:
        """A scheduler answers NotFound to an unknown worker."""
        error = await self.assertFailure(self.client.heartbeat(Heartbeat("w9", "boot")), NotFound)
        self.assertEqual((error.kind, error.name), ("worker", "w9"))

    async def end_scheduler(self) -> None:
        """Replace the scheduler's process by another one."""
        raise NotImplementedError

    async def test_cut(self) -> None:
        """Each cut of a connection is reported; its absence, or a working connection, is not."""
        told: list[Deferred[None]] = []
        self.client.on_cut(lambda: told[-1].callback(None))
        for _ in range(2):
            told.append(Deferred())
            await self.client.register(FACTS)
            await self.assertFailure(self.client.heartbeat(Heartbeat("w9", "boot")), NotFound)
            self.assertFalse(told[-1].called)
            await self.end_scheduler()
            await told[-1]

    async def test_hang_up(self) -> None:
        """Hanging up fails a call in flight, and the next one is answered."""
        await self.client.register(FACTS)
        self.scheduler.holding = True
        beat = self.client.heartbeat(Heartbeat("w1", "boot"))
        self.client.hang_up()
        await self.assertFailure(beat, Unreachable)
        self.scheduler.release()
        await self.client.heartbeat(Heartbeat("w1", "boot"))

    async def test_errors(self) -> None:
        """Errors about a worker arrive as they are."""
        for error in (
            Invalid("name", "is too long"),
            Refused("that address is not yours"),
            Conflict("another worker has that name"),
            StoreFailed("disk full", 3),
        ):
            self.scheduler.failure = error
            told = await self.assertFailure(self.client.register(FACTS), type(error))
            self.assertEqual((str(told), vars(told)), (str(error), vars(error)))


class FakeTests(Contract, RpcCase):
    def setUp(self) -> None:
        super().setUp()
        self.scheduler = self.client = FakeSchedulerClient()

    async def end_scheduler(self) -> None:
        self.client.cut()


class SimulatedTests(Contract, SimulatedCase):
    def setUp(self) -> None:
        super().setUp()
        self.scheduler = FakeSchedulerClient()
        self.membership = AsMembership(self.scheduler)
        self.client = SimulatedSchedulerClient(self.network, lambda: self.caller, self.listen(self.membership))

    async def end_scheduler(self) -> None:
        self.server.end()
        self.listen(self.membership)

    async def test_peer(self) -> None:
        """The scheduler knows the address of the call."""
        await self.client.register(FACTS)
        self.assertEqual(self.membership.peers, [Peer("10.0.0.1")])


class RealTests(Contract, RpcCase):
    def setUp(self) -> None:
        super().setUp()
        self.scheduler = FakeSchedulerClient()
        self.membership = AsMembership(self.scheduler)
        self.server = self.scheduler_server(self.membership)
        self.client = self.scheduler_client(self.server.bound)

    async def end_scheduler(self) -> None:
        address = self.server.bound
        while not self.client.connection.up:  # gRPC reports it a moment after the first answer
            await later(0.01)
        await self.server.stopService()
        self.server = self.scheduler_server(self.membership, address=address)

    async def test_back(self) -> None:
        """A scheduler that was away for long is reached by the first call when it is back; the log has it once."""
        told: list[str] = []

        def note(event: dict[str, Any]) -> None:
            if "calls to the scheduler at {address} fail" in (event.get("log_format") or ""):
                told.append(event["address"])

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        address = self.server.bound
        await self.client.register(FACTS)
        await self.server.stopService()
        for _ in range(12):  # more than double the delays of a channel, up to its longest
            await self.assertFailure(self.client.heartbeat(Heartbeat("w1", "boot")), Unreachable)
            await later(0.1)
        self.server = self.scheduler_server(self.membership, address=address)
        await self.client.heartbeat(Heartbeat("w1", "boot"))
        self.assertEqual(told, [str(address)])

    async def test_own_end(self) -> None:
        """A connection that the worker itself closes is not reported as cut."""
        told: list[None] = []
        self.client.on_cut(lambda: told.append(None))
        await self.client.register(FACTS)
        await self.client.stopService()
        await self.server.stopService()
        self.assertEqual(told, [])

    async def test_peer(self) -> None:
        """The scheduler knows the address of the call."""
        await self.client.register(FACTS)
        self.assertEqual(self.membership.peers, [Peer("127.0.0.1")])

    async def test_bug(self) -> None:
        """A bug in the scheduler is logged there, and its details are not sent."""
        self.scheduler.failure = ZeroDivisionError("secret")
        self.assertNotIn("secret", str(await self.assertFailure(self.client.register(FACTS), SchedulerError)))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class Unanswered:
    """Mixed into an RpcCase whose ``client`` can't reach the scheduler: all of its methods."""

    async def fails(self, *errors: type[SchedulerError]) -> None:
        calls = [
            self.client.register(FACTS),
            self.client.heartbeat(Heartbeat("w", "b")),
            self.client.deregister("w", ""),
        ]
        for error in await gatherResults([self.assertFailure(call, *errors) for call in calls]):
            if isinstance(error, Unreachable):
                self.assertIn("scheduler", str(error))


class UnreachableContract(Unanswered):
    async def test_unreachable(self) -> None:
        """Nothing listens: every call says so at once, with the address."""
        await self.fails(Unreachable)


class UnreachableFakeTests(UnreachableContract, RpcCase):
    def setUp(self) -> None:
        super().setUp()
        self.client = UnreachableSchedulerClient()


class UnreachableSimulatedTests(UnreachableContract, SimulatedCase):
    def setUp(self) -> None:
        super().setUp()
        self.client = SimulatedSchedulerClient(self.network, lambda: self.caller, "10.0.0.2:1")


class UnreachableRealTests(UnreachableContract, RpcCase):
    def setUp(self) -> None:
        super().setUp()
        self.client = self.scheduler_client(self.dead_address())


class SilentContract(Unanswered):
    async def test_silent(self) -> None:
        """No answer comes: every call ends by its deadline with that error, or as unreachable."""
        await self.fails(DeadlineExceeded, Unreachable)


class SilentFakeTests(SilentContract, RpcCase):
    def setUp(self) -> None:
        super().setUp()
        self.client = SilentSchedulerClient(reactor, deadline=0.1)


class SilentSimulatedTests(SilentContract, SimulatedCase):
    def setUp(self) -> None:
        super().setUp()
        self.network.cut["there", "here"] = None
        scheduler = AsMembership(FakeSchedulerClient())
        self.client = SimulatedSchedulerClient(self.network, lambda: self.caller, self.listen(scheduler))


class SilentRealTests(SilentContract, RpcCase):
    def setUp(self) -> None:
        super().setUp()
        self.client = self.scheduler_client(self.silent_address(), deadline=0.5)
