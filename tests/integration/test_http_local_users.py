"""HTTP requests of users of this machine, over real sockets: by TCP over loopback, and by a Unix socket."""

import http.client
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from scheduler.api.connection import Channel
from scheduler.api.local_peers import uid_of
from scheduler.api.server import HttpServer, make_site
from scheduler.api.unix_server import UnixServer
from scheduler.daemon.users import User
from scheduler.limits import MAX_SPARE_CONNECTIONS_PER_ADDRESS, ClientLimits
from scheduler.net import Address
from scheduler.security.authentication import Authentication
from scheduler.security.local_users import LocalUsers
from scheduler.security.socket_owners import SocketOwners
from tests.doubles.authentication import NoTokens
from tests.integration.test_http_sockets import exchange, read_answer, request
from tests.other_user import NOBODY, SKIP, Relay, as_user
from tests.unit.api.conversation import NOW, Response, Stage, read_response

START = json.dumps({"worker_id": "w1", "command": "true", "path": ""}).encode()

#: Headers with which proxies say for whom they ask.
OF_PROXIES = (
    *("Forwarded: for=192.0.2.1", "X-Forwarded-For: 192.0.2.1", "x-forwarded-proto: https", "X-FORWARDED-HOST: a"),
    *("Via: 1.1 front", "X-Real-IP: 192.0.2.1", "X-Forwarded-For:"),
)


class LocalCase(TestCase):
    """A scheduler that knows this process's user, root, and the users of the test."""

    timeout = 60
    allowed_hosts: frozenset[str] | None = None
    limits = ClientLimits()

    def setUp(self) -> None:
        self.scheduler, _, house = Stage(reactor).parts
        self.addCleanup(Deferred.fromCoroutine, house.stop())
        owners = SocketOwners()
        self.addCleanup(owners.close)
        self.scopes: dict[User, str] = {}
        self.lost: list[Channel] = []
        self.folder = Path(tempfile.mkdtemp())
        self.folder.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.folder)
        self.owners = owners
        self.serve()

    def serve(self, **scopes: str) -> None:
        """Begin to serve; ``nobody = "run"`` gives that user a scope."""
        users = {User(NOBODY, name): scope for name, scope in scopes.items()}
        authentication = Authentication(NoTokens(), LocalUsers(users, reactor.seconds))
        self.site = make_site(
            *(self.scheduler, authentication, reactor, lambda: NOW, self.allowed_hosts),
            owner_of=self.owners.owner_of,
            limits=self.limits,
        )
        server = HttpServer(reactor, Address("127.0.0.1", 0), self.site, drain=5.0)
        server.startService()
        self.addCleanup(server.stopService)
        self.path = self.folder / f"{len(os.listdir(self.folder))}.sock"
        self.unix = UnixServer(reactor, self.path, self.site)
        self.unix.startService()
        self.addCleanup(lambda: self.unix.running and self.unix.stopService())
        assert server.bound is not None
        self.port = server.bound.port

    def next_lost(self) -> Deferred[None]:
        lost, fired = self.site.lost, Deferred()

        def noticed(channel: Any) -> None:
            self.site.lost = lost  # type: ignore[method-assign]
            lost(channel)
            fired.callback(None)

        self.site.lost = noticed  # type: ignore[method-assign]
        return fired

    async def ask(self, sent: bytes, by: Callable[[Callable[[], bytes]], bytes] = lambda act: act()) -> Response:
        response = read_response(await deferToThread(by, lambda: exchange(self.port, sent)))
        assert response is not None
        return response

    async def ask_unix(self, sent: bytes, by: Callable[[Callable[[], bytes]], bytes] = lambda act: act()) -> Response:
        def act() -> bytes:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(self.path))
                client.sendall(sent)
                return read_answer(client)

        response = read_response(await deferToThread(by, act))
        assert response is not None
        return response


def as_nobody(act: Callable[[], bytes]) -> bytes:
    return as_user(NOBODY, act)


