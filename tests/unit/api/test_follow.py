"""Raw follows: the bytes that are sent, the end of the body, and slow, lost and old clients."""

from twisted.internet.defer import Deferred, succeed

from scheduler.api import streams
from scheduler.cluster.jobs.queue import SWEEP_INTERVAL_SECONDS
from scheduler.errors import Busy, DeadlineExceeded, Unreachable, WorkerFault
from scheduler.messages import Chunk
from scheduler.model import JobState
from tests.unit.api.cases import EVENTS, StreamTestCase
from tests.unit.api.documents import PATHS, check_problem


class Skipping:
    """A reader that leaves out a byte."""

    offset = 0

    def __init__(self) -> None:
        self._chunks = [Chunk(b"some", 0), Chunk(b"thing", 5)]

    def read(self) -> Deferred[Chunk]:
        return succeed(self._chunks.pop(0))

    def close(self) -> None:
        self._chunks.clear()


class FollowTests(StreamTestCase):
    """``GET /v1/jobs/{id}/output?follow=1``."""

    def test_ends_with_the_job(self) -> None:
        """Bytes come as they are written, and the body ends when the job has ended and all bytes were sent."""
        job = self.fleet.add_job(b"one\n")
        client = self.follow(job.id)
        self.assertEqual((client.response().body, client.response().complete), (b"one\n", False))
        self.assertEqual(client.response().headers["content-type"], "text/plain; charset=utf-8")
        self.fleet.write(job.id, b"two\n\xff")
        self.assertEqual(client.response().body, b"one\ntwo\n\xff")
        self.fleet.end(job.id)
        self.assertEqual((client.response().body, client.response().complete), (b"one\ntwo\n\xff", True))

    def test_connection_stays(self) -> None:
        """After a proper end the connection serves the next request."""
        job = self.fleet.add_job(b"x", state=JobState.SUCCEEDED)
        client = self.follow(job.id)
        rest = len(client.socket.received)
        client.ask("GET", "/healthz")
        self.assertIn(b"HTTP/1.1 200 OK", client.socket.received[rest:])

    def test_offset_and_stream(self) -> None:
        """The body begins at the offset, for either stream."""
        job = self.fleet.add_job(b"out", b"errors", state=JobState.FAILED)
        self.assertEqual(self.follow(job.id, "&stream=stderr&offset=3").response().body, b"ors")

    def test_tail(self) -> None:
        """The body begins with the last lines, and a header has their offset."""
        job = self.fleet.add_job(b"a\nb\nc\n")
        client = self.follow(job.id, "&tail=2")
        self.assertEqual(client.response().body, b"b\nc\n")
        self.assertEqual(client.response().headers["x-output-offset"], "2")
        client.hang_up()

    def test_trailers(self) -> None:
        """After the last byte come the state and the exit code, if there is one; the headers announce both."""
        for facts, expected in (
            ({"state": JobState.SUCCEEDED, "exit_code": 0}, {"x-job-state": "succeeded", "x-exit-code": "0"}),
            ({"state": JobState.FAILED, "exit_code": 3}, {"x-job-state": "failed", "x-exit-code": "3"}),
            ({"state": JobState.STOPPED, "exit_code": None, "signal": "SIGTERM"}, {"x-job-state": "stopped"}),
        ):
            job = self.fleet.add_job(b"one")
            before = self.follow(job.id)
            self.fleet.end(job.id, **facts)
            for client in (before, self.follow(job.id), self.follow(job.id, "&offset=3")):
                response = client.response()
                self.assertEqual(response.headers["trailer"], "X-Job-State, X-Exit-Code")
                self.assertEqual((response.trailers, response.complete, response.rest), (expected, True, b""))

    def test_head(self) -> None:
        """HEAD has the headers of a body without a length, and the connection serves the next request."""
        job = self.fleet.add_job(b"one\ntwo\n")
        for query, accept in (("?follow=1&tail=1", {}), ("", EVENTS)):
            client = self.server.ask("HEAD", f"/v1/jobs/{job.id}/output{query}", **accept)
            head = client.socket.received.lower()
            self.assertIn(b"\r\nx-job-id: ", head)
            self.assertNotIn(b"\r\ncontent-length: ", head)
            self.assertNotIn(b"\r\ntransfer-encoding: ", head)
            self.assertEqual(b"\r\nx-output-offset: 4\r\n" in head, not accept)
            client.ask("GET", "/healthz")
            self.assertTrue(client.socket.received[len(head) :].startswith(b"HTTP/1.1 200 OK"))

    def test_end_waits_for_the_job(self) -> None:
        """A stream may end before the job's end is known: the body ends with the final state."""
        job = self.fleet.add_job(b"x")
        client = self.follow(job.id, "&stall=5s")
        self.fleet.end(job.id, 3, report=False)
        self.clock.advance(20)
        self.assertEqual((client.response().body, client.response().complete), (b"x", False))
        self.assertTrue(client.socket.connected)
        self.house.report("id-w1")
        self.assertEqual(client.response().trailers, {"x-job-state": "failed", "x-exit-code": "3"})

    def test_end_never_lies(self) -> None:
        """If the job does not become final, the body is cut instead of ended."""
        job = self.fleet.add_job(b"x")
        client = self.follow(job.id)
        self.fleet.end(job.id, report=False)
        self.clock.pump([streams.END_WAIT_MAX_SECONDS / 4] * 4)
        self.assertEqual((client.response().body, client.response().complete), (b"x", False))
        self.assertFalse(client.socket.connected)

    def test_headers_before_output(self) -> None:
        """A silent job is answered with headers at once, also to a follower that resumes."""
        job = self.fleet.add_job()
        response = self.follow(job.id).response()
        self.assertEqual((response.status, response.headers["x-job-id"], response.body), (200, job.id, b""))
        self.fleet.write(job.id, b"x")
        response = self.follow(job.id, "&offset=1").response()
        self.assertEqual((response.status, response.headers["x-output-offset"], response.body), (200, "1", b""))
        self.fleet.end(job.id)

    def test_headers_of_an_ended_job(self) -> None:
        """The headers of an ended job wait for its first byte, but not for long."""
        job = self.fleet.add_job(b"x", state=JobState.SUCCEEDED)
        self.house.workers.hold("read_output")
        client = self.follow(job.id)
        self.assertFalse(client.answered)
        self.clock.advance(streams.HEADERS_WAIT_MAX_SECONDS)
        self.assertEqual(client.response().status, 200)
        client.hang_up()

    def test_much_at_once(self) -> None:
        """The stack does not grow with the number of chunks that are ready."""
        self.house.workers.piece = 1
        job = self.fleet.add_job(b"x" * 5000, state=JobState.SUCCEEDED)
        self.assertEqual(self.follow(job.id).response().body, b"x" * 5000)


