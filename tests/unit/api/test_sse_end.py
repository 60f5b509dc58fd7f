"""Event streams: the end, resuming, and streams of submissions."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from scheduler.api import streams
from scheduler.cluster.jobs.queue import SWEEP_INTERVAL_SECONDS
from scheduler.errors import NotFound, Unavailable
from scheduler.model import JobState, Stream
from scheduler.terms import QueueTerms, Retry, Target
from tests.unit.api.cases import EVENTS, StreamTestCase, parse
from tests.unit.api.conversation import Connection
from tests.unit.api.test_event_text import bytes_of


class EndTests(StreamTestCase):
    def test_end_with_output(self) -> None:
        """With ``output`` the event ``end`` has the last bytes of both streams."""
        job = self.fleet.add_job(b"0123456789", b"err")
        client = self.events(job.id, "?output=4")
        started = self.server.ask("POST", "/v1/jobs?output=4", b'{"worker": "w1", "command": "echo"}', **EVENTS)
        self.fleet.write("job-2", b"abcdef")
        self.assertNotIn("stdout", parse(client.response().body)[0][2])
        self.fleet.end(job.id)
        self.fleet.end("job-2")
        end = parse(client.response().body)[-1][2]
        self.assertEqual((end["stdout"], end["stdout_offset"], end["stdout_cut"]), ("6789", 6, True))
        self.assertEqual((end["stderr"], end["stderr_offset"], end["stderr_cut"]), ("err", 0, False))
        self.assertEqual(parse(started.response().body)[-1][2]["stdout"], "cdef")

    def test_hang_up_before_the_end_is_read(self) -> None:
        """A client that leaves while the output for ``end`` is read leaves nothing behind."""
        job = self.fleet.add_job(b"x")
        client = self.events(job.id, "?output=4")
        read = self.scheduler.held["read_output"] = Deferred()
        self.fleet.end(job.id)
        self.assertEqual(parse(client.response().body)[-1][0], "stdout")
        client.hang_up()
        self.assertTrue(read.called)  # it was cancelled

    def test_end_waits_for_the_job(self) -> None:
        """Streams may end before the job's end is known: ``end`` comes with the final state."""
        job = self.fleet.add_job(b"x")
        client = self.events(job.id)
        self.fleet.end(job.id, 3, report=False)
        self.assertEqual([name for name, _, _ in parse(client.response().body)], ["job", "stdout"])
        self.house.report("id-w1")
        self.assertEqual(parse(client.response().body)[-1][2]["exit_code"], 3)

    def test_end_names_the_next_attempt(self) -> None:
        """The ``end`` of a job that is retried names the next attempt."""
        retry = QueueTerms(queue_timeout=60.0, retry=Retry(1, 30.0))
        job = self.fleet.add_job(b"x", terms=retry, target=Target(worker="w1"), group_id="g")
        client = self.events(job.id)
        self.fleet.end(job.id, 3)
        name, _, data = parse(client.response().body)[-1]
        following = self.scheduler.last_attempt(job.id)
        self.assertEqual((name, data["id"], data["retried_by"]), ("end", job.id, following.id))
        self.clock.advance(30.0)
        self.fleet.end(following.id)
        self.clock.advance(SWEEP_INTERVAL_SECONDS)

    def test_end_never_lies(self) -> None:
        """If the job does not become final, the client is told to resume, not that the job ended."""
        job = self.fleet.add_job(b"x")
        client = self.events(job.id)
        self.fleet.end(job.id, report=False)
        self.clock.pump([streams.END_WAIT_MAX_SECONDS / 4] * 4)
        self.assertEqual([name for name, _, _ in parse(client.response().body)], ["job", "stdout", "resume"])
        self.assertTrue(client.response().complete)

    def test_removed_meanwhile(self) -> None:
        """If the job's end can't be awaited, because it was removed or by a bug, the response is cut without an end."""
        for error in (NotFound("job", "job-1"), RuntimeError("a bug")):
            self.scheduler.fail["wait"] = error
            job = self.fleet.add_job(b"out")
            client = self.events(job.id)
            self.fleet.end(job.id)
            self.assertEqual([name for name, _, _ in parse(client.response().body)], ["job", "stdout"])
            self.assertEqual((client.response().complete, client.socket.connected), (False, False))
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), isinstance(error, RuntimeError))

    def test_hang_up_while_settling(self) -> None:
        """A client that leaves between the last byte and the end leaves nothing behind."""
        job = self.fleet.add_job(b"x")
        client = self.events(job.id)
        self.fleet.end(job.id, report=False)
        client.hang_up()


