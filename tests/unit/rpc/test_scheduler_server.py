"""The caller's address in gRPC's form."""

import socket

from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Invalid
from scheduler.rpc.scheduler_server import peer_host


class PeerHostTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """Only the IP address is left, with its interface if it is link-local."""
        for peer, host in (
            ("ipv4:192.0.2.7:50123", "192.0.2.7"),
            ("ipv6:[::1]:50123", "::1"),
            ("ipv6:%5B::1%5D:50123", "::1"),
            ("ipv6:%5Bfe80::1%25eth0%5D:50123", "fe80::1%eth0"),
            (f"ipv6:%5Bfe80::1%25{socket.if_nametoindex('lo')}%5D:50123", "fe80::1%lo"),
            ("ipv6:%5Bfe80::1%2599999%5D:50123", "fe80::1%99999"),
            ("ipv6:%5B::ffff:192.0.2.7%5D:1", "::ffff:192.0.2.7"),
        ):
            self.assertEqual(peer_host(peer), host)

    def test_others(self) -> None:
        """A caller over another transport has no address."""
        for peer in ("unix:/run/x", "unix-abstract:x", "", "nonsense"):
            self.assertRaises(Invalid, peer_host, peer)