class FailureTests(StreamTestCase):
    def test_failure_before_output(self) -> None:
        """A failure before the headers is a problem document."""
        job = self.fleet.add_job(b"x", state=JobState.SUCCEEDED)
        self.house.workers.hold("read_output")
        client = self.follow(job.id)
        self.successResultOf(self.scheduler.remove(job.id))
        self.assertEqual(client.response().status, 404)
        self.assertEqual(client.response().headers["content-type"], "application/problem+json")
        self.assertNotIn("trailer", client.response().headers)

    def test_failure_after_headers(self) -> None:
        """A failure after the headers of a running job cuts the connection."""
        client = self.follow(self.fleet.add_job().id)
        self.fleet.forget()
        self.assertEqual((client.response().status, client.response().complete), (200, False))
        self.assertFalse(client.socket.connected)

    def test_offset_that_can_not_be(self) -> None:
        """An offset beyond the output of a running job is refused before any header."""
        job = self.fleet.add_job(b"abc")
        self.assertEqual(self.follow(job.id, "&offset=4").response().status, 416)
        self.fleet.end(job.id)
        self.fleet.prune(job.id)
        self.assertEqual(self.follow(job.id, "&offset=1").response().status, 410)

    def test_offset_that_can_not_be_checked(self) -> None:
        """If the worker can't be asked about the offset, the follower gets headers and waits for the worker."""
        job = self.fleet.add_job(b"abc")
        for error in (Unreachable("w1"), Busy("reads", 4), DeadlineExceeded("read", 10), WorkerFault("w1", "what")):
            self.scheduler.fail["read_output"] = error
            client = self.follow(job.id, "&offset=3")
            self.assertEqual(client.response().status, 200)
            client.hang_up()

    def test_failure_midway(self) -> None:
        """A failure later cuts the connection, so the body is seen to be short."""
        job = self.fleet.add_job(b"some")
        client = self.follow(job.id)
        self.fleet.forget()
        self.assertEqual((client.response().body, client.response().complete), (b"some", False))
        self.assertFalse(client.socket.connected)

    def test_bug_midway(self) -> None:
        """A gap between chunks is never sent."""
        job = self.fleet.add_job()
        self.patch(self.scheduler, "open_output", lambda *_: Skipping())
        client = self.follow(job.id)
        self.assertEqual(client.response().body, b"some")
        self.assertFalse(client.socket.connected)
        self.assertEqual(len(self.flushLoggedErrors(AssertionError)), 1)

    def test_refused(self) -> None:
        """If no reader can be opened, the error is the answer."""
        self.fleet.add_worker("old", core=True)
        job = self.fleet.add_job()
        self.scheduler.fail["open_output"] = Busy("streams", 256)
        self.assertEqual(self.follow(job.id).response().status, 503)
        del self.scheduler.fail["open_output"]
        old = self.server.ask("POST", "/start", b'{"worker_id": "old", "command": "a"}').response().json()["job_id"]
        self.assertEqual(self.follow(old).response().status, 501)
        self.assertEqual(self.follow("nope").response().status, 404)

    def test_shutdown(self) -> None:
        """At shutdown a follower is cut; a follower without headers gets a problem document."""
        silent, loud = self.fleet.add_job(b"x", state=JobState.SUCCEEDED), self.fleet.add_job(b"x")
        reading = self.follow(loud.id)
        self.house.workers.hold("read_output")
        waiting = self.follow(silent.id)
        self.successResultOf(self.server.site.drain(5.0))
        self.assertEqual(waiting.response().status, 503)
        self.assertEqual((reading.response().body, reading.response().complete), (b"x", False))

    def test_mistakes(self) -> None:
        """A parameter that makes no sense for a raw follow is refused, and nothing is started."""
        job = self.fleet.add_job()
        body = b'{"worker": "w1", "command": "echo"}'
        for field, query in (
            ("stall", "&stall=0"),
            ("stall", "&stall=x"),
            ("stall", "&stall=2d"),
            ("output", "&output=1"),
        ):
            found = self.follow(job.id, query).response()
            self.assertEqual((found.status, found.json()["field"]), (400, field), query)
            found = self.server.ask("POST", f"/v1/jobs?follow=1{query}", body).response()
            self.assertEqual((found.status, found.json()["field"]), (400, field), query)
        for method, target in (("GET", f"/v1/jobs/{job.id}/output?stall=5"), ("POST", "/v1/jobs?stall=5")):
            for headers in ({}, EVENTS):
                found = self.server.ask(method, target, body, **headers).response()
                self.assertEqual((found.status, found.json()["field"]), (400, "stall"), target)
        self.assertEqual(self.scheduler.asked("submit"), [])


