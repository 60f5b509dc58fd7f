"""A connection to a site in memory, byte by byte, with a clock and a socket buffer that can be full."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from itertools import count
from typing import Any

from attrs import field, frozen
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, IReactorTime, ITransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from werkzeug.routing import Rule
from zope.interface import implementer

from scheduler.api.connection import ApiSite
from scheduler.api.server import make_site
from scheduler.cluster.output.outputs import WINDOW_BYTES
from scheduler.security.authentication import Authentication
from scheduler.views import JobFilter
from tests.doubles.authentication import TRUSTING
from tests.doubles.overridden import Overridden
from tests.doubles.workers import Workers
from tests.fleet import Fleet
from tests.house import House
from tests.unit.api.documents import check_answer, check_problem

HOSTS = ("127.0.0.1", "localhost", "::1")

NOW = 1_700_000_000.0


@frozen
class Response:
    """A response; ``complete`` tells whether its body ended as its headers say."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool
    #: The bytes after the response.
    rest: bytes = b""
    #: The fields after the last chunk.
    trailers: dict[str, str] = field(factory=dict)

    def json(self) -> Any:
        """The body's document."""
        return json.loads(self.body)


def read_response(received: bytes, head: bool = False) -> Response | None:
    """The first response in ``received``; ``None`` while its headers are not all there."""
    top, blank, body = received.partition(b"\r\n\r\n")
    if not blank:
        return None
    first, *lines = top.decode("latin-1").split("\r\n")
    headers = _fields(lines)
    status = int(first.split(" ")[1])
    if status == 100:
        return read_response(body, head)
    if head or status == 204:
        return Response(status, headers, b"", True, body)
    if "content-length" in headers:
        length = int(headers["content-length"])
        return Response(status, headers, body[:length], len(body) >= length, body[length:])
    if headers.get("transfer-encoding") != "chunked":
        return Response(status, headers, body, False)
    data = b""
    while True:
        size, line_end, more = body.partition(b"\r\n")
        if not line_end or len(more) < int(size, 16) + 2:
            return Response(status, headers, data, False, body)
        if int(size, 16) == 0:
            trailers, _, rest = (b"\r\n" + more).partition(b"\r\n\r\n")
            return Response(status, headers, data, True, rest, _fields(trailers.decode("latin-1").split("\r\n")[1:]))
        data, body = data + more[: int(size, 16)], more[int(size, 16) + 2 :]


def _fields(lines: list[str]) -> dict[str, str]:
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


