"""The blocking client with different servers at the other end of its connection."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading

from twisted.trial.unittest import SynchronousTestCase

from scheduler.client import Client, ConnectionFailed
from tests.canned import CannedServer

VERSION = b'HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n{"version": "1.0", "api": "v1" }'

#: The first bytes of a gRPC server, without a line end.
GRPC = b"\x00\x00\x1e\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x08"


class LinkTests(SynchronousTestCase):
    """``Client`` and a server with given answers."""

    def serve(self, *answers: bytes) -> CannedServer:
        following = iter(answers)
        server = CannedServer(lambda _: next(following))
        self.addCleanup(server.close)
        return server

    def test_no_trouble(self) -> None:
        """Without a failure nothing is reported."""
        told: list[str | None] = []
        with Client(self.serve(VERSION).url, on_trouble=told.append) as client:
            client.version()
        self.assertEqual(told, [])

    def test_not_http(self) -> None:
        """A server of another protocol is no scheduler: nothing was started. Other garbage may have passed one."""
        for greeting, started in (
            (GRPC, False),
            (b"SSH-2.0-OpenSSH_9.2\r\n", False),
            (b"\x15\x03\x01\x00\x02\x02\x46", False),
            (b"HTT\n", "unknown"),
            (b"\xff\x00 HTTP/1.1 201 Created\r\n", "unknown"),
        ):
            with Client(self.serve(greeting).url) as client, self.assertRaises(ConnectionFailed) as caught:
                client.submit("true", selector={})
            self.assertEqual(caught.exception.started, started)
            self.assertIn("does not speak HTTP", str(caught.exception))

    def test_closed(self) -> None:
        """A closed client sends nothing, and says so at once."""
        client = Client("http://127.0.0.1:9")
        client.close()
        with self.assertRaisesRegex(ConnectionFailed, "the client was closed") as caught:
            client.submit("true", selector={})
        self.assertIs(caught.exception.started, False)

    def test_forked(self) -> None:
        """A forked child uses no connection of its parent: both would read each other's answers."""
        listening = socket.create_server(("127.0.0.1", 0))
        connections: list[socket.socket] = []

        def serve() -> None:
            for _ in range(2):
                connections.append(listening.accept()[0])
                connections[-1].recv(65536)
                connections[-1].sendall(VERSION)

        server = threading.Thread(target=serve)
        server.start()
        with listening, Client(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=1.0) as client:
            client.version()
            child = os.fork()
            if not child:
                with contextlib.suppress(BaseException):
                    client.version()
                os._exit(0)
            os.waitpid(child, 0)
            server.join(20)
            self.assertEqual(select.select(connections[:1], [], [], 0)[0], [], "the child asked there, too")
        for each in connections:
            each.close()

    def test_cut_at_once(self) -> None:
        """An answer that was cut in its first bytes may have been a scheduler's: the request is repeated."""
        for beginning in (b"", b"HT", b"HTTP/1.1 20"):
            with Client(self.serve(beginning, VERSION).url) as client:
                self.assertEqual(client.version().version, "1.0")
