"""Raw follows: the bytes that are sent, and the end of the body."""

from scheduler.api import streams
from scheduler.errors import (
    Busy,
    DeadlineExceeded,
    NotFound,
    Unavailable,
    Unreachable,
    WorkerFault,
)
from scheduler.model import JobState
from tests.unit.api.cases import EVENTS, StreamTestCase


class FollowTests(StreamTestCase):
    """``GET /v1/jobs/{id}/output?follow=1``."""

    def test_ends_with_the_job(self) -> None:
        """Bytes come as they are written, and the body ends when the job has ended and all bytes were sent."""
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
        """The body begins at the offset, for either stream."""
        job = self.scheduler.add_job(b"out", b"errors", state=JobState.FAILED)
        self.assertEqual(self.follow(job.id, "&stream=stderr&offset=3").response().body, b"ors")

    def test_tail(self) -> None:
        """The body begins with the last lines, and a header has their offset."""
        job = self.scheduler.add_job(b"a\nb\nc\n")
        client = self.follow(job.id, "&tail=2")
        self.assertEqual(client.response().body, b"b\nc\n")
        self.assertEqual(client.response().headers["x-output-offset"], "2")

    def test_trailers(self) -> None:
        """After the last byte come the state and the exit code, if there is one; the headers announce both."""
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
        """A stream may end before the job's end is known: the body ends with the final state."""
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
        """If the job does not become final, the body is cut instead of ended."""
        job = self.scheduler.add_job(b"x")
        client = self.follow(job.id)
        self.scheduler.end_output(job.id)
        self.clock.pump([streams.END_WAIT_MAX_SECONDS / 4] * 4)
        self.assertEqual((client.response().body, client.response().complete), (b"x", False))
        self.assertFalse(client.socket.connected)
        self.assert_nothing_left()

    def test_headers_before_output(self) -> None:
        """A silent job is answered with headers at once, also to a follower that resumes."""
        job = self.scheduler.add_job()
        response = self.follow(job.id).response()
        self.assertEqual((response.status, response.headers["x-job-id"], response.body), (200, job.id, b""))
        self.scheduler.write(job.id, b"x")
        response = self.follow(job.id, "&offset=1").response()
        self.assertEqual((response.status, response.headers["x-output-offset"], response.body), (200, "1", b""))

    def test_headers_of_an_ended_job(self) -> None:
        """The headers of an ended job wait for its first byte, but not for long."""
        job = self.scheduler.add_job(state=JobState.SUCCEEDED)
        self.scheduler.reopen(job.id)
        client = self.follow(job.id)
        self.assertFalse(client.answered)
        self.clock.advance(streams.HEADERS_WAIT_MAX_SECONDS)
        self.assertEqual(client.response().status, 200)

    def test_much_at_once(self) -> None:
        """The stack does not grow with the number of chunks that are ready."""
        self.scheduler.piece = 1
        job = self.scheduler.add_job(b"x" * 5000, state=JobState.SUCCEEDED)
        self.assertEqual(self.follow(job.id).response().body, b"x" * 5000)


class FailureTests(StreamTestCase):
    """A raw follow that fails."""

    def test_failure_before_output(self) -> None:
        """A failure before the headers is a problem document."""
        job = self.scheduler.add_job(state=JobState.SUCCEEDED)
        self.scheduler.reopen(job.id)
        client = self.follow(job.id)
        self.scheduler.readers()[0].break_with(NotFound("job", job.id))
        self.assertEqual(client.response().status, 404)
        self.assertEqual(client.response().headers["content-type"], "application/problem+json")
        self.assertNotIn("trailer", client.response().headers)
        self.assert_nothing_left()

    def test_failure_after_headers(self) -> None:
        """A failure after the headers of a running job cuts the connection."""
        client = self.follow(self.scheduler.add_job().id)
        self.scheduler.readers()[0].break_with(Unavailable("lost"))
        self.assertEqual((client.response().status, client.response().complete), (200, False))
        self.assertFalse(client.socket.connected)
        self.assert_nothing_left()

    def test_offset_that_can_not_be(self) -> None:
        """An offset beyond the output of a running job is refused before any header."""
        job = self.scheduler.add_job(b"abc")
        self.assertEqual(self.follow(job.id, "&offset=4").response().status, 416)
        self.scheduler.prune(job.id)
        self.assertEqual(self.follow(job.id, "&offset=1").response().status, 410)
        self.assert_nothing_left()

    def test_offset_that_can_not_be_checked(self) -> None:
        """If the worker can't be asked about the offset, the follower gets headers and waits for the worker."""
        job = self.scheduler.add_job(b"abc")
        for error in (Unreachable("w1"), Busy("reads", 4), DeadlineExceeded("read", 10), WorkerFault("w1", "what")):
            self.scheduler.fail["read_output"] = error
            client = self.follow(job.id, "&offset=3")
            self.assertEqual(client.response().status, 200)
            client.hang_up()
        self.assert_nothing_left()

    def test_failure_midway(self) -> None:
        """A failure later cuts the connection, so the body is seen to be short."""
        job = self.scheduler.add_job(b"some")
        client = self.follow(job.id)
        self.scheduler.readers()[0].break_with(Unavailable("lost"))
        self.assertEqual((client.response().body, client.response().complete), (b"some", False))
        self.assertFalse(client.socket.connected)
        self.assert_nothing_left()

    def test_bug_midway(self) -> None:
        """A gap between chunks is never sent."""
        job = self.scheduler.add_job(b"some")
        client = self.follow(job.id)
        self.scheduler.readers()[0].offset = 8
        self.scheduler.write(job.id, b"thing else")
        self.assertEqual(client.response().body, b"some")
        self.assertFalse(client.socket.connected)
        self.assertEqual(len(self.flushLoggedErrors(AssertionError)), 1)
        self.assert_nothing_left()

    def test_refused(self) -> None:
        """If no reader can be opened, the error is the answer."""
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

    def test_shutdown(self) -> None:
        """At shutdown a follower is cut; a follower without headers gets a problem document."""
        silent, loud = self.scheduler.add_job(state=JobState.SUCCEEDED), self.scheduler.add_job(b"x")
        self.scheduler.reopen(silent.id)
        waiting, reading = self.follow(silent.id), self.follow(loud.id)
        self.successResultOf(self.server.site.drain(5.0))
        self.assertEqual(waiting.response().status, 503)
        self.assertEqual((reading.response().body, reading.response().complete), (b"x", False))
        self.assert_nothing_left()

    def test_mistakes(self) -> None:
        """A parameter that makes no sense for a raw follow is refused, and nothing is started."""
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