class StallTests(StreamTestCase):
    def test_stall(self) -> None:
        """A body without a byte for ``stall`` seconds is cut, counted from the headers and from each byte."""
        job = self.fleet.add_job()
        client = self.follow(job.id, "&stall=5s")
        self.clock.advance(4)
        self.fleet.write(job.id, b"x")
        self.clock.advance(4)
        self.assertTrue(client.socket.connected)
        self.clock.advance(1)
        self.assertEqual((client.response().body, client.response().complete), (b"x", False))
        self.assertFalse(client.socket.connected)

    def test_stall_of_the_client(self) -> None:
        """The time in which the client reads nothing does not count."""
        job = self.fleet.add_job(b"x" * 1000)
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

    def test_stall_queued(self) -> None:
        """``stall`` counts for a job that waits for a worker, too."""
        self.fleet.lose()
        body = b'{"selector": {}, "command": "echo"}'
        client = self.server.ask("POST", "/v1/jobs?follow=1&stall=5s", body)
        self.clock.advance(5)
        self.assertEqual((client.response().status, client.response().complete), (201, False))
        self.assertIs(self.scheduler.job("job-1").state, JobState.QUEUED)
        self.scheduler.stop("job-1")
        self.clock.advance(SWEEP_INTERVAL_SECONDS)


