"""The owners of connections, as the kernel of this machine tells them."""

import os
import socket
import struct
import threading

from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from scheduler.security.socket_owners import SocketOwners, is_established
from tests.other_user import NOBODY, SKIP, as_user

#: Family and host of the client, and of the server.
ROUTES = (
    (socket.AF_INET, "127.0.0.1", socket.AF_INET, "127.0.0.1"),
    (socket.AF_INET, "127.0.0.7", socket.AF_INET, "0.0.0.0"),
    (socket.AF_INET6, "::1", socket.AF_INET6, "::1"),
    # by IPv4 from a socket of IPv6, to such a socket, and both: gRPC's are of IPv6
    (socket.AF_INET6, "::ffff:127.0.0.1", socket.AF_INET, "127.0.0.1"),
    (socket.AF_INET, "127.0.0.1", socket.AF_INET6, "::"),
    (socket.AF_INET6, "::ffff:127.0.0.1", socket.AF_INET6, "::"),
)


class OwnersCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.owners = SocketOwners()
        self.addCleanup(self.owners.close)

    def listen(self, family: int = socket.AF_INET, host: str = "127.0.0.1") -> socket.socket:
        server = socket.socket(family)
        self.addCleanup(server.close)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind((host, 0))
        server.listen()
        return server

    def connect(self, server: socket.socket, family: int = socket.AF_INET, host: str = "127.0.0.1") -> socket.socket:
        client = socket.socket(family)
        self.addCleanup(client.close)
        client.connect((host, server.getsockname()[1]))
        return client

    def accept(self, server: socket.socket) -> socket.socket:
        accepted, _ = server.accept()
        self.addCleanup(accepted.close)
        return accepted

    def owner(self, accepted: socket.socket) -> int | None:
        return self.owners.owner_of(accepted.getsockname()[:2], accepted.getpeername()[:2])


class NobodyTests(OwnersCase):
    """Connections that identify no user."""

    def pair(self) -> tuple[socket.socket, socket.socket]:
        server = self.listen()
        return self.connect(server), self.accept(server)

    def test_hung_up(self) -> None:
        """A peer that writes and closes at once is not root."""
        server = self.listen()
        client = self.connect(server)
        client.sendall(b"POST /start")
        client.close()
        accepted = self.accept(server)
        self.assertIsNone(self.owner(accepted))
        self.assertFalse(is_established(accepted))
        self.assertEqual(accepted.recv(100), b"POST /start")

    def test_reset(self) -> None:
        """A peer that writes and resets the connection is nobody, although what it wrote can still be read."""
        client, accepted = self.pair()
        local, peer = accepted.getsockname(), accepted.getpeername()
        client.sendall(b"POST /start")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        self.assertIsNone(self.owners.owner_of(local, peer))
        self.assertFalse(is_established(accepted))

    def test_half_closed(self) -> None:
        """A peer that closed its sending half identifies nobody, though a process still has the socket."""
        client, accepted = self.pair()
        client.shutdown(socket.SHUT_WR)
        self.assertIsNone(self.owner(accepted))

    def test_time_wait(self) -> None:
        """A connection that both ends have closed identifies nobody, at either end."""
        client, accepted = self.pair()
        local, peer = accepted.getsockname(), accepted.getpeername()
        client.close()
        accepted.close()
        self.assertIsNone(self.owners.owner_of(local, peer))
        self.assertIsNone(self.owners.owner_of(peer, local))

    def test_listener(self) -> None:
        """A socket that listens at the peer's address, where no connection is, is not taken for the peer."""
        server = self.listen()
        self.assertIsNone(self.owners.owner_of(("127.0.0.1", 9), server.getsockname()))

    def test_not_accepted(self) -> None:
        """A socket that waits to be accepted is connected, but no process has it."""
        client = self.connect(self.listen())
        self.assertIsNone(self.owner(client))

    def test_port_of_another(self) -> None:
        """A connection of the port's present owner to elsewhere tells nothing: all of both addresses count."""
        server, elsewhere = self.listen(), self.listen()
        client = self.connect(elsewhere)
        self.assertIsNone(self.owners.owner_of(server.getsockname(), client.getsockname()))
        self.assertIsNotNone(self.owners.owner_of(elsewhere.getsockname(), client.getsockname()))

    def test_reused(self) -> None:
        """A port that another connection has by now shows that one's owner, but our end is no longer connected."""
        server = self.listen()
        client = self.connect(server)
        port = client.getsockname()
        accepted = self.accept(server)
        local, peer = accepted.getsockname(), accepted.getpeername()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        later = socket.socket()
        self.addCleanup(later.close)
        later.bind(port)
        later.connect(server.getsockname())
        self.assertEqual(self.owners.owner_of(local, peer), os.geteuid())
        self.assertFalse(is_established(accepted))

    def test_no_addresses(self) -> None:
        """Names, two families, and ports that there are not identify nobody."""
        for local, peer in (
            (("localhost", 1), ("127.0.0.1", 1)),
            (("127.0.0.1", 1), ("::1", 1)),
            (("127.0.0.1", 1), ("127.0.0.1", 70_000)),
            (("", 1), ("", 1)),
        ):
            self.assertIsNone(self.owners.owner_of(local, peer))


