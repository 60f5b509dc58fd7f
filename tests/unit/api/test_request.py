"""Requests: the guard, request ids, the log, and bugs."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher

from scheduler.daemon import logs
from tests.unit.api.cases import ServerTestCase
from tests.unit.api.conversation import Server
from tests.unit.api.documents import PATHS


class GuardTests(ServerTestCase):
    """The guard on every method of every path."""

    TARGETS = (*PATHS, "/v1/jobs?bad=1", "/nope", "/", "//", "*", "x")

    def test_everywhere(self) -> None:
        """Every method of every path is guarded, including paths that are no route.

        Each two of target, method and headers meet once or more.
        """
        methods = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "FOO")
        refused = (
            {"origin": "http://evil.example"},
            {"origin": "http://127.0.0.1:1"},
            {"origin": ""},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"host": "evil.example"},
        )
        for first, target in enumerate(self.TARGETS):
            for index, method in enumerate(methods, first):
                headers = refused[index % len(refused)]
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
        """Every answer forbids caching and sniffing, and is a problem document if it is an error."""
        for target in self.TARGETS:
            for method in ("GET", "POST", "OPTIONS"):
                response = self.server.ask(method, target).response()
                self.assertEqual(response.headers["cache-control"], "no-store")
                self.assertEqual(response.headers["x-content-type-options"], "nosniff")
                if response.status >= 400:
                    self.assertEqual(response.headers["content-type"], "application/problem+json")
                    self.assertEqual(response.json()["status"], response.status)

    def test_targets(self) -> None:
        """A target that is no path, or not UTF-8, is a mistake, and so is a method in lower case."""
        self.assertEqual(self.server.ask("get", "/healthz").response().status, 400)
        for target in ("*", "http://localhost/healthz", "localhost:80", "/v1/jobs/%ff", "/%c3", "/%c3%28"):
            self.assertEqual(self.server.ask("GET", target).response().status, 400, target)
            self.assertEqual(self.server.ask("OPTIONS", target).response().status, 400, target)

    def test_traversal(self) -> None:
        """Encoded slashes, dots and NULs in a path lead to no route and no job."""
        for target in ("/v1/jobs/..%2f..%2fetc", "/v1/jobs/%00", "/v1/jobs/%0a", "/v1/workers/%00", "//v1/jobs"):
            self.assertEqual(self.server.ask("GET", target).response().status, 404, target)


class RequestIdTests(ServerTestCase):
    """The ids of requests, and their lines in the log."""

    def logged(self) -> list[dict[str, Any]]:
        """The events of the log from now on."""
        found: list[dict[str, Any]] = []
        observer: Callable[[dict[str, Any]], None] = found.append
        globalLogPublisher.addObserver(observer)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        return found

    def test_given(self) -> None:
        """A client's id is kept, in the answer and for all calls that follow."""
        seen: list[str] = []
        self.patch(self.scheduler, "worker", lambda _: seen.append(logs.REQUEST_ID.get()))
        client = self.server.ask("GET", "/v1/workers/w1", x_request_id="abc.1-_")
        self.flushLoggedErrors(AttributeError)
        self.assertEqual(client.response().headers["x-request-id"], "abc.1-_")
        self.assertEqual(seen, ["abc.1-_"])
        self.assertEqual(logs.REQUEST_ID.get(), "")

    def test_kept_over_waiting(self) -> None:
        """The id is still set after a wait."""
        seen: list[str] = []
        self.scheduler.held["submit"] = held = Deferred()
        self.scheduler.held["submit"].addCallback(lambda _: seen.append(logs.REQUEST_ID.get()))
        self.patch(self.scheduler, "wait_for_attempts", lambda *_: seen.append(logs.REQUEST_ID.get()))
        self.server.ask("POST", "/v1/jobs?wait=1", b'{"worker": "w1", "command": "a"}', x_request_id="abc")
        held.callback(None)
        self.flushLoggedErrors(TypeError)
        self.assertEqual(seen[-1], "abc")

    def test_made(self) -> None:
        """A request without an id, or with an id that is unfit for a log, gets a new one."""
        made = set()
        for given in ("", "a b", "a" * 65, "\xe4"):
            made.add(self.server.ask("GET", "/healthz", x_request_id=given).response().headers["x-request-id"])
        self.assertEqual(len(made), 4)
        for request_id in made:
            self.assertRegex(request_id, "^[0-9a-f]{32}$")

    def test_log(self) -> None:
        """Each request is one line with named fields; a request that was cut is marked."""
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


class BugTests(ServerTestCase):
    def test_incident(self) -> None:
        """The client gets only an incident id, the log has the traceback, and the server continues."""
        self.scheduler.fail["workers"] = RuntimeError("secret")
        response = self.server.ask("GET", "/v1/workers").response()
        self.assertEqual(response.status, 500)
        self.assertNotIn(b"secret", response.body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.server.ask("GET", "/healthz").response().status, 200)

    def test_outside_the_routes(self) -> None:
        """A bug outside of the routes is answered in the same way."""
        self.patch(self.server.site, "resource", None)
        response = self.server.ask("GET", "/healthz").response()
        self.assertEqual((response.status, response.headers["content-type"]), (500, "application/problem+json"))
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