class ResumeTests(StreamTestCase):
    def test_resumed(self) -> None:
        """A stream continues after the last event, by header or parameter; the header goes before the parameter."""
        job = self.fleet.add_job(b"0123456789", b"abcdef", state=JobState.SUCCEEDED)
        for client in (
            self.events(job.id, "?offset=8,4"),
            self.events(job.id, last_event_id="8,4"),
            self.events(job.id, "?offset=1,1", last_event_id="8,4"),
        ):
            found = parse(client.response().body)
            self.assertEqual(found[0][:2], ("job", "8,4"))
            self.assertEqual([data.get("text") for _, _, data in found[1:3]], ["89", "ef"])
            self.assertEqual(found[-1][1], "10,6,end")

    def test_resumed_at_the_end(self) -> None:
        """A stream that is resumed after its end is 204, so that a browser does not reconnect."""
        job = self.fleet.add_job(b"x", state=JobState.SUCCEEDED)
        last = parse(self.events(job.id).response().body)[-1][1]
        self.assertEqual(last, "1,0,end")
        for client in (self.events(job.id, last_event_id=last), self.events(job.id, f"?offset={last}")):
            self.assertEqual((client.response().status, client.response().body), (204, b""))
        self.assertEqual(self.events("nope", last_event_id=last).response().status, 404)
        self.assertEqual(self.events(job.id, last_event_id="x,end").response().status, 400)

    def test_resumed_too_far(self) -> None:
        """An offset beyond the output of a stream is refused before any event, whether the job has ended or not."""
        job = self.fleet.add_job(b"abc", b"d")
        for ended in (False, True):
            if ended:
                self.fleet.end(job.id)
            for offset in ("4,0", "0,2"):
                self.assertEqual(self.events(job.id, last_event_id=offset).response().status, 416, offset)

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
        """A client that hangs up anywhere and resumes by the last id gets every byte of both streams once."""
        job = self.fleet.add_job()
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
            self.fleet.write(job.id, data, stream)
            if hang_up:
                last = take(client)
                client.hang_up()
                client = self.events(job.id, last_event_id=last)
        self.fleet.end(job.id)
        take(client)
        self.assertEqual(parse(client.response().body)[-1][0], "end")
        for stream in Stream:
            whole = b"".join(data for of, data, _ in writes if of is stream)
            self.assertEqual(got[stream.value], whole)
        self.assert_nothing_left()


class SubmittedTests(StreamTestCase):
    """``POST /v1/jobs`` with ``Accept: text/event-stream``."""

    def test_submitted(self) -> None:
        """A POST is answered with the event ``job`` at once."""
        client = self.server.ask("POST", "/v1/jobs", b'{"worker": "w1", "command": "echo"}', **EVENTS)
        response = client.response()
        self.assertEqual((response.status, response.headers["x-job-id"]), (201, "job-1"))
        [(name, event_id, data)] = parse(response.body)
        self.assertEqual((name, event_id, data["id"]), ("job", "0,0", "job-1"))
        self.fleet.end("job-1")
        self.assertEqual([name for name, _, _ in parse(client.response().body)], ["job", "end"])

    def test_queued(self) -> None:
        """The first event is the queued job; the others come when it runs, or its end if it never runs."""
        body = b'{"selector": {}, "command": "echo", "queue_timeout": 5}'
        self.fleet.lose()
        late = self.server.ask("POST", "/v1/jobs", body, **EVENTS)
        [(name, _, data)] = parse(late.response().body)
        self.assertEqual((name, data["state"]), ("job", "queued"))
        self.clock.advance(5)
        self.assertEqual([name for name, _, _ in parse(late.response().body)], ["job", "end"])
        client = self.server.ask("POST", "/v1/jobs", body, **EVENTS)
        self.fleet.find()
        self.fleet.write("job-2", b"x")
        self.fleet.end("job-2")
        self.assertEqual([name for name, _, _ in parse(client.response().body)], ["job", "job", "job", "stdout", "end"])
        self.clock.advance(SWEEP_INTERVAL_SECONDS)

    def test_submit_refused(self) -> None:
        """A refused start is a problem document, not a stream."""
        self.scheduler.fail["submit"] = Unavailable("no")
        body = b'{"worker": "w1", "command": "echo"}'
        response = self.server.ask("POST", "/v1/jobs", body, **EVENTS).response()
        self.assertEqual((response.status, response.headers["content-type"]), (503, "application/problem+json"))
