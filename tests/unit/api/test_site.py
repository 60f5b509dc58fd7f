"""The server around the routes: limits, the guard on everything, request ids, the log, the way out."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from scheduler.api import site
from scheduler.api.request import BODY_MAX_BYTES
from scheduler.cluster.saving import UNSAVED_MAX_SECONDS
from scheduler.daemon import logs
from scheduler.model import JobState
from tests.unit.api.conversation import Server, read_response
from tests.unit.api.documents import check_problem

START = b'{"worker_id": "w1", "command": "echo"}'


class SiteTestCase(SynchronousTestCase):
    """A server in memory."""

    def setUp(self) -> None:
        self.server = Server()
        self.scheduler, self.fleet, self.house = self.server.parts
        self.clock = self.server.clock

    def logged(self) -> list[dict[str, Any]]:
        """Events of the log from now on."""
        found: list[dict[str, Any]] = []
        observer: Callable[[dict[str, Any]], None] = found.append
        globalLogPublisher.addObserver(observer)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        return found


class BodyTests(SiteTestCase):
    """How much may come in."""

    def test_too_large_by_length(self) -> None:
        """A body whose length is over the limit is refused before any of it has come, and is not asked for."""
        client = self.server.connect()
        client.send(
            b"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\nExpect: 100-continue\r\n\r\n"
        )
        self.assertNotIn(b"100 Continue", client.socket.received)
        self.assertEqual((client.response().status, client.response().headers["connection"]), (413, "close"))
        self.assertTrue(client.socket.half_closed)

    def test_lingers(self) -> None:
        """What is still being sent is thrown away, so that the answer is seen; but not for ever."""
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
        self.clock.advance(site.LINGER_MAX_SECONDS)
        self.assertTrue(client.socket.aborted)

    def test_too_large_in_chunks(self) -> None:
        """Without a length it is refused once the limit is passed."""
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
        """The same when the end comes in the same piece of data."""
        client = self.server.connect()
        client.send(
            b"POST /start HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n"
            + b" " * 0x200000
            + b"\r\n0\r\n\r\n"
        )
        self.assertEqual((client.response().status, client.response().rest), (413, b""))

    def test_just_not_too_large(self) -> None:
        """The limit itself is allowed."""
        padded = START + b" " * (BODY_MAX_BYTES - len(START))
        self.assertEqual(self.server.ask("POST", "/start", padded).response().status, 201)

    def test_expect(self) -> None:
        """A client that asks first is told to go on."""
        client = self.server.connect()
        head = (
            f"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(START)}\r\nExpect: 100-continue\r\n\r\n"
        )
        client.send(head.encode())
        self.assertEqual(client.socket.received, b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(START)
        self.assertEqual(client.response().status, 201)


class TimeTests(SiteTestCase):
    """How slowly it may come in."""

    def test_slow_headers(self) -> None:
        """Headers that drip in are cut off at a fixed time."""
        client = self.server.connect()
        client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        for _ in range(int(site.HEADERS_DEADLINE_SECONDS)):
            self.assertTrue(client.socket.connected)
            client.send(b"X-A: b\r\n")
            self.clock.advance(1)
        self.assertFalse(client.socket.connected)

    def test_slow_body(self) -> None:
        """So is a body."""
        client = self.server.connect()
        client.send(b"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(int(site.BODY_DEADLINE_SECONDS)):
            self.assertTrue(client.socket.connected)
            client.send(b" ")
            self.clock.advance(1)
        self.assertFalse(client.socket.connected)

    def test_slow_pipelined(self) -> None:
        """So is a request that began to come while another was being answered."""
        self.scheduler.held["submit"] = held = Deferred()
        client = self.server.ask("POST", "/start", START)
        client.send(b"GET /heal")
        self.clock.advance(1000)
        self.assertTrue(client.socket.connected)
        held.callback(None)
        self.clock.advance(site.HEADERS_DEADLINE_SECONDS)
        self.assertFalse(client.socket.connected)

    def test_idle(self) -> None:
        """A connection that says nothing is closed, one that waits for its answer is not."""
        client, waiting = self.server.connect(), self.server.connect()
        job = self.fleet.add_job()
        waiting.ask("GET", f"/v1/jobs/{job.id}?wait=300")
        self.clock.pump([site.IDLE_MAX_SECONDS / 2] * 3)
        self.assertFalse(client.socket.connected)
        self.assertTrue(waiting.socket.connected)
        self.fleet.end(job.id)
        self.assertEqual(waiting.response().status, 200)
        self.clock.pump([site.IDLE_MAX_SECONDS / 2] * 3)
        self.assertFalse(waiting.socket.connected)
        self.assertEqual(self.house.timers(), 0)

    def test_reused(self) -> None:
        """Many requests on one connection leave no deadline of an earlier one behind."""
        client = self.server.connect()
        for _ in range(5):
            client.ask("GET", "/healthz")
            self.clock.advance(site.HEADERS_DEADLINE_SECONDS - 1)
        self.assertTrue(client.socket.connected)
        self.assertEqual(client.socket.received.count(b"HTTP/1.1 200"), 5)


class ConnectionTests(SiteTestCase):
    """How many."""

    def test_limit(self) -> None:
        """Over the limit a connection is told so and closed; when one is gone there is room again."""
        server = Server(max_connections=2)
        first, second = server.connect(), server.connect()
        third = server.ask("GET", "/healthz")
        response = third.response()
        self.assertEqual((response.status, response.headers["connection"]), (503, "close"))
        self.assertEqual(
            (response.headers["retry-after"], response.json()["detail"]), ("1", "connections: all 2 in use")
        )
        self.assertFalse(third.socket.connected)
        first.hang_up()
        self.assertEqual(server.ask("GET", "/healthz").response().status, 200)
        second.ask("GET", "/healthz")
        self.assertEqual(second.response().status, 200)

    def test_far_over_the_limit(self) -> None:
        """When too many are being told so, no more are taken."""
        server = Server(max_connections=2)
        for _ in range(2 + site.MAX_SPARE_CONNECTIONS):
            server.connect()
        self.assertIsNone(server.site.buildProtocol(None))

    def test_http_1_only(self) -> None:
        """Nothing else is negotiated."""
        self.assertEqual(self.server.site.acceptableProtocols(), [b"http/1.1"])


class GuardTests(SiteTestCase):
    """No way around the guard."""

    TARGETS = ("/start", "/v1/jobs", "/v1/jobs/j/output", "/v1/workers/w1", "/healthz", "/nope", "/", "//", "*", "x")

    def test_everywhere(self) -> None:
        """Every method of every path is guarded, those included that do not exist."""
        for target in self.TARGETS:
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "FOO"):
                for headers in (
                    {"origin": "http://evil.example"},
                    {"origin": "null"},
                    {"sec-fetch-site": "cross-site"},
                    {"host": "evil.example"},
                ):
                    response = self.server.ask(method, target, **headers).response()
                    self.assertEqual(response.status, 403, (method, target, headers))
                    self.assertNotIn("access-control-allow-origin", response.headers)
        self.assertEqual(self.scheduler.asked("submit"), [])

    def test_default_hosts(self) -> None:
        """Unless configured, the address at which a connection reached the server is allowed on it, and no other."""
        self.server = Server(allowed_hosts=None)
        for reached, host, status in (
            ("10.0.0.7", "10.0.0.7:3000", 200),
            ("10.0.0.7", "localhost", 200),
            ("127.0.0.1", "10.0.0.7:3000", 403),
            ("10.0.0.7", "box.example", 403),
        ):
            client = self.server.connect(reached)
            client.ask("GET", "/healthz", host=host)
            self.assertEqual(client.response().status, status, (reached, host))

    def test_headers_everywhere(self) -> None:
        """Every answer forbids caching and guessing, and is a problem document if it is an error."""
        for target in self.TARGETS:
            for method in ("GET", "POST", "OPTIONS"):
                response = self.server.ask(method, target).response()
                self.assertEqual(response.headers["cache-control"], "no-store")
                self.assertEqual(response.headers["x-content-type-options"], "nosniff")
                if response.status >= 400:
                    self.assertEqual(response.headers["content-type"], "application/problem+json")
                    self.assertEqual(response.json()["status"], response.status)
                    check_problem(response.json(), response.status, method, target)

    def test_targets(self) -> None:
        """A target that is no path, or no UTF-8, is a mistake."""
        for target in ("*", "http://localhost/healthz", "localhost:80", "/v1/jobs/%ff", "/%c3"):
            self.assertEqual(self.server.ask("GET", target).response().status, 400, target)
            self.assertEqual(self.server.ask("OPTIONS", target).response().status, 400, target)

    def test_traversal(self) -> None:
        """Encoded slashes, dots and NULs in a path name nothing."""
        for target in ("/v1/jobs/..%2f..%2fetc", "/v1/jobs/%00", "/v1/jobs/%0a", "/v1/workers/%00", "//v1/jobs"):
            self.assertEqual(self.server.ask("GET", target).response().status, 404, target)


class RequestIdTests(SiteTestCase):
    """What ties lines of logs together."""

    def test_given(self) -> None:
        """A client's id is kept, on the answer and for whatever is called."""
        seen: list[str] = []
        self.patch(self.scheduler, "worker", lambda _: seen.append(logs.REQUEST_ID.get()))
        client = self.server.ask("GET", "/v1/workers/w1", x_request_id="abc.1-_")
        self.flushLoggedErrors(AttributeError)
        self.assertEqual(client.response().headers["x-request-id"], "abc.1-_")
        self.assertEqual(seen, ["abc.1-_"])
        self.assertEqual(logs.REQUEST_ID.get(), "")

    def test_kept_over_waiting(self) -> None:
        """It is still there after an answer was waited for."""
        seen: list[str] = []
        self.scheduler.held["submit"] = held = Deferred()
        self.scheduler.held["submit"].addCallback(lambda _: seen.append(logs.REQUEST_ID.get()))
        self.patch(self.scheduler, "wait_for_attempts", lambda *_: seen.append(logs.REQUEST_ID.get()))
        self.server.ask("POST", "/v1/jobs?wait=1", b'{"worker": "w1", "command": "a"}', x_request_id="abc")
        held.callback(None)
        self.flushLoggedErrors(TypeError)
        self.assertEqual(seen[-1], "abc")

    def test_made(self) -> None:
        """Without one, or with one that would not do in a log, an id is made."""
        made = set()
        for given in ("", "a b", "a" * 65, "\xe4"):
            made.add(self.server.ask("GET", "/healthz", x_request_id=given).response().headers["x-request-id"])
        self.assertEqual(len(made), 4)
        for request_id in made:
            self.assertRegex(request_id, "^[0-9a-f]{32}$")

    def test_log(self) -> None:
        """Each request is one line, with its fields named; one that was cut says so."""
        events = self.logged()
        self.server.ask("GET", "/healthz?", x_request_id="a")
        job = self.fleet.add_job(b"some")
        client = self.server.ask("GET", f"/v1/jobs/{job.id}/output?follow=1", x_request_id="b")
        self.clock.advance(2.00034)
        client.hang_up()
        lines = [event for event in events if "request_id" in event]
        names = ("client", "method", "path", "status", "bytes", "ms", "aborted", "request_id")
        self.assertEqual(
            [tuple(line[name] for name in names) for line in lines],
            [
                ("127.0.0.1", "GET", "/healthz", 200, 15, 0, False, "a"),
                ("127.0.0.1", "GET", f"/v1/jobs/{job.id}/output", 200, 4, 2000.3, True, "b"),
            ],
        )
        self.assertEqual(formatEvent(lines[1]), f"127.0.0.1 GET /v1/jobs/{job.id}/output 200 4 B 2000.3 ms cut")


