"""The base of the hostile tests of HTTP: connections as bytes, and a server that must stay clean."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from scheduler.api.site import make_site
from scheduler.model import Job
from tests.fakes.scheduler import FakeScheduler
from tests.unit.api.documents import check_problem

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "get")

SUBMISSION: dict[str, Any] = {"worker": "w1", "command": "true"}


class Wire(Protocol):
    """A connection as bytes."""

    def __init__(self) -> None:
        self.received = b""
        self.closed = False
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        """Fires when the condition holds; it is checked whenever something happens here."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append((condition, waiting))
        self._look()
        return waiting

    def holds(self, size: int) -> Deferred[None]:
        """Fires when more than ``size`` bytes have come."""
        return self.until(lambda: len(self.received) > size)

    def problem(self) -> Deferred[None]:
        """Fires when a problem document has come."""
        return self.until(lambda: b"}" in self.received)

    def end(self) -> Deferred[None]:
        """Fires when the connection is closed."""
        return self.until(lambda: self.closed)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._look()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.closed = True
        self._look()

    def _look(self) -> None:
        for entry in list(self._waiting):
            if entry[0]():
                self._waiting.remove(entry)
                entry[1].callback(None)


class Answer:
    """A complete response and its parts."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}


class HostileCase(TestCase):
    """A server with a worker ``w1`` and a job ``job-1`` that runs."""

    timeout = 60

    def setUp(self) -> None:
        self.scheduler = FakeScheduler(reactor)
        self.job: Job = self.scheduler.add_job(output=b"0123456789")
        self.site = make_site(self.scheduler, reactor, lambda: 1_700_000_000.0, ("localhost", "127.0.0.1"))
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.sockets = sockets()

    async def tearDown(self) -> None:
        await self.eventually(lambda: not self.site.channels, "all connections are closed")
        self.assertEqual(self.scheduler.readers(), [])
        self.assertEqual(self.scheduler.waits, 0)
        self.assertEqual(sockets() - self.sockets, set())
        self.assertEqual(self.flushLoggedErrors(), [])

    async def eventually(self, condition: Callable[[], bool], what: str) -> None:
        for _ in range(1000):
            if condition():
                return
            await deferLater(reactor, 0.01)
        self.fail(f"not in time: {what}")

    async def connect(self) -> Wire:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        return await connectProtocol(endpoint, Wire())

    async def send(self, raw: bytes) -> bytes:
        """Send bytes; the answer until the server closes."""
        wire = await self.connect()
        wire.transport.write(raw)
        await wire.end()
        return wire.received

    async def ask(self, method: str, path: str, body: bytes = b"", host: str = "localhost", head: str = "") -> Answer:
        """Send a request; ``head`` are more header lines, each with its CRLF."""
        raw = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{head}"
        if body:
            raw += f"Content-Length: {len(body)}\r\n"
        return Answer(await self.send(f"{raw}\r\n".encode("latin-1") + body))

    async def submit(self, body: Any, path: str = "/v1/jobs") -> Answer:
        return await self.ask("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())

    def assertProblem(self, answer: Answer, status: int, about: object = None) -> dict[str, Any]:
        self.assertEqual(answer.status, status, (about, answer.raw[:500]))
        self.assertEqual(answer.headers["content-type"], "application/problem+json", about)
        self.assertEqual(answer.headers["cache-control"], "no-store", about)
        self.assertEqual(answer.headers["x-content-type-options"], "nosniff", about)
        self.assertNotIn("access-control-allow-origin", answer.headers, about)
        if about is not None and "HEAD" in str(about):
            self.assertEqual(answer.body, b"")
            return {}
        document: dict[str, Any] = json.loads(answer.body)
        check_problem(document, status)
        self.assertTrue(document["title"])
        self.assertNotIn("Traceback", answer.raw.decode())
        return document


def sockets() -> set[str]:
    """The sockets that this process has open."""
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    return {found for found in (os.readlink(link) for link in links if os.path.lexists(link)) if "socket:" in found}