@implementer(ITransport, IConsumer, IPushProducer)
class Socket:
    """The server's side of a connection. With ``room`` set, more than that unread makes it pause its producer."""

    def __init__(self, protocol: Any, host: str, peer: str) -> None:
        """``host`` is the address at which the connection reached the server, ``peer`` the address of the client."""
        self.protocol = protocol
        self.host = host
        self.peer = peer
        self.received = b""
        self.unread = 0
        self.room: int | None = None
        self.connected = True
        self.aborted = self.half_closed = self.reading_paused = False
        self.producer: Any = None

    @property
    def disconnecting(self) -> bool:
        return not self.connected

    def write(self, data: bytes) -> None:
        assert not self.half_closed
        if self.connected:
            self.received += data
            self.unread += len(data)
            if self.room is not None and self.unread > self.room and self.producer is not None:
                self.producer.pauseProducing()

    def writeSequence(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def take(self) -> None:
        """Let the client read everything."""
        self.unread = 0
        if self.producer is not None:
            self.producer.resumeProducing()

    def loseConnection(self) -> None:
        self.lost(Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        self.aborted = True
        self.lost(Failure(ConnectionDone()))

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def lost(self, reason: Failure) -> None:
        """Close the connection."""
        if self.connected:
            self.connected = False
            if self.producer is not None:
                self.producer.stopProducing()
            self.protocol.connectionLost(reason)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.reading_paused = True

    def resumeProducing(self) -> None:
        self.reading_paused = False

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", self.peer, 50001)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", self.host, 3000)


@contextlib.contextmanager
def without_urls() -> Iterator[None]:
    """Make routes without the means to make URLs of them, which nothing uses, and which take most of the time."""
    compiled = Rule._compile_builder
    Rule._compile_builder = lambda *_: lambda *_: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Rule._compile_builder = compiled  # type: ignore[method-assign]


class Stage:
    """A scheduler for the API, with one worker, ``w1``: its jobs have the ids ``job-1``, ``job-2``."""

    def __init__(self, clock: IReactorTime, window: int = WINDOW_BYTES) -> None:
        ids = count(1)
        #: The POSIX time.
        self.now = NOW
        self.house = House(lambda: self.now, workers=Workers(clock), new_id=lambda: f"job-{next(ids)}", window=window)
        self.fleet = Fleet(self.house)
        self.fleet.add_worker(labels={"zone": "a"})
        self.scheduler = Overridden(self.house.parts.service)

    @property
    def parts(self) -> tuple[Overridden, Fleet, House]:
        return self.scheduler, self.fleet, self.house

    def newest(self) -> str:
        """The id of the job that was created last."""
        return self.scheduler.jobs(JobFilter(), 1, None).jobs[0].id


class Server(Stage):
    """A site over such a scheduler, in memory."""

    def __init__(
        self, window: int = WINDOW_BYTES, authentication: Authentication | None = None, **settings: Any
    ) -> None:
        self.clock = Clock()
        super().__init__(self.clock, window)
        with without_urls():
            given, audit = authentication or self.authentication(), self.house.parts.audit
            options = {"authentication": given, "allowed_hosts": HOSTS, "audit": audit, **settings}
            self.site: ApiSite = make_site(self.scheduler, clock=self.clock, wall_time=lambda: self.now, **options)

    def authentication(self) -> Authentication:
        """The authentication of the site."""
        return TRUSTING

    def connect(self, host: str = "127.0.0.1", peer: str = "127.0.0.1") -> Connection:
        """Open a connection from ``peer`` that reaches the server at ``host``."""
        return Connection(self, host, peer)

    def ask(self, method: str, target: str, body: bytes = b"", peer: str = "127.0.0.1", **headers: str) -> Connection:
        """Send a request on a connection of its own."""
        connection = self.connect(peer=peer)
        connection.ask(method, target, body, **headers)
        return connection


class Connection:
    """The client's side of a connection."""

    def __init__(self, server: Server, host: str, peer: str) -> None:
        self._settle = server.house.settle
        self.protocol = server.site.buildProtocol(IPv4Address("TCP", peer, 50001))
        self.socket = Socket(self.protocol, host, peer)
        self.protocol.makeConnection(self.socket)
        # method and target of the first request; empty if that was sent as raw bytes
        self._asked: tuple[str, str] | None = None

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self._asked = self._asked or ("", "")
        if self.socket.connected:
            self.protocol.dataReceived(data)
            self._settle()

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> None:
        """Send a request; ``_`` in a header's name is ``-``."""
        self._asked = self._asked or (method, target)
        fields = {"host": "127.0.0.1:3000", "content-length": str(len(body)), **headers}
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        self.send("\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1") + body)

    def response(self) -> Response:
        """The response so far; its headers must be complete."""
        self._settle()
        found = read_response(self.socket.received, self._head)
        assert found is not None, "no response yet"
        assert self._asked is not None
        if all(self._asked):
            check_answer(*self._asked, found.status, found.headers, found.body)
        elif found.headers.get("content-type") == "application/problem+json" and found.body:
            check_problem(found.json(), found.status)
        return found

    @property
    def _head(self) -> bool:
        return self._asked is not None and self._asked[0] == "HEAD"

    @property
    def answered(self) -> bool:
        """Whether the headers of the response are complete."""
        self._settle()
        return read_response(self.socket.received, self._head) is not None

    def hang_up(self) -> None:
        """Close the connection from the client's side."""
        self.socket.lost(Failure(ConnectionLost()))
        self._settle()
