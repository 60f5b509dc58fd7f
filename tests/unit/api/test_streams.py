"""Following output: what is sent, when it ends, and what a slow or lost client costs."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from scheduler.api import streams
from scheduler.api.following import FromTheStart
from scheduler.errors import Busy, NotFound, StartUnanswered, Unavailable
from scheduler.model import JobState, Retry, Stream, Target, Terms, WorkerState
from tests.unit.api.conversation import Connection, Server
from tests.unit.api.test_events import bytes_of

EVENTS = {"accept": "text/event-stream"}


class StreamTestCase(SynchronousTestCase):
    """A server, and afterwards nothing is left of any stream."""

    def setUp(self) -> None:
        self.server = Server()
        self.scheduler = self.server.scheduler
        self.clock = self.server.clock

    def follow(self, job_id: str, more: str = "", **headers: str) -> Connection:
        return self.server.ask("GET", f"/v1/jobs/{job_id}/output?follow=1{more}", **headers)

    def assert_nothing_left(self) -> None:
        self.assertEqual(self.scheduler.readers(), [])
        self.assertEqual(self.scheduler.waits, 0)
        for channel in list(self.server.site.channels):
            channel.loseConnection()
        self.assertEqual(self.clock.getDelayedCalls(), [])


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

    def test_headers_before_output(self) -> None:
        """A job that is silent is answered with headers soon all the same."""
        job = self.scheduler.add_job()
        client = self.follow(job.id)
        self.assertFalse(client.answered)
        self.clock.advance(streams.HOLD)
        self.assertEqual(client.response().status, 200)

    def test_failure_before_output(self) -> None:
        """What fails before anything was sent is a problem document."""
        job = self.scheduler.add_job()
        client = self.follow(job.id)
        self.scheduler.readers()[0].break_with(NotFound("job", job.id))
        self.assertEqual(client.response().status, 404)
        self.assertEqual(client.response().headers["content-type"], "application/problem+json")
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
        """A client that knows no chunks sees a reset where the body is cut, and a close where it ends."""
        for cut in (True, False):
            job = self.scheduler.add_job(b"some")
            client = self.server.connect()
            target = f"/v1/jobs/{job.id}/output?follow=1"
            client.send(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            self.assertTrue(client.socket.received.endswith(b"\r\n\r\nsome"))
            if cut:
                self.scheduler.readers()[0].break_with(Unavailable("lost"))
            else:
                self.scheduler.finish(job.id)
            self.assertEqual((client.socket.connected, client.socket.aborted), (False, cut))
        self.assert_nothing_left()

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
        classic = self.scheduler.add_worker("old", boot_id="")
        job = self.scheduler.add_job()
        self.scheduler.fail["open_output"] = Busy("streams", 256)
        self.assertEqual(self.follow(job.id).response().status, 503)
        del self.scheduler.fail["open_output"]
        self.server.ask("POST", "/start", b'{"worker_id": "old", "command": "a"}')
        old = next(job for job in self.scheduler._newest() if job.worker_id == classic.id)
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
        silent, loud = self.scheduler.add_job(), self.scheduler.add_job(b"x")
        waiting, reading = self.follow(silent.id), self.follow(loud.id)
        self.successResultOf(self.server.site.drain(5.0))
        self.assertEqual(waiting.response().status, 503)
        self.assertEqual((reading.response().body, reading.response().complete), (b"x", False))
        self.assert_nothing_left()

    def test_submitted(self) -> None:
        """One POST runs a job, streams its output, and names it in its headers."""
        client = self.server.ask("POST", "/v1/jobs?follow=1", b'{"worker": "w1", "command": "echo"}')
        self.clock.advance(streams.HOLD)
        job = self.scheduler.job(client.response().headers["x-job-id"])
        self.assertEqual(client.response().status, 201)
        self.assertEqual(client.response().headers["location"], f"/v1/jobs/{job.id}")
        self.scheduler.write(job.id, b"hello")
        self.scheduler.finish(job.id)
        self.assertEqual((client.response().body, client.response().complete), (b"hello", True))
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
        """When the job runs but can't be followed, the problem names it."""
        self.scheduler.fail["open_output"] = Busy("streams", 256)
        response = self.server.ask("POST", "/v1/jobs?follow=1", b'{"worker": "w1", "command": "echo"}').response()
        self.assertEqual((response.status, response.json()["job_id"]), (503, "job-1"))
        self.assertEqual(response.headers["location"], "/v1/jobs/job-1")

    def test_submitted_and_cut(self) -> None:
        """So it does when the output is lost before its first byte."""
        client = self.server.ask("POST", "/v1/jobs?follow=1", b'{"worker": "w1", "command": "echo"}')
        self.successResultOf(self.server.site.drain(5.0))
        response = client.response()
        self.assertEqual((response.status, response.json().get("job_id")), (503, "job-1"))
        self.assertEqual(response.headers["location"], "/v1/jobs/job-1")
        self.assert_nothing_left()

    def test_submitted_to_a_classic_worker(self) -> None:
        """A worker whose output can't be had is not made to run what should be followed."""
        self.scheduler.add_worker("old", boot_id="")
        body = b'{"worker": "old", "command": "echo"}'
        self.assertEqual(self.server.ask("POST", "/v1/jobs?follow=1", body).response().status, 501)
        self.assertEqual(self.server.ask("POST", "/v1/jobs", body, **EVENTS).response().status, 501)
        self.assertEqual(self.scheduler.calls, [])