class BugTests(SiteTestCase):
    """When it is our fault."""

    def test_incident(self) -> None:
        """The client gets an id and nothing else, the log the traceback; the server goes on."""
        self.scheduler.fail["workers"] = RuntimeError("secret")
        response = self.server.ask("GET", "/v1/workers").response()
        self.assertEqual(response.status, 500)
        self.assertNotIn(b"secret", response.body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.server.ask("GET", "/healthz").response().status, 200)

    def test_outside_the_routes(self) -> None:
        """The same when what fails is not a route."""
        self.patch(self.server.site, "resource", None)
        response = self.server.ask("GET", "/healthz").response()
        self.assertEqual((response.status, response.headers["content-type"]), (500, "application/problem+json"))
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)


class DrainTests(SiteTestCase):
    """The way out."""

    def test_nobody_there(self) -> None:
        """Without connections it is over at once."""
        self.assertIsNone(self.successResultOf(self.server.site.drain(5.0)))

    def test_idle_closed(self) -> None:
        """Connections between requests are closed."""
        client = self.server.ask("GET", "/healthz")
        self.assertTrue(client.socket.connected)
        self.successResultOf(self.server.site.drain(5.0))
        self.assertFalse(client.socket.connected)

    def test_under_way_answered(self) -> None:
        """A request under way gets its answer, then the connection is closed, then it is over."""
        self.scheduler.held["submit"] = held = Deferred()
        client = self.server.ask("POST", "/start", START)
        drained = self.server.site.drain(5.0)
        self.assertNoResult(drained)
        held.callback(None)
        self.assertEqual(client.response().status, 201)
        self.assertFalse(client.socket.connected)
        self.successResultOf(drained)
        self.clock.advance(UNSAVED_MAX_SECONDS)
        self.assertEqual(self.house.timers(), 0)

    def test_new_refused(self) -> None:
        """A request that comes now is told to try again elsewhere or later."""
        coming = self.server.connect()
        coming.send(b"GET /healthz HTTP/1.1\r\n")
        drained = self.server.site.drain(5.0)
        coming.send(b"Host: localhost\r\n\r\n")
        response = coming.response()
        self.assertEqual((response.status, response.headers["connection"]), (503, "close"))
        self.assertIn("retry-after", response.headers)
        self.assertFalse(coming.socket.connected)
        self.successResultOf(drained)

    def test_long_poll(self) -> None:
        """Who waits for an end is told how it is."""
        job = self.fleet.add_job()
        client = self.server.ask("GET", f"/v1/jobs/{job.id}?wait=300")
        self.successResultOf(self.server.site.drain(5.0))
        self.assertEqual((client.response().status, client.response().json()["state"]), (200, "running"))
        self.assertTrue(self.house.parts.ledger.idle)

    def test_stop(self) -> None:
        """Who waits for the end of a job it stopped is told that this is accepted: the stop goes on."""
        self.fleet.runner().ends_on_stop = False
        job = self.fleet.add_job()
        body = f'{{"worker_id":"w1","job_id":"{job.id}"}}'.encode()
        asked = [self.server.ask("POST", f"/v1/jobs/{job.id}/stop"), self.server.ask("POST", "/stop", body)]
        self.successResultOf(self.server.site.drain(5.0))
        self.assertEqual([client.response().status for client in asked], [202, 202])
        self.assertEqual(asked[1].response().json()["success"], False)

    def test_stop_not_recorded(self) -> None:
        """One whose stop has not been recorded yet is told to try again, and so is who stops many."""
        job = self.fleet.add_job()
        for path, method in ((f"/v1/jobs/{job.id}/stop", "stop"), ("/v1/jobs/stop?worker=w1", "stop_matching")):
            self.scheduler.held[method] = Deferred()
            client = self.server.ask("POST", path)
            self.assertEqual(client.socket.received, b"")
        self.successResultOf(self.server.site.drain(5.0))
        self.assertEqual(client.response().status, 503)

    def test_stop_looks_at_what_is_left(self) -> None:
        """Who asks whether processes of an ended job still run is not told that they are gone."""
        job = self.fleet.add_job()
        self.fleet.leave(job.id, 123)
        self.assertEqual(self.server.ask("POST", f"/v1/jobs/{job.id}/stop").response().status, 409)
        self.scheduler.held["stop"] = Deferred()
        client = self.server.ask("POST", f"/v1/jobs/{job.id}/stop")
        self.successResultOf(self.server.site.drain(5.0))
        self.assertEqual(client.response().status, 503)

    def test_bounded(self) -> None:
        """What does not end is cut."""
        self.scheduler.held["submit"] = Deferred()
        client = self.server.ask("POST", "/start", START)
        drained = self.server.site.drain(5.0)
        self.clock.advance(5.0)
        self.assertTrue(client.socket.aborted)
        self.successResultOf(drained)


