"""Limits on clients: connections of an address, streams of a principal, bytes of bodies, and failed logins."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from scheduler.errors import Unauthenticated
from scheduler.limits import (
    BODY_FREE_BYTES,
    BODY_MAX_BYTES,
    LOGINS_SECONDS,
    MAX_SPARE_CONNECTIONS_PER_ADDRESS,
    ClientLimits,
)
from scheduler.security.authentication import Authentication
from scheduler.security.principals import Principal, Scope
from tests.doubles.authentication import NoTokens
from tests.unit.api.cases import EVENTS, ServerTestCase, StreamTestCase
from tests.unit.api.conversation import Connection, Response

START = b'{"worker_id": "w1", "command": "echo"}'

PROXY, CLIENT, OTHER = "10.0.0.1", "198.51.100.1", "198.51.100.2"


class ConnectionTests(ServerTestCase):
    def setUp(self) -> None:
        self.begin(limits=ClientLimits(connections_per_address=2), trusted_proxies=(ip_network(PROXY),))

    def refused(self, connection: Connection) -> Response:
        response = connection.response()
        self.assertEqual((response.status, response.json()["type"]), (429, "/problems/too-many-requests"))
        self.assertGreater(int(response.headers["retry-after"]), 0)
        return response

    def test_limit(self) -> None:
        """A connection over the limit of its address is answered with 429 and closed; others are served."""
        first, _ = self.server.connect(peer=CLIENT), self.server.connect(peer=CLIENT)
        third = self.server.ask("GET", "/healthz", peer=CLIENT)
        self.assertEqual(self.refused(third).headers["connection"], "close")
        self.assertFalse(third.socket.connected)
        self.assertEqual(self.server.ask("GET", "/healthz", peer=OTHER).response().status, 200)
        first.hang_up()
        self.assertEqual(self.server.ask("GET", "/healthz", peer=CLIENT).response().status, 200)

    def test_submission(self) -> None:
        """A submission over the limit starts no job, and the answer says so."""
        for _ in range(2):
            self.server.connect(peer=CLIENT)
        response = self.refused(self.server.ask("POST", "/v1/jobs", b"{}", peer=CLIENT))
        self.assertEqual(response.json()["started"], False)
        self.assertEqual(self.scheduler.calls, [])

    def test_far_over(self) -> None:
        """Connections far over the limit are closed without an answer."""
        for _ in range(2 + MAX_SPARE_CONNECTIONS_PER_ADDRESS):
            self.server.connect(peer=CLIENT)
        self.assertIsNone(self.server.site.buildProtocol(IPv4Address("TCP", CLIENT, 9)))
        self.assertIsNone(self.server.site.buildProtocol(IPv6Address("TCP", f"::ffff:{CLIENT}", 9)))
        self.assertIsNotNone(self.server.site.buildProtocol(IPv4Address("TCP", OTHER, 9)))

    def test_networks(self) -> None:
        """The addresses of one IPv6 network of 64 bits count together."""
        self.server.connect(peer="2001:db8::1")
        self.server.connect(peer="2001:db8::2")
        self.refused(self.server.ask("GET", "/healthz", peer="2001:db8::3"))
        self.assertEqual(self.server.ask("GET", "/healthz", peer="2001:db8:0:1::").response().status, 200)

    def test_proxy(self) -> None:
        """A proxy's connections do not count, and each request through it counts for its client until it ends."""
        job = self.fleet.add_job()
        asked = [
            self.server.ask("GET", f"/v1/jobs/{job.id}?wait=300", peer=PROXY, x_forwarded_for=CLIENT) for _ in range(2)
        ]
        over = self.server.ask("GET", "/healthz", peer=PROXY, x_forwarded_for=CLIENT)
        self.refused(over)
        self.assertTrue(over.socket.connected)  # the proxy uses it for others
        over = self.server.ask("GET", "/healthz", peer=PROXY, x_forwarded_for=OTHER)
        self.assertEqual(over.response().status, 200)
        self.assertEqual(self.server.ask("GET", "/healthz", peer=PROXY).response().status, 200)
        asked[0].hang_up()
        again = self.server.ask("GET", "/healthz", peer=PROXY, x_forwarded_for=CLIENT)
        self.assertEqual(again.response().status, 200)
        self.fleet.end(job.id)
        self.assertEqual(asked[1].response().status, 200)

    def test_nothing_left(self) -> None:
        """Nothing is counted once all connections are closed."""
        connections = [self.server.connect(peer=CLIENT) for _ in range(5)]
        connections.append(self.server.ask("GET", "/healthz", peer=PROXY, x_forwarded_for=CLIENT))
        connections.append(self.server.ask("GET", "/%", peer=PROXY, x_forwarded_for=CLIENT))
        for each in connections:
            if each.socket.connected:
                each.hang_up()
        self.assertTrue(self.server.site.connections.idle)


