"""The connection of a channel: cuts that this side did not cause are noticed."""

import grpc
from grpc import ChannelConnectivity
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.rpc.channel import IDLE_TIMEOUT_SECONDS, Connection

IDLE, CONNECTING, READY, FAILURE, SHUTDOWN = (
    ChannelConnectivity.IDLE,
    ChannelConnectivity.CONNECTING,
    ChannelConnectivity.READY,
    ChannelConnectivity.TRANSIENT_FAILURE,
    ChannelConnectivity.SHUTDOWN,
)


class ConnectionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.cuts = 0
        self.connection = Connection(self.cut, self.clock.seconds)

    def cut(self) -> None:
        self.cuts += 1

    def see(self, *states: ChannelConnectivity) -> int:
        """Pass the states on, and return the number of reported cuts."""
        for state in states:
            self.connection.changed_thd(state)
        return self.cuts

    def test_cut(self) -> None:
        """A connection that is lost is reported as cut, once, whatever state follows."""
        self.assertEqual(self.see(IDLE, CONNECTING, READY), 0)
        self.assertEqual(self.see(IDLE), 1)
        self.assertEqual(self.see(CONNECTING, FAILURE, CONNECTING, FAILURE, IDLE), 1)
        self.assertEqual(self.see(CONNECTING, READY, FAILURE), 2)

    def test_never_there(self) -> None:
        """A connection that could not be made was not cut."""
        self.assertEqual(self.see(IDLE, CONNECTING, FAILURE, CONNECTING, IDLE, FAILURE), 0)

    def test_idle(self) -> None:
        """A connection without calls for long is closed by this side. A call in between prevents that."""
        self.see(CONNECTING, READY)
        self.clock.advance(IDLE_TIMEOUT_SECONDS)
        self.assertEqual(self.see(IDLE), 0)
        self.connection.used()
        self.see(CONNECTING, READY)
        self.clock.advance(IDLE_TIMEOUT_SECONDS - 5)
        self.connection.used()
        self.clock.advance(IDLE_TIMEOUT_SECONDS - 5)
        self.assertEqual(self.see(IDLE), 1)

    def test_closed(self) -> None:
        """A connection that this side closes is not reported."""
        self.see(CONNECTING, READY)
        channel = grpc.insecure_channel("127.0.0.1:1")
        channel.subscribe(self.connection.changed_thd)
        self.connection.close_thd(channel)
        self.assertRaises(ValueError, channel.unary_unary("/a/b"), b"")
        self.assertEqual(self.see(READY, SHUTDOWN), 0)