class RefusedTests(LocalCase):
    async def test_proxy(self) -> None:
        """A request that a proxy of ours passed on is not ours, however the proxy says so; by either way."""
        for header in OF_PROXIES:
            for ask in (self.ask, self.ask_unix):
                answer = await ask(request("GET /v1/jobs", b"", header))
                self.assertEqual((answer.status, answer.json()["type"].rpartition("/")[2]), (401, "unauthenticated"))

    async def test_wrong_token(self) -> None:
        """A token that is not valid is refused, whoever sends it."""
        for ask in (self.ask, self.ask_unix):
            answer = await ask(request("GET /v1/jobs", b"", "Authorization: Bearer sched_x"))
            self.assertEqual(answer.status, 401)

    async def test_hang_up(self) -> None:
        """A client that sends a start and closes or resets at once starts nothing, even if it is root."""
        for ending in (lambda client: client.close(), reset):
            seen = self.next_lost()
            self.site_paused(True)
            client = socket.create_connection(("127.0.0.1", self.port))
            client.sendall(request("POST /start", START))
            ending(client)
            self.site_paused(False)
            await seen
        self.assertEqual(self.scheduler.calls, [])

    def site_paused(self, paused: bool) -> None:
        """Have the server accept no connections for a while, as if the process were busy."""
        for reader in reactor.getReaders():
            if getattr(reader, "factory", None) is self.site and isinstance(reader.getHost(), IPv4Address):
                self.paused = reader
        (self.paused.stopReading if paused else self.paused.startReading)()

    async def test_stranger(self) -> None:
        """Another user is refused, with a text that says how to go on; probes are open to everybody."""
        for ask in (self.ask, self.ask_unix):
            answer = await ask(request("POST /start", START), as_nobody)
            self.assertEqual(answer.status, 401)
            self.assertEqual(answer.headers["www-authenticate"].split()[0], "Bearer")
            for word in (str(NOBODY), "sudo", "local_users"):
                self.assertIn(word, answer.json()["detail"])
            self.assertEqual((await ask(request("GET /healthz"), as_nobody)).status, 200)
        self.assertEqual(self.scheduler.calls, [])

    test_stranger.skip = SKIP  # type: ignore[attr-defined]

    async def test_through_other_user(self) -> None:
        """Requests of root that go through a process of another user are the other user's."""
        relay = Relay(NOBODY, self.port)
        self.addCleanup(relay.stop)
        answer = read_response(await deferToThread(exchange, relay.port, request("GET /v1/jobs")))
        assert answer is not None
        self.assertEqual(answer.status, 401)

    test_through_other_user.skip = SKIP  # type: ignore[attr-defined]

    async def test_scope(self) -> None:
        """A user with the scope ``run`` may list jobs, but not drain a worker."""
        await self.unix.stopService()
        self.serve(ci="run")
        for ask in (self.ask, self.ask_unix):
            self.assertEqual((await ask(request("GET /v1/jobs"), as_nobody)).status, 200)
            answer = await ask(request("POST /v1/workers/w1/drain"), as_nobody)
            self.assertEqual((answer.status, answer.json()["needed_scope"]), (403, "admin"))
            self.assertIn("local:ci", answer.json()["detail"])

    test_scope.skip = SKIP  # type: ignore[attr-defined]

    async def test_next_connection(self) -> None:
        """Nothing is remembered of a port: another user who gets it is looked at anew."""
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            port = client.getsockname()[1]
            client.sendall(request("GET /v1/jobs"))
            self.assertIn(b" 200 ", (await deferToThread(read_answer, client)).split(b"\r\n")[0])
            reset(client)

        def act() -> bytes:
            with socket.socket() as other:
                other.bind(("127.0.0.1", port))
                other.connect(("127.0.0.1", self.port))
                other.sendall(request("GET /v1/jobs"))
                return read_answer(other)

        self.assertIn(b" 401 ", (await deferToThread(as_nobody, act)).split(b"\r\n")[0])

    test_next_connection.skip = SKIP  # type: ignore[attr-defined]