class LogTests(ServerTestCase):
    def test_address(self) -> None:
        """The log has the address that a trusted proxy states, and of others that of the connection."""
        self.begin(trusted_proxies=(ip_network(PROXY),))
        events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        for peer in (PROXY, OTHER):
            self.server.ask("GET", "/healthz", peer=peer, x_forwarded_for=CLIENT)
        self.assertEqual([event["client"] for event in events if "client" in event], [CLIENT, OTHER])


class FollowerTests(StreamTestCase):
    def setUp(self) -> None:
        self.begin(limits=ClientLimits(followers_per_principal=2))

    def test_limit(self) -> None:
        """A principal may have so many streams of any kind, and a stream that ended makes room."""
        job = self.fleet.add_job()
        raw, events = self.follow(job.id), self.events(job.id)
        for over in (
            self.follow(job.id),
            self.events(job.id),
            self.server.ask("POST", "/v1/jobs?follow=1", b'{"worker": "w1", "command": "echo"}'),
            self.server.ask("POST", "/v1/jobs", b'{"worker": "w1", "command": "echo"}', **EVENTS),
        ):
            response = over.response()
            self.assertEqual((response.status, response.json()["type"]), (429, "/problems/too-many-requests"))
            self.assertIn("retry-after", response.headers)
        self.assertEqual(self.scheduler.asked("submit"), [])
        self.assertEqual(self.server.ask("GET", f"/v1/jobs/{job.id}").response().status, 200)
        raw.hang_up()
        again = self.follow(job.id)
        self.assertEqual(again.response().status, 200)
        self.fleet.end(job.id)
        for each in (events, again):
            self.assertTrue(each.response().complete)
        self.assertEqual(self.follow(job.id).response().status, 200)

    def test_refused_streams(self) -> None:
        """Requests for streams that are refused for another reason leave nothing counted."""
        for _ in range(5):
            self.assertEqual(self.follow("nope").response().status, 404)
            self.assertEqual(self.server.ask("POST", "/v1/jobs?follow=1", b"{}").response().status, 400)
        job = self.fleet.add_job()
        for follower in (self.follow(job.id), self.follow(job.id)):
            self.assertEqual(follower.response().status, 200)
            follower.hang_up()


