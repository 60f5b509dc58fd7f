"""The server: the limit on connections, and its shutdown."""

from typing import Any

from twisted.internet.defer import Deferred

from scheduler.api import connection
from scheduler.cluster.saving import UNSAVED_MAX_SECONDS
from tests.unit.api.cases import ServerTestCase
from tests.unit.api.conversation import Server

START = b'{"worker_id": "w1", "command": "echo"}'


class ConnectionTests(ServerTestCase):
    def test_limit(self) -> None:
        """A connection over the limit is answered with 503 and closed; a closed connection makes room."""
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
        """Connections far over the limit are closed without an answer."""
        server = Server(max_connections=2)
        for _ in range(2 + connection.MAX_SPARE_CONNECTIONS):
            server.connect()
        self.assertIsNone(server.site.buildProtocol(None))

    def test_http_1_only(self) -> None:
        self.assertEqual(self.server.site.acceptableProtocols(), [b"http/1.1"])


class DrainTests(ServerTestCase):
    def test_no_connections(self) -> None:
        """A server without connections is drained at once."""
        self.assertIsNone(self.successResultOf(self.server.site.drain(5.0)))

    def test_idle_closed(self) -> None:
        """Connections between requests are closed."""
        client = self.server.ask("GET", "/healthz")
        self.assertTrue(client.socket.connected)
        self.successResultOf(self.server.site.drain(5.0))
        self.assertFalse(client.socket.connected)

    def test_under_way_answered(self) -> None:
        """A request under way is answered, then its connection is closed, then the server is drained."""
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
        """A new request is 503 with ``Retry-After``."""
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
        """A client that waits for an end is answered with the job as it is."""
        job = self.fleet.add_job()
        client = self.server.ask("GET", f"/v1/jobs/{job.id}?wait=300")
        self.successResultOf(self.server.site.drain(5.0))
        self.assertEqual((client.response().status, client.response().json()["state"]), (200, "running"))
        self.assertTrue(self.house.parts.ledger.idle)

    def test_stop(self) -> None:
        """A client that waits for the end of a stopped job is answered with 202: the stop goes on."""
        self.fleet.runner().ends_on_stop = False
        job = self.fleet.add_job()
        body = f'{{"worker_id":"w1","job_id":"{job.id}"}}'.encode()
        asked = [self.server.ask("POST", f"/v1/jobs/{job.id}/stop"), self.server.ask("POST", "/stop", body)]
        self.successResultOf(self.server.site.drain(5.0))
        self.assertEqual([client.response().status for client in asked], [202, 202])
        self.assertEqual(asked[1].response().json()["success"], False)

    def test_stop_not_recorded(self) -> None:
        """A stop that has not been recorded yet is 503, and so is a stop of many jobs."""
        job = self.fleet.add_job()
        for path, method in ((f"/v1/jobs/{job.id}/stop", "stop"), ("/v1/jobs/stop?worker=w1", "stop_matching")):
            self.scheduler.held[method] = Deferred()
            client = self.server.ask("POST", path)
            self.assertEqual(client.socket.received, b"")
        self.successResultOf(self.server.site.drain(5.0))
        self.assertEqual(client.response().status, 503)

    def test_stop_looks_at_what_is_left(self) -> None:
        """A client that asks for leftover processes of an ended job is not told that they are gone."""
        job = self.fleet.add_job()
        self.fleet.leave(job.id, 123)
        self.assertEqual(self.server.ask("POST", f"/v1/jobs/{job.id}/stop").response().status, 409)
        self.scheduler.held["stop"] = Deferred()
        client = self.server.ask("POST", f"/v1/jobs/{job.id}/stop")
        self.successResultOf(self.server.site.drain(5.0))
        self.assertEqual(client.response().status, 503)

    def test_bounded(self) -> None:
        """A request that does not end is cut."""
        self.scheduler.held["submit"] = Deferred()
        client = self.server.ask("POST", "/start", START)
        drained = self.server.site.drain(5.0)
        self.clock.advance(5.0)
        self.assertTrue(client.socket.aborted)
        self.successResultOf(drained)


class WaitTests(ServerTestCase):
    """A submission that waits for a job with ``retry``."""

    def submit(self) -> Any:
        body = b'{"worker":"w1","command":"a","queue_timeout":60,"retry":{"attempts":2,"delay":10}}'
        return self.server.ask("POST", "/v1/jobs?wait=100", body, idempotency_key="k")

    def test_wait(self) -> None:
        """The submission is answered at the end of the last attempt, with that attempt; ``Location`` is the first."""
        client = self.submit()
        self.fleet.end("job-1", 1)
        self.assertEqual(self.server.ask("GET", "/v1/jobs/job-1?wait=100").response().json()["state"], "failed")
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
        """When the wait is over, or at shutdown, the answer is the last attempt as it is."""
        client = self.submit()
        self.fleet.end("job-1", 1)
        self.clock.pump([10.0, 90.0])
        again = self.submit()
        self.successResultOf(self.server.site.drain(5.0))
        for answered in (client, again):
            document = answered.response().json()
            self.assertEqual((document["retry_of"], document["state"]), ("job-1", "running"))
