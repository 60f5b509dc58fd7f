"""Connections: large bodies, slow clients, and clients that hang up."""

from twisted.internet.defer import Deferred

from scheduler.api import connection
from scheduler.api.call import BODY_MAX_BYTES
from scheduler.errors import Unreachable
from scheduler.model import JobState
from tests.unit.api.cases import ServerTestCase
from tests.unit.api.conversation import read_response

START = b'{"worker_id": "w1", "command": "echo"}'


class BodyTests(ServerTestCase):
    def test_too_large_by_length(self) -> None:
        """A body whose length is over the limit is refused before any of it has come, and without 100 Continue."""
        client = self.server.connect()
        client.send(
            b"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\nExpect: 100-continue\r\n\r\n"
        )
        self.assertNotIn(b"100 Continue", client.socket.received)
        self.assertEqual((client.response().status, client.response().headers["connection"]), (413, "close"))
        self.assertTrue(client.socket.half_closed)

    def test_lingers(self) -> None:
        """The rest of a refused body is thrown away, up to a limit, so that the client sees the answer."""
        for more, after in (((b"x" * 65536,) * 20, False), ((b"x" * 65536,) * 5000, True)):
            client = self.server.connect()
            client.send(b"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000000\r\n\r\n" + b"x" * 65536)
            for data in more:
                client.send(data)
            self.assertEqual(client.response().status, 413)
            self.assertFalse(client.socket.reading_paused)
            self.assertEqual(client.socket.aborted, after)
        client = self.server.connect()
        client.send(b"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000000\r\n\r\n")
        self.clock.advance(connection.LINGER_MAX_SECONDS)
        self.assertTrue(client.socket.aborted)

    def test_too_large_in_chunks(self) -> None:
        """A body without a length is refused once the limit is passed."""
        client = self.server.connect()
        client.send(b"POST /start HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(BODY_MAX_BYTES // 65536):
            client.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
        self.assertFalse(client.answered)
        client.send(b"1\r\n \r\n")
        self.assertEqual(client.response().status, 413)
        client.send(b"10000\r\n" + b" " * 65536 + b"\r\n0\r\n\r\n")
        self.assertEqual((client.response().complete, client.response().rest), (True, b""))

    def test_too_large_in_one_piece(self) -> None:
        """A body that ends in the same piece of data in which it passes the limit is refused."""
        client = self.server.connect()
        client.send(
            b"POST /start HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n"
            + b" " * 0x200000
            + b"\r\n0\r\n\r\n"
        )
        self.assertEqual((client.response().status, client.response().rest), (413, b""))

    def test_just_not_too_large(self) -> None:
        """A body of exactly the limit is allowed."""
        padded = START + b" " * (BODY_MAX_BYTES - len(START))
        self.assertEqual(self.server.ask("POST", "/start", padded).response().status, 201)

    def test_expect(self) -> None:
        """A client that sends ``Expect`` gets 100 Continue."""
        client = self.server.connect()
        head = (
            f"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(START)}\r\nExpect: 100-continue\r\n\r\n"
        )
        client.send(head.encode())
        self.assertEqual(client.socket.received, b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(START)
        self.assertEqual(client.response().status, 201)


class TimeTests(ServerTestCase):
    def test_slow_headers(self) -> None:
        """Headers that come slowly are cut off at a fixed time."""
        begin = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
        self.check_cut(begin, b"X-A: b\r\n", connection.HEADERS_DEADLINE_SECONDS)

    def test_slow_body(self) -> None:
        """A body that comes slowly is cut off at a fixed time."""
        begin = b"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
        self.check_cut(begin, b" ", connection.BODY_DEADLINE_SECONDS)

    def test_slow_first_line(self) -> None:
        """A request whose first line comes slowly is cut off like one with slow headers."""
        self.check_cut(b"GET /heal", b"x", connection.HEADERS_DEADLINE_SECONDS)
        self.check_cut(b"\r\n", b"", connection.HEADERS_DEADLINE_SECONDS)

    def test_slow_second_request(self) -> None:
        """The second request of a connection is cut off at the same time after its begin."""
        whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        self.check_cut(whole + b"GET /", b"x", connection.HEADERS_DEADLINE_SECONDS)

    def test_slow_chunks(self) -> None:
        """Chunks, sizes of chunks, and trailers that come slowly are cut off at a fixed time."""
        begin = b"POST /start HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        for more, piece in ((b"", b"1\r\n \r\n"), (b"", b"0"), (b"0\r\n", b"A: b\r\n"), (b"fff\r\n", b" ")):
            self.check_cut(begin + more, piece, connection.BODY_DEADLINE_SECONDS)

    def check_cut(self, begin: bytes, piece: bytes, deadline: float) -> None:
        """Send the begin of a request, then a piece each second. The connection is open until the deadline."""
        client = self.server.connect()
        client.send(begin)
        for _ in range(int(deadline)):
            self.assertTrue(client.socket.connected)
            client.send(piece)
            self.clock.advance(1)
        self.assertFalse(client.socket.connected)

    def test_slow_pipelined(self) -> None:
        """A slow request is cut off, too, if it began while another was being answered."""
        self.scheduler.held["submit"] = held = Deferred()
        client = self.server.ask("POST", "/start", START)
        client.send(b"GET /heal")
        self.clock.advance(1000)
        self.assertTrue(client.socket.connected)
        held.callback(None)
        self.clock.advance(connection.HEADERS_DEADLINE_SECONDS)
        self.assertFalse(client.socket.connected)

    def test_idle(self) -> None:
        """An idle connection is closed; a connection that waits for its answer is not."""
        client, waiting = self.server.connect(), self.server.connect()
        job = self.fleet.add_job()
        waiting.ask("GET", f"/v1/jobs/{job.id}?wait=300")
        self.clock.pump([connection.IDLE_MAX_SECONDS / 2] * 3)
        self.assertFalse(client.socket.connected)
        self.assertTrue(waiting.socket.connected)
        self.fleet.end(job.id)
        self.assertEqual(waiting.response().status, 200)
        self.clock.pump([connection.IDLE_MAX_SECONDS / 2] * 3)
        self.assertFalse(waiting.socket.connected)
        self.assertEqual(self.house.timers(), 0)

    def test_reused(self) -> None:
        """Many requests on one connection leave no deadline of an earlier request behind."""
        client = self.server.connect()
        for _ in range(5):
            client.ask("GET", "/healthz")
            self.clock.advance(connection.HEADERS_DEADLINE_SECONDS - 1)
        self.assertTrue(client.socket.connected)
        self.assertEqual(client.socket.received.count(b"HTTP/1.1 200"), 5)


class HangUpTests(ServerTestCase):
    def test_while_waiting(self) -> None:
        """A client that leaves while it waits frees its resources, undoes nothing, and causes no error."""
        job = self.fleet.add_job()
        waiting = self.server.ask("GET", f"/v1/jobs/{job.id}?wait=300")
        self.scheduler.held["submit"] = held = Deferred()
        starting = self.server.ask("POST", "/start", START)
        waiting.hang_up()
        starting.hang_up()
        self.assertTrue(self.house.parts.ledger.idle)
        self.assertIs(self.scheduler.job(job.id).state, JobState.RUNNING)
        self.assertEqual(self.server.site.channels, set())
        self.assertEqual(self.house.timers(), 0)
        held.errback(Unreachable("w1"))  # the start went on without its client

    def test_anywhere_in_a_request(self) -> None:
        """A client that leaves at any byte of a request leaves nothing behind and causes no error in the log."""
        request = b"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 38\r\n\r\n" + START
        for length in range(len(request)):
            client = self.server.connect()
            client.send(request[:length])
            client.hang_up()
        self.assertEqual(self.server.site.channels, set())
        self.assertEqual(self.house.timers(), 0)

    def test_pipelined(self) -> None:
        """Several requests in one piece are answered in order."""
        client = self.server.connect()
        ask = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client.send(ask % b"healthz" + ask % b"nope" + ask % b"readyz")
        statuses, rest = [], client.socket.received
        while (response := read_response(rest)) is not None:
            statuses.append(response.status)
            rest = response.rest
        self.assertEqual(statuses, [200, 404, 200])