class WaitTests(SiteTestCase):
    """A job that is run again, and who waits for it."""

    def submit(self) -> Any:
        body = b'{"worker":"w1","command":"a","queue_timeout":60,"retry":{"attempts":2,"delay":10}}'
        return self.server.ask("POST", "/v1/jobs?wait=100", body, idempotency_key="k")

    def test_wait(self) -> None:
        """Whoever starts it is answered at the end of its last attempt, with that; what was made is the first."""
        client = self.submit()
        self.fleet.end("job-1", 1)
        client_of_the_first = self.server.ask("GET", "/v1/jobs/job-1?wait=100")
        self.assertEqual(client_of_the_first.response().json()["state"], "failed")
        self.clock.advance(10.0)
        self.assertFalse(client.answered)
        last = self.scheduler.last_attempt("job-1")
        self.fleet.end(last.id)
        for answered in (client, self.submit()):
            response = answered.response()
            document = response.json()
            self.assertEqual((response.status, document["id"], document["state"]), (201, last.id, "succeeded"))
            self.assertEqual((document["retry_of"], document["group_id"]), ("job-1", "job-1"))
            self.assertEqual(response.headers["location"], "/v1/jobs/job-1")
            self.assertEqual(response.headers["x-job-id"], "job-1")

    def test_until_then(self) -> None:
        """After that long it is the last attempt as it is; so it is when the scheduler is to end."""
        client = self.submit()
        self.fleet.end("job-1", 1)
        self.clock.pump([10.0, 90.0])
        again = self.submit()
        self.successResultOf(self.server.site.drain(5.0))
        for answered in (client, again):
            document = answered.response().json()
            self.assertEqual((document["retry_of"], document["state"]), ("job-1", "running"))


class HangUpTests(SiteTestCase):
    """Clients that leave."""

    def test_while_waiting(self) -> None:
        """Who leaves while it waits frees what it held, undoes nothing, and is no error."""
        job = self.fleet.add_job()
        waiting = self.server.ask("GET", f"/v1/jobs/{job.id}?wait=300")
        self.scheduler.held["submit"] = held = Deferred()
        starting = self.server.ask("POST", "/start", START)
        waiting.hang_up()
        starting.hang_up()
        self.assertTrue(self.house.parts.ledger.idle)
        self.assertIs(self.scheduler.job(job.id).state, JobState.RUNNING)
        self.assertTrue(held.called)
        self.assertEqual(self.server.site.channels, set())
        self.assertEqual(self.house.timers(), 0)

    def test_anywhere_in_a_request(self) -> None:
        """At whatever byte of a request a client leaves, nothing stays and nothing is logged as an error."""
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