def reset(client: socket.socket) -> None:
    """End a connection by a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, "little") + bytes(4))
    client.close()


class Transport:
    """The transport of a connection."""

    def __init__(self, handle: socket.socket) -> None:
        self._handle = handle

    def getHandle(self) -> socket.socket:
        return self._handle


class LookTests(SynchronousTestCase):
    """The lookup of a single connection."""

    def test_ends_meanwhile(self) -> None:
        """A connection that ends during the lookup has no user: its port may be another's by then."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            for ending in (reset, socket.socket.close, lambda client: client.shutdown(socket.SHUT_WR)):
                client = socket.create_connection(server.getsockname())
                self.addCleanup(client.close)

                def root(*_: object, client: socket.socket = client, ending: Any = ending) -> int:
                    ending(client)
                    return 0

                with server.accept()[0] as accepted:
                    self.assertEqual(uid_of(Transport(accepted), lambda *_: 0), 0)
                    self.assertIsNone(uid_of(Transport(accepted), root))

    def test_not_loopback(self) -> None:
        """No owner is looked up for a connection from elsewhere, nor without a socket."""
        asked: list[object] = []
        with socket.socket() as unconnected:
            self.assertIsNone(uid_of(Transport(unconnected), lambda *ends: asked.append(ends)))
        self.assertIsNone(uid_of(object(), lambda *ends: asked.append(ends)))
        self.assertEqual(asked, [])

    def test_tls(self) -> None:
        """A connection with TLS has no local user: a certificate or a token says who it is."""

        @implementer(ISSLTransport)
        class Tls(Transport):
            pass

        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()),
            server.accept()[0] as accepted,
        ):
            self.assertIsNone(uid_of(Tls(accepted), lambda *_: 0))


class AdmittedTests(LocalCase):
    async def test_own(self) -> None:
        """The process's own user needs no token, on each request of a connection."""

        def twice() -> list[int]:
            client = http.client.HTTPConnection("127.0.0.1", self.port)
            found = []
            for _ in range(2):
                client.request("GET", "/v1/jobs")
                with client.getresponse() as answer:
                    answer.read()
                    found.append(answer.status)
            client.close()
            return found

        self.assertEqual(await deferToThread(twice), [200, 200])
        self.assertEqual((await self.ask_unix(request("GET /v1/jobs"))).status, 200)

    async def test_unlike_proxies(self) -> None:
        """A header that only begins like those of proxies does not matter."""
        for header in ("X-Forward: 1", "Viable: 1", "X-Real: 1", "Forwarded-For: 1"):
            self.assertEqual((await self.ask(request("GET /v1/jobs", b"", header))).status, 200, header)


class CrowdTests(LocalCase):
    limits = ClientLimits(connections_per_address=2)

    async def test_other_user(self) -> None:
        """A user with all the connections that one may have, by either way, takes none from the others."""
        for family, address in ((socket.AF_INET, ("127.0.0.1", self.port)), (socket.AF_UNIX, str(self.path))):
            held: list[socket.socket] = []
            os.seteuid(NOBODY)
            try:
                for _ in range(2 + MAX_SPARE_CONNECTIONS_PER_ADDRESS + 5):
                    held.append(socket.socket(family))
                    held[-1].connect(address)
            finally:
                os.seteuid(0)
            for ask in (self.ask, self.ask_unix):
                self.assertEqual((await ask(request("GET /v1/jobs"))).status, 200)
            self.assertEqual(len(self.site.channels), 2 + MAX_SPARE_CONNECTIONS_PER_ADDRESS)
            for each in held:
                each.close()
            while self.site.channels:
                await self.next_lost()
            self.assertTrue(self.site.connections.idle)

    test_other_user.skip = SKIP  # type: ignore[attr-defined]


class UnixTests(LocalCase):
    allowed_hosts = frozenset({"scheduler.example.com"})

    async def test_foreign_host(self) -> None:
        """Beside the configured hosts, a Unix socket takes the loopback names, and no other."""
        headers = {"localhost": 200, "scheduler.example.com": 200, "evil.example": 403}
        for host, status in headers.items():
            sent = request("GET /v1/jobs").replace(b"Host: localhost", f"Host: {host}".encode())
            self.assertEqual((await self.ask_unix(sent)).status, status, host)
            self.assertEqual((await self.ask(sent)).status, 403 if host == "localhost" else status, host)

    async def test_for_everybody(self) -> None:
        """Everybody may connect; the request decides."""
        self.assertEqual(self.path.stat().st_mode & 0o7777, 0o666)
        self.assertEqual(self.unix.bound, self.path)

    async def test_removed(self) -> None:
        """The socket is removed at the stop, and the path can be used again."""
        await self.unix.stopService()
        self.assertFalse(self.path.exists())
        self.unix.startService()
        self.assertEqual((await self.ask_unix(request("GET /v1/jobs"))).status, 200)

    async def test_replaced(self) -> None:
        """A socket that another process has put there meanwhile is not removed, and the stop ends all the same."""
        self.path.unlink()
        await self.unix.stopService()
        self.unix.startService()
        self.path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(self.path))
            await self.unix.stopService()
            self.assertTrue(self.path.exists())