def parse(body: bytes) -> list[tuple[str, str, dict[str, object]]]:
    """Name, id and data of each event, as a browser reads them."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if "data" in fields:
            found.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return found


class EventStreamTests(StreamTestCase):
    """Server-sent events."""

    def events(self, job_id: str, query: str = "", **headers: str) -> Connection:
        return self.server.ask("GET", f"/v1/jobs/{job_id}/output{query}", **EVENTS, **headers)

    def test_whole_run(self) -> None:
        """Both streams as they come, then the end with the job; ids count what was sent of both."""
        job = self.scheduler.add_job(b"one")
        client = self.events(job.id)
        self.scheduler.write(job.id, b"bad", Stream.STDERR)
        self.scheduler.write(job.id, b"\xff")
        self.scheduler.finish(job.id, exit_code=0)
        self.assertEqual(client.response().headers["content-type"], "text/event-stream")
        found = parse(client.response().body)
        self.assertEqual(
            found[:3],
            [
                ("stdout", "3,0", {"offset": 0, "text": "one"}),
                ("stderr", "3,3", {"offset": 0, "text": "bad"}),
                ("stdout", "4,3", {"offset": 3, "base64": "/w=="}),
            ],
        )
        self.assertEqual((found[3][0], found[3][1], found[3][2]["state"]), ("end", "4,3", "succeeded"))
        self.assertEqual(len(found), 4)
        self.assertTrue(client.response().complete)
        self.assert_nothing_left()

    def test_resumed(self) -> None:
        """It goes on after the last event, by header or parameter; the header is the later word."""
        job = self.scheduler.add_job(b"0123456789", b"abcdef", state=JobState.SUCCEEDED)
        for client in (
            self.events(job.id, "?offset=8,4"),
            self.events(job.id, last_event_id="8,4"),
            self.events(job.id, "?offset=1,1", last_event_id="8,4"),
        ):
            found = parse(client.response().body)
            self.assertEqual([data.get("text") for _, _, data in found[:2]], ["89", "ef"])
            self.assertEqual(found[-1][1], "10,6")

    def test_mistakes(self) -> None:
        """What makes no sense for events is refused before any."""
        job = self.scheduler.add_job()
        for query in ("?offset=x", "?offset=-1,0", "?stream=stdout", "?tail=1&offset=1,1", "?tail=x"):
            self.assertEqual(self.events(job.id, query).response().status, 400, query)
        self.assertEqual(self.events(job.id, last_event_id="x").response().status, 400)
        self.assertEqual(self.events(job.id, range="bytes=0-1").response().status, 400)
        self.assert_nothing_left()

    def test_tail(self) -> None:
        """The last lines of each stream."""
        job = self.scheduler.add_job(b"a\nb\n", b"x\ny\n", state=JobState.SUCCEEDED)
        found = parse(self.events(job.id, "?tail=1").response().body)
        self.assertEqual([data.get("text") for _, _, data in found[:2]], ["b\n", "y\n"])

    def test_end_waits_for_the_job(self) -> None:
        """Streams may end before the job is known to: the end comes with its final state."""
        job = self.scheduler.add_job(b"x")
        client = self.events(job.id)
        self.scheduler.end_output(job.id)
        self.assertEqual([name for name, _, _ in parse(client.response().body)], ["stdout"])
        self.scheduler.finish(job.id, JobState.FAILED, exit_code=3)
        self.assertEqual(parse(client.response().body)[-1][2]["exit_code"], 3)
        self.assert_nothing_left()

    def test_end_names_the_next_attempt(self) -> None:
        """The end of a job that is run again says by which job."""
        retry = Terms(queue_timeout=60.0, retry=Retry(1, 30.0))
        job = self.scheduler.add_job(b"x", terms=retry, target=Target(worker="w1"), group_id="g")
        client = self.events(job.id)
        self.scheduler.finish(job.id, JobState.FAILED, exit_code=3)
        name, _, data = parse(client.response().body)[-1]
        following = self.scheduler.last_attempt(job.id)
        self.assertEqual((name, data["id"], data["retried_by"]), ("end", job.id, following.id))
        self.scheduler.finish(following.id)
        self.assert_nothing_left()

    def test_end_never_lies(self) -> None:
        """When the job does not become final, the client is told to come back, not that it ended."""
        job = self.scheduler.add_job(b"x")
        client = self.events(job.id)
        self.scheduler.end_output(job.id)
        self.clock.pump([streams.SETTLE / 4] * 4)
        self.assertEqual([name for name, _, _ in parse(client.response().body)], ["stdout", "resume"])
        self.assertTrue(client.response().complete)
        self.assert_nothing_left()

    def test_hang_up_while_settling(self) -> None:
        """A client that leaves between the last byte and the end leaves nothing behind."""
        job = self.scheduler.add_job(b"x")
        client = self.events(job.id)
        self.scheduler.end_output(job.id)
        client.hang_up()
        self.assert_nothing_left()

    def test_heartbeat(self) -> None:
        """While nothing happens a comment is sent now and then, but not to a client that does not read."""
        job = self.scheduler.add_job(b"x")
        client = self.events(job.id)
        before = client.response().body
        self.clock.advance(streams.HEARTBEAT_INTERVAL)
        self.assertEqual(client.response().body, before + b":\n\n")
        client.socket.producer.pauseProducing()
        self.clock.advance(streams.HEARTBEAT_INTERVAL)
        self.assertEqual(client.response().body, before + b":\n\n")
        client.socket.take()
        self.clock.advance(streams.HEARTBEAT_INTERVAL)
        self.assertEqual(client.response().body, before + b":\n\n:\n\n")
        client.hang_up()
        self.assert_nothing_left()

    def test_submitted(self) -> None:
        """A POST sends the job first, at once."""
        client = self.server.ask("POST", "/v1/jobs", b'{"worker": "w1", "command": "echo"}', **EVENTS)
        response = client.response()
        self.assertEqual((response.status, response.headers["x-job-id"]), (201, "job-1"))
        [(name, event_id, data)] = parse(response.body)
        self.assertEqual((name, event_id, data["id"]), ("job", "0,0", "job-1"))
        self.scheduler.finish("job-1")
        self.assertEqual([name for name, _, _ in parse(client.response().body)], ["job", "end"])
        self.assert_nothing_left()

    def test_queued(self) -> None:
        """The first event is the job that waits, and the others come when it runs; or its end, if it never does."""
        body = b'{"selector": {}, "command": "echo", "queue_timeout": 5}'
        self.scheduler.workers_are(WorkerState.UNREACHABLE)
        late = self.server.ask("POST", "/v1/jobs", body, **EVENTS)
        [(name, _, data)] = parse(late.response().body)
        self.assertEqual((name, data["state"]), ("job", "queued"))
        self.clock.advance(5)
        self.assertEqual([name for name, _, _ in parse(late.response().body)], ["job", "end"])
        client = self.server.ask("POST", "/v1/jobs", body, **EVENTS)
        self.scheduler.workers_are(WorkerState.ONLINE)
        self.scheduler.write("job-2", b"x")
        self.scheduler.finish("job-2")
        self.assertEqual([name for name, _, _ in parse(client.response().body)], ["job", "stdout", "end"])
        self.assert_nothing_left()

    def test_submit_refused(self) -> None:
        """A start that is refused is a problem document, not a stream."""
        self.scheduler.fail["submit"] = Unavailable("no")
        body = b'{"worker": "w1", "command": "echo"}'
        response = self.server.ask("POST", "/v1/jobs", body, **EVENTS).response()
        self.assertEqual((response.status, response.headers["content-type"]), (503, "application/problem+json"))

    def test_one_reader_only(self) -> None:
        """When the second stream can't be opened, the first is let go."""
        job = self.scheduler.add_job()
        opened = self.scheduler.open_output

        def once(job_id: str, stream: Stream, offset: int) -> object:
            if stream is Stream.STDERR:
                raise Busy("streams", 1)
            return opened(job_id, stream, offset)

        self.patch(self.scheduler, "open_output", once)
        self.assertEqual(self.events(job.id).response().status, 503)
        self.assert_nothing_left()

    def test_failure_midway(self) -> None:
        """One stream that fails cuts the whole, without an end."""
        job = self.scheduler.add_job(b"x")
        client = self.events(job.id)
        self.scheduler.readers()[1].break_with(Unavailable("lost"))
        self.assertEqual([name for name, _, _ in parse(client.response().body)], ["stdout"])
        self.assertEqual((client.response().complete, client.socket.connected), (False, False))
        self.assert_nothing_left()

    def test_shutdown(self) -> None:
        """At shutdown the client is told to resume, where it is, and the body ends properly."""
        job = self.scheduler.add_job(b"x\xc3")
        client = self.events(job.id)
        self.successResultOf(self.server.site.drain(5.0))
        self.assertEqual(parse(client.response().body)[-1], ("resume", "1,0", {}))
        self.assertTrue(client.response().complete)
        self.assert_nothing_left()

    def test_slow_client_sees_both(self) -> None:
        """One stream that never runs dry does not keep the other from a slow client."""
        self.scheduler.piece = 1000
        job = self.scheduler.add_job(b"x" * 100_000, b"y" * 3000)
        client = self.server.connect()
        client.socket.room = 500
        client.ask("GET", f"/v1/jobs/{job.id}/output", **EVENTS)
        for _ in range(10):
            client.socket.take()
        names = [name for name, _, _ in parse(client.response().body)]
        self.assertEqual(names.count("stderr"), 3)
        self.assertGreater(names.count("stdout"), 3)
        client.hang_up()
        self.assert_nothing_left()

    @settings(deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(list(Stream)),
                st.binary(max_size=8) | st.text(max_size=4).map(str.encode),
                st.booleans(),
            ),
            max_size=20,
        )
    )
    def test_resumes_lose_nothing(self, writes: list[tuple[Stream, bytes, bool]]) -> None:
        """Hung up anywhere and resumed by the last id, every byte of both streams comes once."""
        self.setUp()
        job = self.scheduler.add_job()
        got = {stream.value: b"" for stream in Stream}
        last = "0,0"

        def take(client: Connection) -> str:
            position = last
            if client.answered:
                for name, event_id, data in parse(client.response().body):
                    position = event_id
                    if name in got:
                        self.assertEqual(data["offset"], len(got[name]))
                        got[name] += bytes_of(data)
            return position

        client = self.events(job.id, last_event_id=last)
        for stream, data, hang_up in writes:
            self.scheduler.write(job.id, data, stream)
            if hang_up:
                last = take(client)
                client.hang_up()
                client = self.events(job.id, last_event_id=last)
        self.scheduler.finish(job.id)
        take(client)
        self.assertEqual(parse(client.response().body)[-1][0], "end")
        for stream in Stream:
            whole = b"".join(data for of, data, _ in writes if of is stream)
            self.assertEqual(got[stream.value], whole)
        self.assert_nothing_left()
