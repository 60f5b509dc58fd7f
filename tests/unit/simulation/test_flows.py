"""Connections that carry streams: order, flow control, and their ends."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import NotFound, ShuttingDown
from tests.simulation.flows import AHEAD, DEAD_AFTER, HOLD_DEADLINE, Flow
from tests.simulation.network import Caller, CallFailed, Endpoint, Weather
from tests.simulation.process import Process
from tests.unit.simulation.scene import world


class FlowTests(SynchronousTestCase):
    """A client at ``c`` and a server at ``m``, port 1."""

    def setUp(self) -> None:
        self.world = world(0)
        self.network = self.world.network
        self.loop = self.world.loop
        self.network.attach("10.9.0.1", "m")
        self.server = Process(self.loop, "server", self.world.judge.crashed)
        self.client = Process(self.loop, "client", self.world.judge.crashed)
        self.network.listen(1, Endpoint(self.server, "m", "the server"))
        self.taken: list[Any] = []
        self.held: list[Deferred[None]] = []
        self.flows: list[Flow] = []
        self.gone = 0

    def open(self, address: str = "10.9.0.1:1", hold: bool = False, deadline: float | None = None) -> Flow:
        """A flow that the test may hold up."""

        def take(message: Any) -> Deferred[None] | None:
            self.taken.append(message)
            if not hold:
                return None
            self.held.append(Deferred())
            return self.held[-1]

        caller = Caller(self.client, "c", "10.0.0.2")
        flow = Flow(self.network, caller, address, "stream", self.serve, take, deadline)
        self.results: list[Any] = []
        flow.finished.addBoth(self.results.append)
        self.pass_(1.0)
        return flow

    def serve(self, server: Any, flow: Flow) -> None:
        self.assertEqual(server, "the server")
        flow.on_gone = self.count
        self.flows.append(flow)

    def count(self) -> None:
        self.gone += 1

    def pass_(self, seconds: float) -> None:
        """Let this time pass."""
        self.loop.run(self.loop.now + seconds)

    def error(self) -> Exception:
        """The error that the caller received."""
        [result] = self.results
        assert isinstance(result, Failure)
        assert isinstance(result.value, Exception)
        return result.value

    def test_order(self) -> None:
        """Messages arrive in order, though each travels for its own time, and the end arrives last."""
        self.network.calm = Weather(slow=0.5)
        self.open()
        for number in range(20):
            self.flows[0].send(number)
        self.flows[0].finish()
        self.pass_(20.0)
        self.assertEqual((self.taken, self.results), (list(range(20)), [None]))

    def test_room(self) -> None:
        """A server that is ahead waits for the caller."""
        self.open(hold=True)
        flow = self.flows[0]
        rooms: list[bool] = []
        flow.on_room = lambda: rooms.append(flow.room)
        for number in range(AHEAD):
            self.assertTrue(flow.room)
            flow.send(number)
        self.pass_(1.0)
        self.assertEqual((self.taken, flow.room, rooms), ([0], False, []))
        self.held[0].callback(None)
        self.pass_(1.0)
        self.assertEqual((self.taken, flow.room, rooms), ([0, 1], True, [True]))

    def test_held_too_long(self) -> None:
        """A caller that holds the flow up for too long loses it."""
        self.open(hold=True)
        self.flows[0].send(0)
        self.pass_(HOLD_DEADLINE + 1)
        self.assertEqual(str(self.error()), "deadline")

    def test_error(self) -> None:
        """The server's error arrives after the last message."""
        self.open()
        self.flows[0].send(0)
        self.flows[0].fail(NotFound("job", "j"))
        self.pass_(1.0)
        self.assertEqual((self.taken, type(self.error())), ([0], NotFound))

    def test_refused(self) -> None:
        """A caller of a closed port is told; a connection to no machine is given up after a while."""
        self.open("10.9.0.1:2")
        self.assertEqual(str(self.error()), "refused")
        self.open("10.9.0.2:1")
        self.assertEqual(self.results, [])
        self.pass_(DEAD_AFTER)
        self.assertEqual(str(self.error()), "reset")

    def test_server_dies(self) -> None:
        """A process that ends resets its connections."""
        self.open()
        self.server.end()
        self.pass_(1.0)
        self.assertEqual(str(self.error()), "reset")

    def test_server_shuts_down(self) -> None:
        self.open()
        self.network.close("m", 1)
        self.pass_(1.0)
        self.assertIsInstance(self.error(), ShuttingDown)

    def test_client_hangs_up(self) -> None:
        """The server learns of it once, and no further message is taken."""
        flow = self.open()
        self.flows[0].send(0)
        flow.cancel()
        self.pass_(1.0)
        self.assertEqual((self.taken, self.gone, self.results, self.flows[0].room), ([], 1, [], False))

    def test_client_dies(self) -> None:
        """The server learns that the client's process has ended."""
        self.open()
        self.client.end()
        self.pass_(1.0)
        self.assertEqual(self.gone, 1)

    def test_short_cut(self) -> None:
        """Messages are late if the link is cut for a short time."""
        self.open()
        self.network.cut[("m", "c")] = None
        self.flows[0].send(0)
        self.pass_(DEAD_AFTER / 2)
        self.assertEqual(self.taken, [])
        self.network.cut.clear()
        self.pass_(2.0)
        self.assertEqual((self.taken, self.results), ([0], []))

    def test_long_cut(self) -> None:
        """The flow ends on both sides if the link is cut for a long time, even if nothing was sent."""
        self.open()
        self.network.cut[("m", "c")] = None
        self.pass_(3 * DEAD_AFTER)
        self.assertEqual((str(self.error()), self.gone), ("reset", 1))

    def test_bad_weather(self) -> None:
        """A storm resets the flow, and both sides learn of it."""
        self.open()
        self.network.calm = Weather(lost_answers=1.0)
        self.flows[0].send(0)
        self.pass_(1.0)
        self.assertEqual((str(self.error()), self.gone, self.taken), ("reset", 1, []))

    def test_deadline(self) -> None:
        """The deadline ends the flow on both sides."""
        self.open(deadline=5.0)
        self.pass_(6.0)
        self.assertEqual((str(self.error()), self.gone), ("deadline", 1))
        self.assertIsInstance(self.error(), CallFailed)

    def test_frozen_client(self) -> None:
        """A frozen caller takes the messages later, in order."""
        self.open()
        self.client.freeze()
        for number in range(3):
            self.flows[0].send(number)
        self.pass_(5.0)
        self.assertEqual(self.taken, [])
        self.client.thaw()
        self.pass_(1.0)
        self.assertEqual(self.taken, [0, 1, 2])