class ClientTests(StreamTestCase):
    """Clients that read slowly or hang up."""

    def test_hang_up(self) -> None:
        """A client that leaves, before or after the headers, frees the reader, and the job continues."""
        job = self.fleet.add_job()
        before, after = self.follow(job.id), self.follow(job.id)
        before.hang_up()
        self.fleet.write(job.id, b"x")
        after.hang_up()
        self.assertIs(self.scheduler.job(job.id).state, JobState.RUNNING)

    def test_slow_client(self) -> None:
        """For a client that does not read, one chunk is held at most; the client gets everything in the end."""
        self.house.workers.piece = 1000
        job = self.fleet.add_job(b"x" * 100_000)
        client = self.server.connect()
        client.socket.room = 500
        client.ask("GET", f"/v1/jobs/{job.id}/output?follow=1")
        self.assertEqual(len(client.response().body), 1000)
        self.fleet.write(job.id, b"y" * 1000)
        self.assertEqual(len(client.response().body), 1000)
        self.fleet.end(job.id)
        for _ in range(110):
            client.socket.take()
        self.assertEqual(client.response().body, b"x" * 100_000 + b"y" * 1000)
        self.assertTrue(client.response().complete)

    def test_slow_client_hangs_up(self) -> None:
        """A slow client that leaves frees the reader, too."""
        job = self.fleet.add_job(b"x" * 100_000)
        client = self.server.connect()
        client.socket.room = 500
        client.ask("GET", f"/v1/jobs/{job.id}/output?follow=1")
        client.hang_up()


class OldClientTests(StreamTestCase):
    """Clients of HTTP/1.0."""

    def test_old_client(self) -> None:
        """A client of HTTP/1.0 can't tell an end from a cut: it can't follow, and starts nothing."""
        job = self.fleet.add_job(b"some")
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
        self.assertEqual(self.scheduler.asked("submit"), [])

    def test_old_client_without_follow(self) -> None:
        """A client of HTTP/1.0 gets the present output, which has a length."""
        job = self.fleet.add_job(b"some")
        client = self.server.connect()
        client.send(f"GET /v1/jobs/{job.id}/output HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        self.assertEqual((client.response().body, client.response().complete), (b"some", True))
        self.assertFalse(client.socket.connected)

    def test_old_client_anywhere(self) -> None:
        """Every other answer to HTTP/1.0 has a length, no body, or the event ``end``."""
        for path, methods in PATHS.items():
            for method in methods - {"HEAD"}:
                job = self.fleet.add_job(b"some")
                target = path.replace("job-1", job.id)
                for accept in ("*/*", "text/event-stream"):
                    client = self.server.connect()
                    client.send(f"{method} {target} HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n".encode())
                    self.clock.advance(60)
                    response = client.response()
                    if response.headers.get("content-type") == "text/event-stream":
                        self.fleet.end(job.id)
                        self.assertIn(b"\nevent: end\n", b"\n" + client.response().body)
                    elif response.status != 204:
                        self.assertEqual(str(len(response.body)), response.headers["content-length"], (method, target))
