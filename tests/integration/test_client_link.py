"""The blocking client and what may be at the other end of its connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from scheduler.client import Client, ConnectionFailed

VERSION = b'HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n{"version": "1.0", "api": "v1" }'
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\nRetry-After: 0\r\n\r\n{}"

#: How a gRPC server greets: no line of it ends.
GRPC = b"\x00\x00\x1e\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x08"


class Scripted:
    """A server that gives each connection the next of its answers, and closes it."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self._answers = answers
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        with self._listening:
            for answer in self._answers:
                connection, _ = self._listening.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)


class LinkTests(SynchronousTestCase):
    """``Client`` and a server that answers as told."""

    def serve(self, *answers: bytes) -> Scripted:
        server = Scripted(answers)
        self.addCleanup(server.thread.join, 20)
        return server

    def test_trouble(self) -> None:
        """Each failure that will be tried again is told, and the first answer after that."""
        told: list[str | None] = []
        with Client(self.serve(b"", BUSY, VERSION).url, on_trouble=told.append) as client:
            self.assertEqual(client.version().version, "1.0")
        self.assertEqual(len(told), 3, told)
        self.assertTrue(told[0])
        self.assertIn("503", told[1] or "")
        self.assertIsNone(told[2])

    def test_no_trouble(self) -> None:
        """Where nothing failed, nothing is told."""
        told: list[str | None] = []
        with Client(self.serve(VERSION).url, on_trouble=told.append) as client:
            client.version()
        self.assertEqual(told, [])

    def test_not_http(self) -> None:
        """What does not speak HTTP is no scheduler: it started nothing, and is not asked again."""
        for greeting in (GRPC, b"SSH-2.0-OpenSSH_9.2\r\n", b"HTT\n"):
            with Client(self.serve(greeting).url) as client, self.assertRaises(ConnectionFailed) as caught:
                client.submit("true", selector={})
            self.assertIs(caught.exception.started, False)
            self.assertIn("does not speak HTTP", str(caught.exception))

    def test_cut_at_once(self) -> None:
        """A beginning of HTTP that was cut may have been a scheduler's: it is asked again."""
        for beginning in (b"", b"HT", b"HTTP/1.1 20"):
            with Client(self.serve(beginning, VERSION).url) as client:
                self.assertEqual(client.version().version, "1.0")