class BodyTests(ServerTestCase):
    def setUp(self) -> None:
        self.begin(limits=ClientLimits(body_bytes=BODY_MAX_BYTES))

    def begin_body(self, size: int, sent: int) -> Connection:
        client = self.server.connect()
        client.send(f"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
        client.send(b" " * sent)
        return client

    def test_limit(self) -> None:
        """When all bodies together are as large as allowed, a further large one is 503, and small ones pass."""
        slow = self.begin_body(BODY_MAX_BYTES, BODY_MAX_BYTES - 1)
        large = self.begin_body(BODY_MAX_BYTES, 50_000)
        response = large.response()
        self.assertEqual((response.status, response.json()["type"]), (503, "/problems/busy"))
        self.assertEqual((response.headers["connection"], response.headers["retry-after"]), ("close", "1"))
        large.send(b" " * 50_000)  # the rest is thrown away
        self.assertEqual(len(large.response().rest), 0)
        small = START + b" " * (BODY_FREE_BYTES - len(START))
        self.assertEqual(self.server.ask("POST", "/start", small).response().status, 201)
        slow.hang_up()
        self.assertEqual(self.server.ask("POST", "/start", START + b" " * 500_000).response().status, 201)
        self.assertEqual(self.server.site.bodies.total, 0)

    def test_chunks(self) -> None:
        """The same holds for a body in chunks."""
        self.begin_body(BODY_MAX_BYTES, BODY_MAX_BYTES - 1)
        client = self.server.connect()
        client.send(b"POST /start HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
        self.assertEqual(client.response().status, 503)

    def test_read(self) -> None:
        """A body counts until it is read, and not while its job starts or is waited for."""
        self.scheduler.held["submit"] = Deferred()
        for _ in range(3):
            self.server.ask("POST", "/start", START + b" " * (BODY_MAX_BYTES - len(START)))
            self.assertEqual(self.server.site.bodies.total, 0)
        self.assertEqual(len(self.scheduler.asked("submit")), 3)

    def test_every_end(self) -> None:
        """Nothing stays counted, whether a request is refused, too large, late, or its client leaves."""
        self.begin_body(50_000, 40_000).hang_up()
        self.begin_body(BODY_MAX_BYTES + 1, 100)
        client = self.server.connect()
        client.send(b"POST /start HTTP/1.1\r\nHost: evil\r\nContent-Length: 50000\r\n\r\n" + b" " * 50_000)
        self.assertEqual(client.response().status, 403)
        self.begin_body(50_000, 40_000)
        self.assertGreater(self.server.site.bodies.total, 0)
        self.clock.advance(1000)
        self.assertEqual(self.server.site.bodies.total, 0)


class Tokens(NoTokens):
    """A single valid token."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def principal(self, token: object) -> Principal:
        self.seen.append(token)
        if token != "good":
            raise Unauthenticated("no such token")
        return Principal("token", "ci", Scope.ADMIN)


class LoginTests(ServerTestCase):
    """Requests with tokens that are not valid."""

    def setUp(self) -> None:
        self.tokens = Tokens()
        authentication = Authentication(self.tokens, self.tokens)
        self.begin(
            authentication=authentication,
            limits=ClientLimits(failed_logins_per_minute=3),
            trusted_proxies=(ip_network(PROXY),),
        )

    def ask(self, token: str = "", path: str = "/v1/workers", **options: str) -> Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return self.server.ask("GET", path, **{"peer": CLIENT, **options, **headers}).response()

    def use_up(self, **options: str) -> None:
        for _ in range(3):
            self.assertEqual(self.ask("bad", **options).status, 401)

    def test_limit(self) -> None:
        """After too many tokens that are not valid none from that address is looked at, until the minute is over."""
        self.use_up()
        self.tokens.seen.clear()
        for token in ("bad", "good"):
            refused = self.ask(token)
            self.assertEqual((refused.status, refused.json()["type"]), (429, "/problems/too-many-requests"))
            self.assertEqual(refused.headers["retry-after"], "60")
        self.assertEqual(self.tokens.seen, [])
        self.assertEqual(self.ask("good", peer=OTHER).status, 200)
        self.clock.advance(LOGINS_SECONDS)
        self.assertEqual(self.ask("good").status, 200)

    def test_without_token(self) -> None:
        """Requests without a token are never counted, and are 401 as ever."""
        for _ in range(10):
            self.assertEqual(self.ask().status, 401)
        self.assertEqual(self.ask("good").status, 200)
        self.use_up()
        self.assertEqual(self.ask().status, 401)

    def test_valid(self) -> None:
        """Valid tokens are never counted."""
        for _ in range(10):
            self.assertEqual(self.ask("good").status, 200)

    def test_open_routes(self) -> None:
        """An open route answers everybody. Tokens that are not valid count there too, so it is no way to try them."""
        for _ in range(5):
            self.assertEqual(self.ask("bad", "/healthz").status, 200)
        self.assertEqual(len(self.tokens.seen), 3)
        self.assertEqual(self.ask("good").status, 429)

    def test_no_route(self) -> None:
        """Paths without a route are no way to try tokens either."""
        for status in (401, 401, 401, 429):
            client = self.server.connect(peer=CLIENT)
            client.send(b"GET /v1/nope HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer bad\r\n\r\n")
            self.assertEqual(client.response().status, status)

    def test_proxy(self) -> None:
        """Clients of a trusted proxy count by their own addresses, and a stranger can't state another's."""
        self.use_up(peer=PROXY, x_forwarded_for=CLIENT)
        self.assertEqual(self.ask("good", peer=PROXY, x_forwarded_for=CLIENT).status, 429)
        self.assertEqual(self.ask("good", peer=PROXY, x_forwarded_for=OTHER).status, 200)
        self.use_up(peer="192.0.2.9", x_forwarded_for=OTHER)
        self.assertEqual(self.ask("good", peer=PROXY, x_forwarded_for=OTHER).status, 200)
        self.assertEqual(self.ask("good", peer="192.0.2.9", x_forwarded_for="192.0.2.10").status, 429)

    def ask_as(self, uid: int, token: str, **headers: str) -> int:
        """The status of the answer to a user of this machine."""
        connection = self.server.connect()
        connection.protocol.uid = uid
        connection.ask("GET", "/v1/workers", authorization=f"Bearer {token}", **headers)
        return connection.response().status

    def test_bodies(self) -> None:
        """A large body is not received without a valid token, however it comes; the answer is 401 at once."""
        for length in ("Content-Length: 100000", "Transfer-Encoding: chunked"):
            for token, is_held in (("", False), ("bad", False), ("good", True)):
                client = self.server.connect(peer=OTHER)
                head = f"POST /start HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n{length}\r\n"
                client.send(f"{head}{f'Authorization: Bearer {token}' if token else 'A: b'}\r\n\r\n".encode())
                self.assertEqual(b"100 Continue" in client.socket.received, is_held)
                client.send((b"" if length.startswith("C") else b"c350\r\n") + b" " * 50_000)
                self.assertEqual(self.server.site.bodies.total > 0, is_held)
                if not is_held:
                    response = client.response()
                    self.assertEqual((response.status, response.headers["connection"]), (401, "close"))
                client.hang_up()
                self.assertEqual(self.server.site.bodies.total, 0)

    def test_local_users(self) -> None:
        """A user of this machine uses up only the own attempts, also by requests that claim to come from elsewhere."""
        for claims in ({}, {"x_forwarded_for": OTHER}):
            for status in (401, 401, 401, 429):
                self.assertEqual(self.ask_as(7, "bad", **claims), status)
            self.assertEqual(self.ask_as(8, "good", **claims), 200)
            self.assertEqual(self.ask("good", peer="127.0.0.1", **claims).status, 200)
            self.clock.advance(LOGINS_SECONDS)
