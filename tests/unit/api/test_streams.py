"""Following output: what is sent, when it ends, and what a slow or lost client costs."""

from twisted.internet.defer import CancelledError, Deferred

from scheduler.api import streams
from scheduler.api.following import FromTheStart
from scheduler.errors import (
    Busy,
    DeadlineExceeded,
    NotFound,
    ShuttingDown,
    StartUnanswered,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
)
from scheduler.model import JobState, Stream, WorkerState
from tests.unit.api.documents import PATHS, check_problem
from tests.unit.api.streaming import EVENTS, StreamTestCase


class RawTests(StreamTestCase):
    """``follow=1``."""

    def test_ends_with_the_job(self) -> None:
        """Bytes come as they are written, and the body ends when the job has ended and all were sent."""
        job = self.scheduler.add_job(b"one\n")
        client = self.follow(job.id)
        self.assertEqual((client.response().body, client.response().complete), (b"one\n", False))
        self.assertEqual(client.response().headers["content-type"], "text/plain; charset=utf-8")
        self.scheduler.write(job.id, b"two\n\xff")
        self.assertEqual(client.response().body, b"one\ntwo\n\xff")
        self.scheduler.finish(job.id)
        self.assertEqual((client.response().body, client.response().complete), (b"one\ntwo\n\xff", True))
        self.assert_nothing_left()

    def test_connection_stays(self) -> None:
        """After a proper end the connection serves the next request."""
        job = self.scheduler.add_job(b"x", state=JobState.SUCCEEDED)
        client = self.follow(job.id)
        rest = len(client.socket.received)
        client.ask("GET", "/healthz")
        self.assertIn(b"HTTP/1.1 200 OK", client.socket.received[rest:])
        self.assert_nothing_left()

    def test_offset_and_stream(self) -> None:
        """It begins at the offset, of either stream."""
        job = self.scheduler.add_job(b"out", b"errors", state=JobState.FAILED)
        self.assertEqual(self.follow(job.id, "&stream=stderr&offset=3").response().body, b"ors")

    def test_tail(self) -> None:
        """It begins the lines before the end, and says at which offset that is."""
        job = self.scheduler.add_job(b"a\nb\nc\n")
        client = self.follow(job.id, "&tail=2")
        self.assertEqual(client.response().body, b"b\nc\n")
        self.assertEqual(client.response().headers["x-output-offset"], "2")

    def test_trailers(self) -> None:
        """After the last byte come the state and the exit code, where there is one; the headers announce both."""
        for facts, expected in (
            ({"state": JobState.SUCCEEDED, "exit_code": 0}, {"x-job-state": "succeeded", "x-exit-code": "0"}),
            ({"state": JobState.FAILED, "exit_code": 3}, {"x-job-state": "failed", "x-exit-code": "3"}),
            ({"state": JobState.STOPPED, "signal": "SIGTERM"}, {"x-job-state": "stopped"}),
        ):
            job = self.scheduler.add_job(b"one")
            before = self.follow(job.id)
            self.scheduler.finish(job.id, **facts)
            for client in (before, self.follow(job.id), self.follow(job.id, "&offset=3")):
                response = client.response()
                self.assertEqual(response.headers["trailer"], "X-Job-State, X-Exit-Code")
                self.assertEqual((response.trailers, response.complete, response.rest), (expected, True, b""))
        self.assert_nothing_left()

    def test_head(self) -> None:
        """HEAD has the headers of a body without a length, and the connection serves the next request."""
        job = self.scheduler.add_job(b"one\ntwo\n")
        for query, accept in (("?follow=1&tail=1", {}), ("", EVENTS)):
            client = self.server.ask("HEAD", f"/v1/jobs/{job.id}/output{query}", **accept)
            head = client.socket.received.lower()
            self.assertIn(b"\r\nx-job-id: ", head)
            self.assertNotIn(b"\r\ncontent-length: ", head)
            self.assertNotIn(b"\r\ntransfer-encoding: ", head)
            self.assertEqual(b"\r\nx-output-offset: 4\r\n" in head, not accept)
            client.ask("GET", "/healthz")
            self.assertTrue(client.socket.received[len(head) :].startswith(b"HTTP/1.1 200 OK"))
        self.assert_nothing_left()

    def test_end_waits_for_the_job(self) -> None:
        """A stream may end before the job is known to: the body ends with its final state."""
        job = self.scheduler.add_job(b"x")
        client = self.follow(job.id, "&stall=5s")
        self.scheduler.end_output(job.id)
        self.clock.advance(20)
        self.assertEqual((client.response().body, client.response().complete), (b"x", False))
        self.assertTrue(client.socket.connected)
        self.scheduler.finish(job.id, JobState.FAILED, exit_code=3)
        self.assertEqual(client.response().trailers, {"x-job-state": "failed", "x-exit-code": "3"})
        self.assert_nothing_left()

    def test_end_never_lies(self) -> None:
        """When the job does not become final, the body is cut: it has no end."""
        job = self.scheduler.add_job(b"x")
        client = self.follow(job.id)
        self.scheduler.end_output(job.id)
        self.clock.pump([streams.END_WAIT_MAX_SECONDS / 4] * 4)
        self.assertEqual((client.response().body, client.response().complete), (b"x", False))
        self.assertFalse(client.socket.connected)
        self.assert_nothing_left()

    def test_headers_before_output(self) -> None:
        """A job that is silent is answered with headers at once, also where the follower resumes."""
        job = self.scheduler.add_job()
        response = self.follow(job.id).response()
        self.assertEqual((response.status, response.headers["x-job-id"], response.body), (200, job.id, b""))
        self.scheduler.write(job.id, b"x")
        response = self.follow(job.id, "&offset=1").response()
        self.assertEqual((response.status, response.headers["x-output-offset"], response.body), (200, "1", b""))

    def test_headers_of_an_ended_job(self) -> None:
        """The headers wait for the first byte of a job that has ended, but not for long."""
        job = self.scheduler.add_job(state=JobState.SUCCEEDED)
        self.scheduler.reopen(job.id)
        client = self.follow(job.id)
        self.assertFalse(client.answered)
        self.clock.advance(streams.HEADERS_WAIT_MAX_SECONDS)
        self.assertEqual(client.response().status, 200)

    def test_failure_before_output(self) -> None:
        """What fails meanwhile is a problem document."""
        job = self.scheduler.add_job(state=JobState.SUCCEEDED)
        self.scheduler.reopen(job.id)
        client = self.follow(job.id)
        self.scheduler.readers()[0].break_with(NotFound("job", job.id))
        self.assertEqual(client.response().status, 404)
        self.assertEqual(client.response().headers["content-type"], "application/problem+json")
        self.assertNotIn("trailer", client.response().headers)
        self.assert_nothing_left()

    def test_failure_after_headers(self) -> None:
        """What fails for a job that runs cuts the connection, whose headers were sent."""
        client = self.follow(self.scheduler.add_job().id)
        self.scheduler.readers()[0].break_with(Unavailable("lost"))
        self.assertEqual((client.response().status, client.response().complete), (200, False))
        self.assertFalse(client.socket.connected)
        self.assert_nothing_left()

    def test_offset_that_can_not_be(self) -> None:
        """An offset beyond what a job that runs has written is refused before any header."""
        job = self.scheduler.add_job(b"abc")
        self.assertEqual(self.follow(job.id, "&offset=4").response().status, 416)
        self.scheduler.prune(job.id)
        self.assertEqual(self.follow(job.id, "&offset=1").response().status, 410)
        self.assert_nothing_left()

    def test_offset_that_can_not_be_checked(self) -> None:
        """Where the worker can't be asked about the offset, the follower waits for it, with its headers."""
        job = self.scheduler.add_job(b"abc")
        for error in (Unreachable("w1"), Busy("reads", 4), DeadlineExceeded("read", 10), WorkerFault("w1", "what")):
            self.scheduler.fail["read_output"] = error
            client = self.follow(job.id, "&offset=3")
            self.assertEqual(client.response().status, 200)
            client.hang_up()
        self.assert_nothing_left()

    def test_stall(self) -> None:
        """With ``stall`` a body without a byte for so long is cut, counted from the headers and from each byte."""
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
        """While the client reads nothing the job is not to blame, however long that takes."""
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
        """It counts for one that waits for a worker, too."""
        self.scheduler.workers_are(WorkerState.UNREACHABLE)
        body = b'{"selector": {}, "command": "echo"}'
        client = self.server.ask("POST", "/v1/jobs?follow=1&stall=5s", body)
        self.clock.advance(5)
        self.assertEqual((client.response().status, client.response().complete), (201, False))
        self.assertIs(self.scheduler.job("job-1").state, JobState.QUEUED)
        self.assertEqual(self.scheduler.readers(), [])

    def test_mistakes(self) -> None:
        """What makes no sense for a raw follow is refused, and starts nothing."""
        job = self.scheduler.add_job()
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
        for method, target in (
            ("GET", f"/v1/jobs/{job.id}/output?stall=5"),
            ("POST", "/v1/jobs?stall=5"),
        ):
            for headers in ({}, EVENTS):
                found = self.server.ask(method, target, body, **headers).response()
                self.assertEqual((found.status, found.json()["field"]), (400, "stall"), target)
        self.assertEqual(self.scheduler.calls, [])
        self.assert_nothing_left()

    def test_failure_midway(self) -> None:
        """What fails later cuts the connection, so the body is seen to be short."""
        job = self.scheduler.add_job(b"some")
        client = self.follow(job.id)
        self.scheduler.readers()[0].break_with(Unavailable("lost"))
        self.assertEqual((client.response().body, client.response().complete), (b"some", False))
        self.assertFalse(client.socket.connected)
        self.assert_nothing_left()

    def test_old_client(self) -> None:
        """A client that knows no chunks can't tell an end from a cut: it follows nothing, and starts nothing."""
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
        """It gets what is there, which has a length."""
        job = self.scheduler.add_job(b"some")
        client = self.server.connect()
        client.send(f"GET /v1/jobs/{job.id}/output HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        self.assertEqual((client.response().body, client.response().complete), (b"some", True))
        self.assertFalse(client.socket.connected)
        self.assert_nothing_left()

    def test_old_client_anywhere(self) -> None:
        """No other answer ends with its connection alone: it has a length, no body, or the event ``end``."""
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

    def test_bug_midway(self) -> None:
        """A gap in what a reader gives is never passed on."""
        job = self.scheduler.add_job(b"some")
        client = self.follow(job.id)
        self.scheduler.readers()[0].offset = 8
        self.scheduler.write(job.id, b"thing else")
        self.assertEqual(client.response().body, b"some")
        self.assertFalse(client.socket.connected)
        self.assertEqual(len(self.flushLoggedErrors(AssertionError)), 1)
        self.assert_nothing_left()

    def test_refused(self) -> None:
        """Where there is no reader to be had, that is the answer."""
        core = self.scheduler.add_worker("old", boot_id="")
        job = self.scheduler.add_job()
        self.scheduler.fail["open_output"] = Busy("streams", 256)
        self.assertEqual(self.follow(job.id).response().status, 503)
        del self.scheduler.fail["open_output"]
        self.server.ask("POST", "/start", b'{"worker_id": "old", "command": "a"}')
        old = next(job for job in self.scheduler._newest() if job.worker_id == core.id)
        self.assertEqual(self.follow(old.id).response().status, 501)
        self.assertEqual(self.follow("nope").response().status, 404)
        self.assert_nothing_left()

    def test_hang_up(self) -> None:
        """A client that leaves, before or after the headers, frees the reader, and the job goes on."""
        job = self.scheduler.add_job()
        before, after = self.follow(job.id), self.follow(job.id)
        before.hang_up()
        self.scheduler.write(job.id, b"x")
        after.hang_up()
        self.assertIs(self.scheduler.job(job.id).state, JobState.RUNNING)
        self.assert_nothing_left()

    def test_slow_client(self) -> None:
        """A client that does not read holds one chunk at most, and gets everything in the end."""
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
        """A client that leaves while it is slow frees the reader too."""
        job = self.scheduler.add_job(b"x" * 100_000)
        client = self.server.connect()
        client.socket.room = 500
        client.ask("GET", f"/v1/jobs/{job.id}/output?follow=1")
        client.hang_up()
        self.assert_nothing_left()

    def test_much_at_once(self) -> None:
        """However many chunks are there at once, the stack does not grow."""
        self.scheduler.piece = 1
        job = self.scheduler.add_job(b"x" * 5000, state=JobState.SUCCEEDED)
        self.assertEqual(self.follow(job.id).response().body, b"x" * 5000)

    def test_shutdown(self) -> None:
        """At shutdown a follower is cut, and one without headers yet is told why."""
        silent, loud = self.scheduler.add_job(state=JobState.SUCCEEDED), self.scheduler.add_job(b"x")
        self.scheduler.reopen(silent.id)
        waiting, reading = self.follow(silent.id), self.follow(loud.id)
        self.successResultOf(self.server.site.drain(5.0))
        self.assertEqual(waiting.response().status, 503)
        self.assertEqual((reading.response().body, reading.response().complete), (b"x", False))
        self.assert_nothing_left()

    def test_submitted(self) -> None:
        """One POST runs a job, streams its output, and names it in its headers."""
        client = self.server.ask("POST", "/v1/jobs?follow=1", b'{"worker": "w1", "command": "echo"}')
        job = self.scheduler.job(client.response().headers["x-job-id"])
        self.assertEqual(client.response().status, 201)
        self.assertEqual(client.response().headers["location"], f"/v1/jobs/{job.id}")
        self.scheduler.write(job.id, b"hello")
        self.scheduler.finish(job.id, JobState.FAILED, exit_code=2)
        self.assertEqual((client.response().body, client.response().complete), (b"hello", True))
        self.assertEqual(client.response().trailers, {"x-job-state": "failed", "x-exit-code": "2"})
        self.assert_nothing_left()

    def test_output_before_the_answer(self) -> None:
        """Output is asked for when the start is on its way, and let go of when nothing comes of that."""
        for query, headers, count in (("?follow=1", {}, 1), ("", EVENTS, 2)):
            start = self.scheduler.held["start"] = Deferred()
            client = self.server.ask("POST", f"/v1/jobs{query}", b'{"worker": "w1", "command": "echo"}', **headers)
            self.assertEqual(len(self.scheduler.readers()), count)
            start.errback(StartUnanswered("w1", "job-1"))
            self.assertEqual(client.response().status, 504)
            self.assert_nothing_left()

    def test_gone_before_the_answer(self) -> None:
        """A client that leaves during the start leaves no reader."""
        self.scheduler.held["start"] = Deferred()
        self.server.ask("POST", "/v1/jobs?follow=1", b'{"worker": "w1", "command": "echo"}').hang_up()
        self.assert_nothing_left()

    def test_gone_before_the_start(self) -> None:
        """When the client is gone nothing is asked for, though its job is started all the same."""
        output = FromTheStart(self.scheduler, [Stream.STDOUT])
        with self.assertRaises(CancelledError), output:
            raise CancelledError
        output.starting(self.scheduler.add_job())
        self.assert_nothing_left()

    def test_queued(self) -> None:
        """One that waits for a worker has its headers at once, and its bytes when it runs."""
        self.scheduler.workers_are(WorkerState.UNREACHABLE)
        client = self.server.ask("POST", "/v1/jobs?follow=1", b'{"selector": {}, "command": "echo"}')
        response = client.response()
        self.assertEqual((response.status, response.headers["x-job-id"], response.body), (201, "job-1", b""))
        self.assertFalse(response.complete)
        self.scheduler.workers_are(WorkerState.ONLINE)
        self.scheduler.write("job-1", b"hello")
        self.scheduler.finish("job-1")
        self.assertEqual((client.response().body, client.response().complete), (b"hello", True))
        self.assert_nothing_left()

    def test_queued_for_nothing(self) -> None:
        """One that is never started ends properly, with nothing."""
        self.scheduler.workers_are(WorkerState.UNREACHABLE)
        client = self.server.ask("POST", "/v1/jobs?follow=1", b'{"selector": {}, "command": "echo"}')
        self.clock.advance(3600)
        self.assertIs(self.scheduler.job("job-1").state, JobState.FAILED)
        self.assertEqual((client.response().body, client.response().complete), (b"", True))
        self.assert_nothing_left()

    def test_submitted_unfollowed(self) -> None:
        """When the job runs but can't be followed, whatever the reason, the problem names it, and is no 5xx."""
        for query, headers in (("?follow=1", {}), ("", EVENTS)):
            for error in (Busy("streams", 256), ShuttingDown(), Unsupported("w1", "output"), Unreachable("w1")):
                self.scheduler.fail["open_output"] = error
                body = b'{"worker": "w1", "command": "echo"}'
                response = self.server.ask("POST", f"/v1/jobs{query}", body, **headers).response()
                document, job_id = response.json(), self.scheduler._newest()[0].id
                self.assertEqual((response.status, document["type"]), (424, "/problems/output-unavailable"))
                self.assertEqual((document["job_id"], document["job"]["id"]), (job_id, job_id))
                check_problem(document, 424, "POST", "/v1/jobs")
                self.assertIs(document["started"], True)
                self.assertIn(str(error), document["detail"])
                self.assertEqual(response.headers["location"], f"/v1/jobs/{job_id}")
                self.assertNotIn("retry-after", response.headers)

    def test_submitted_and_cut(self) -> None:
        """When the output is lost later the connection is cut: the headers have named the job."""
        client = self.server.ask("POST", "/v1/jobs?follow=1", b'{"worker": "w1", "command": "echo"}')
        self.successResultOf(self.server.site.drain(5.0))
        response = client.response()
        self.assertEqual((response.status, response.headers["x-job-id"], response.complete), (201, "job-1", False))
        self.assertFalse(client.socket.connected)
        self.assert_nothing_left()

    def test_submitted_before(self) -> None:
        """The output of a job that ended long ago may be gone: the answer to its key says so, and is no 5xx."""
        body = b'{"worker": "w1", "command": "echo"}'
        self.server.ask("POST", "/v1/jobs", body, idempotency_key="k")
        self.scheduler.write("job-1", b"x")
        self.scheduler.finish("job-1")
        self.scheduler.prune("job-1")
        response = self.server.ask("POST", "/v1/jobs?follow=1", body, idempotency_key="k").response()
        self.assertEqual((response.status, response.json()["job_id"]), (424, "job-1"))
        self.assertIn("no longer kept", response.json()["detail"])
        self.assert_nothing_left()

    def test_submitted_to_a_core_worker(self) -> None:
        """A worker whose output can't be had is not made to run what should be followed."""
        self.scheduler.add_worker("old", boot_id="")
        body = b'{"worker": "old", "command": "echo"}'
        self.assertEqual(self.server.ask("POST", "/v1/jobs?follow=1", body).response().status, 501)
        self.assertEqual(self.server.ask("POST", "/v1/jobs", body, **EVENTS).response().status, 501)
        self.assertEqual(self.scheduler.calls, [])