class OwnerTests(OwnersCase):
    """Connections with an owner."""

    def test_own(self) -> None:
        """Each way over loopback identifies the peer's user, at both ends."""
        for family, host, of_server, at in ROUTES:
            server = self.listen(of_server, at)
            client, accepted = self.connect(server, family, host), self.accept(server)
            self.assertEqual(self.owner(accepted), os.geteuid(), (host, at))
            self.assertEqual(self.owner(client), os.geteuid(), (host, at))
            self.assertTrue(is_established(accepted))

    def test_other_user(self) -> None:
        """A connection of another user is that user's, also beside one of ours."""
        for family, host, of_server, at in ROUTES:
            server = self.listen(of_server, at)
            port, found = server.getsockname()[1], []

            def act(family: int = family, host: str = host, port: int = port) -> bytes:
                with socket.socket(family) as client:
                    client.connect((host, port))
                    return client.recv(10)

            def look(server: socket.socket = server, found: list[int | None] = found) -> None:
                accepted, _ = server.accept()
                with accepted:
                    found.append(self.owner(accepted))
                    accepted.sendall(b"seen")

            looking = threading.Thread(target=look)
            looking.start()
            self.assertEqual(as_user(NOBODY, act), b"seen")
            looking.join()
            self.assertEqual(found, [NOBODY], (host, at))

    test_other_user.skip = SKIP  # type: ignore[attr-defined]

    def test_server_closed_its_half(self) -> None:
        """A peer in CLOSE_WAIT, which was told that no more comes, still identifies its owner."""
        server = self.listen()
        self.connect(server)
        accepted = self.accept(server)
        accepted.shutdown(socket.SHUT_WR)
        self.assertEqual(self.owner(accepted), os.geteuid())

    def test_threads(self) -> None:
        """Threads that ask at the same time each get the answer to their own question."""
        server, wrong = self.listen(), []
        clients = [self.connect(server) for _ in range(8)]
        accepted = [self.accept(server) for _ in clients]
        for client in clients[::2]:
            client.close()
        expected = {each.getpeername(): None for each in accepted} | {
            client.getsockname(): os.geteuid() for client in clients[1::2]
        }

        def ask(each: socket.socket) -> None:
            wrong.extend(1 for _ in range(300) if self.owner(each) != expected[each.getpeername()])

        threads = [threading.Thread(target=ask, args=(each,)) for each in accepted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])

    def test_closed_between(self) -> None:
        """A further question after ``close`` is answered, too."""
        server = self.listen()
        self.connect(server)
        accepted = self.accept(server)
        self.owners.close()
        self.assertEqual(self.owner(accepted), os.geteuid())


class UnableTests(OwnersCase):
    """A kernel that can't tell."""

    def test_no_netlink(self) -> None:
        """Without sockets of AF_NETLINK nobody is identified, and the log says so once."""
        logged = self.unable(OSError(97, "Address family not supported by protocol"))
        self.assertEqual(len(logged), 1)
        self.assertIn("AF_NETLINK", logged[0])

    def test_not_permitted(self) -> None:
        self.assertEqual(len(self.unable(PermissionError(1, "Operation not permitted"))), 1)

    def unable(self, error: OSError) -> list[str]:
        """The lines logged by three questions of a process that may open no socket."""
        server = self.listen()
        self.connect(server)
        accepted = self.accept(server)
        owners = SocketOwners(open_netlink=lambda: self.raised(error))
        lines: list[str] = []

        def observe(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        for _ in range(3):
            self.assertIsNone(owners.owner_of(accepted.getsockname(), accepted.getpeername()))
        return lines

    @staticmethod
    def raised(error: OSError) -> socket.socket:
        raise error
