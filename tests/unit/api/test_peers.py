from __future__ import annotations

import socket
import struct

from twisted.trial.unittest import SynchronousTestCase

from scheduler.api import peers


def tcp_info(repeated: int = 0, probes: int = 0, last_ack: float = 0.0) -> bytes:
    """The kernel's struct, for so many unanswered repetitions and probes, and seconds since the last answer."""
    return struct.pack("=8B13I", 1, 0, repeated, probes, 0, 0, 0, 0, *[0] * 12, int(last_ack * 1000))


class PeerTests(SynchronousTestCase):
    def test_gone(self) -> None:
        """A peer is gone if bytes, or probes of a full window, were repeated in vain for long."""
        self.assertTrue(peers.silent(tcp_info(repeated=9, last_ack=50)))
        self.assertTrue(peers.silent(tcp_info(probes=9, last_ack=500)))

    def test_there(self) -> None:
        """A peer that is silent, reads nothing for a while, or missed little is still there."""
        self.assertFalse(peers.silent(tcp_info(last_ack=3600)))
        self.assertFalse(peers.silent(tcp_info(probes=1, last_ack=110)))
        self.assertFalse(peers.silent(tcp_info(repeated=9, last_ack=10)))

    def test_the_kernel(self) -> None:
        """The fields are at the kernel's places: a fresh connection was last answered some milliseconds ago."""
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            client.sendall(b"x")
            info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
            self.assertEqual((len(info), info[0]), (60, 1))  # TCP_ESTABLISHED
            self.assertFalse(peers.silent(info))
            self.assertLess(struct.unpack("=8B13I", info)[20], 60_000)

    def test_no_socket(self) -> None:
        """A transport without a socket is left alone."""
        peers.keep_alive(object())
        self.assertFalse(peers.gone(object()))
