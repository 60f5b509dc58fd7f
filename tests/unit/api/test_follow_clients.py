"""Raw follows: slow, lost and old clients, and silent jobs."""

from scheduler.model import JobState, WorkerState
from tests.unit.api.cases import StreamTestCase
from tests.unit.api.documents import PATHS, check_problem


class StallTests(StreamTestCase):
    """The parameter ``stall``."""

    def test_stall(self) -> None:
        """A body without a byte for ``stall`` seconds is cut, counted from the headers and from each byte."""
        job = self.scheduler.add_job()
        client = self.follow(job.id, "&stall=5s")
        self.clock.advance(4)
        self.scheduler.write(job.id, b"x")
        self.clock.advance(4)
        self.assertTrue(client.socket.connected)
        self.clock.advance(1)
        self.assertEqual((client.response().body, client.response().complete), (b"x", False))
        self.assertFalse(client.socket.connected)
        self.assert_nothing_left()

    def test_stall_of_the_client(self) -> None:
        """The time in which the client reads nothing does not count."""
        job = self.scheduler.add_job(b"x" * 1000)
        client = self.server.connect()
        client.socket.room = 500
        client.ask("GET", f"/v1/jobs/{job.id}/output?follow=1&stall=5s")
        self.clock.advance(60)
        self.assertTrue(client.socket.connected)
        client.socket.take()
        self.clock.advance(4)
        self.assertTrue(client.socket.connected)
        self.clock.advance(1)
        self.assertFalse(client.socket.connected)
        self.assert_nothing_left()

    def test_stall_queued(self) -> None:
        """``stall`` counts for a job that waits for a worker, too."""
        self.scheduler.workers_are(WorkerState.UNREACHABLE)
        body = b'{"selector": {}, "command": "echo"}'
        client = self.server.ask("POST", "/v1/jobs?follow=1&stall=5s", body)
        self.clock.advance(5)
        self.assertEqual((client.response().status, client.response().complete), (201, False))
        self.assertIs(self.scheduler.job("job-1").state, JobState.QUEUED)
        self.assertEqual(self.scheduler.readers(), [])


class ClientTests(StreamTestCase):
    """Clients that read slowly or hang up."""

    def test_hang_up(self) -> None:
        """A client that leaves, before or after the headers, frees the reader, and the job continues."""
        job = self.scheduler.add_job()
        before, after = self.follow(job.id), self.follow(job.id)
        before.hang_up()
        self.scheduler.write(job.id, b"x")
        after.hang_up()
        self.assertIs(self.scheduler.job(job.id).state, JobState.RUNNING)
        self.assert_nothing_left()

    def test_slow_client(self) -> None:
        """For a client that does not read, one chunk is held at most; the client gets everything in the end."""
        self.scheduler.piece = 1000
        job = self.scheduler.add_job(b"x" * 100_000)
        client = self.server.connect()
        client.socket.room = 500
        client.ask("GET", f"/v1/jobs/{job.id}/output?follow=1")
        reader = self.scheduler.readers()[0]
        self.assertEqual(len(client.response().body), 1000)
        self.scheduler.write(job.id, b"y" * 1000)
        self.assertEqual(reader.reads, 1)
        self.scheduler.finish(job.id)
        for _ in range(110):
            client.socket.take()
        self.assertEqual(client.response().body, b"x" * 100_000 + b"y" * 1000)
        self.assertTrue(client.response().complete)
        self.assert_nothing_left()

    def test_slow_client_hangs_up(self) -> None:
        """A slow client that leaves frees the reader, too."""
        job = self.scheduler.add_job(b"x" * 100_000)
        client = self.server.connect()
        client.socket.room = 500
        client.ask("GET", f"/v1/jobs/{job.id}/output?follow=1")
        client.hang_up()
        self.assert_nothing_left()


class OldClientTests(StreamTestCase):
    """Clients of HTTP/1.0."""

    def test_old_client(self) -> None:
        """A client of HTTP/1.0 can't tell an end from a cut: it can't follow, and starts nothing."""
        job = self.scheduler.add_job(b"some")
        submission = b'{"worker": "w1", "command": "echo"}'
        for method, target, body in (
            ("GET", f"/v1/jobs/{job.id}/output?follow=1", b""),
            ("POST", "/v1/jobs?follow=1", submission),
        ):
            client = self.server.connect()
            head = f"{method} {target} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            client.send(head.encode() + body)
            response = client.response()
            self.assertEqual(response.status, 426)
            self.assertEqual((response.headers["upgrade"], response.headers["connection"]), ("HTTP/1.1", "Upgrade"))
            self.assertEqual(response.json()["type"], "/problems/http-version")
            self.assertIn("proxy_http_version 1.1", response.json()["detail"])
            check_problem(response.json(), 426, method, target)
        self.assertEqual(self.scheduler.calls, [])
        self.assert_nothing_left()

    def test_old_client_without_follow(self) -> None:
        """A client of HTTP/1.0 gets the present output, which has a length."""
        job = self.scheduler.add_job(b"some")
        client = self.server.connect()
        client.send(f"GET /v1/jobs/{job.id}/output HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        self.assertEqual((client.response().body, client.response().complete), (b"some", True))
        self.assertFalse(client.socket.connected)
        self.assert_nothing_left()

    def test_old_client_anywhere(self) -> None:
        """Every other answer to HTTP/1.0 has a length, no body, or the event ``end``."""
        for path, methods in PATHS.items():
            for method in methods - {"HEAD"}:
                job = self.scheduler.add_job(b"some")
                target = path.replace("job-1", job.id)
                for accept in ("*/*", "text/event-stream"):
                    client = self.server.connect()
                    client.send(f"{method} {target} HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n".encode())
                    self.clock.advance(60)
                    response = client.response()
                    if response.headers.get("content-type") == "text/event-stream":
                        self.scheduler.finish(job.id)
                        self.assertIn(b"\nevent: end\n", b"\n" + client.response().body)
                    elif response.status != 204:
                        self.assertEqual(str(len(response.body)), response.headers["content-length"], (method, target))
