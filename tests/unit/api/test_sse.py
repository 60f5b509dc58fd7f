"""A job as events: what is sent, how it ends, and where it is resumed."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from scheduler.api import sse, streams
from scheduler.api.context import Context
from scheduler.cluster.jobs.queue import SWEEP_INTERVAL_SECONDS
from scheduler.errors import Busy, NotFound, OutputPruned, Unavailable, WorkerFault
from scheduler.messages import Chunk
from scheduler.model import JobState, QueueTerms, Retry, Stream, Target
from tests.unit.api.conversation import Connection
from tests.unit.api.streaming import EVENTS, StreamTestCase, parse
from tests.unit.api.test_events import bytes_of


class EventStreamTests(StreamTestCase):
    """Server-sent events."""

    def events(self, job_id: str, query: str = "", **headers: str) -> Connection:
        return self.server.ask("GET", f"/v1/jobs/{job_id}/output{query}", **EVENTS, **headers)

    def test_whole_run(self) -> None:
        """Both streams as they come, then the end with the job; ids count what was sent of both."""
        job = self.fleet.add_job(b"one")
        client = self.events(job.id)
        self.fleet.write(job.id, b"bad", Stream.STDERR)
        self.fleet.write(job.id, b"\xff")
        self.fleet.end(job.id)
        self.assertEqual(client.response().headers["content-type"], "text/event-stream")
        (name, event_id, data), *found = parse(client.response().body)
        self.assertEqual((name, event_id, data["id"], data["state"]), ("job", "0,0", job.id, "running"))
        self.assertEqual(
            found[:3],
            [
                ("stdout", "3,0", {"offset": 0, "text": "one"}),
                ("stderr", "3,3", {"offset": 0, "text": "bad"}),
                ("stdout", "4,3", {"offset": 3, "base64": "/w=="}),
            ],
        )
        self.assertEqual((found[3][0], found[3][1], found[3][2]["state"]), ("end", "4,3,end", "succeeded"))
        self.assertEqual(len(found), 4)
        self.assertTrue(client.response().complete)
        self.assert_nothing_left()

    def test_resumed(self) -> None:
        """It goes on after the last event, by header or parameter; the header is the later word."""
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
        """After the end nothing follows, and a browser that is told so does not come again."""
        job = self.fleet.add_job(b"x", state=JobState.SUCCEEDED)
        last = parse(self.events(job.id).response().body)[-1][1]
        self.assertEqual(last, "1,0,end")
        for client in (self.events(job.id, last_event_id=last), self.events(job.id, f"?offset={last}")):
            self.assertEqual((client.response().status, client.response().body), (204, b""))
        self.assertEqual(self.events("nope", last_event_id=last).response().status, 404)
        self.assertEqual(self.events(job.id, last_event_id="x,end").response().status, 400)
        self.assert_nothing_left()

    def test_accept(self) -> None:
        """They are sent where they are named, and nothing that goes before them is wanted more; ``q=0`` is never."""
        job = self.fleet.add_job(b"some", state=JobState.SUCCEEDED)
        submission = b'{"worker": "w1", "command": "echo"}'
        for accept, raw, document in (
            ("text/event-stream", True, True),
            ("TEXT/Event-Stream; charset=utf-8", True, True),
            ("text/event-stream, */*", True, True),
            ("text/event-stream, text/plain, application/json", True, True),
            ("text/event-stream;q=0.1, image/png", True, True),
            ("text/event-stream;q=0.5, */*;q=0.1, text/*;q=0.2", True, True),
            ("text/event-stream;q=0.5, */*", False, False),
            ("text/event-stream;q=0.5, text/*", False, True),
            ("text/event-stream;q=0.5, text/plain;q=0.4, */*", True, False),
            ("application/json, text/event-stream;q=0.9", True, False),
            ("text/plain, text/event-stream;q=0.9", False, True),
            ("text/event-stream;q=0", False, False),
            ("text/event-stream; q=0.000, */*", False, False),
            ("text/event-stream;q=much", False, False),
            ("text/*", False, False),
            ("*/*", False, False),
            ("", False, False),
        ):
            for method, target, body, expected in (
                ("GET", f"/v1/jobs/{job.id}/output", b"", raw),
                ("GET", f"/v1/jobs/{job.id}/output?follow=1", b"", raw),
                ("POST", "/v1/jobs?follow=1", submission, raw),
                ("POST", "/v1/jobs", submission, document),
            ):
                kind = self.server.ask(method, target, body, accept=accept).response().headers["content-type"]
                self.assertEqual(kind == "text/event-stream", expected, (accept, method, target))

    def test_resumed_too_far(self) -> None:
        """An offset beyond what there is of a stream is refused before any event, whether the job has ended or not."""
        job = self.fleet.add_job(b"abc", b"d")
        for ended in (False, True):
            if ended:
                self.fleet.end(job.id)
            for offset in ("4,0", "0,2"):
                self.assertEqual(self.events(job.id, last_event_id=offset).response().status, 416, offset)
        self.assert_nothing_left()

    def test_pruned(self) -> None:
        """Output of an ended job that is gone is refused before any event."""
        job = self.fleet.add_job(b"abc", state=JobState.SUCCEEDED)
        self.fleet.prune(job.id)
        self.assertEqual(self.events(job.id).response().status, 410)
        self.assert_nothing_left()

    def test_job_first(self) -> None:
        """The job comes at once, before there is any output, and after that only when it changes."""
        job = self.fleet.add_job()
        client = self.events(job.id)
        [(name, event_id, data)] = parse(client.response().body)
        self.assertEqual((name, event_id, data["state"]), ("job", "0,0", "running"))
        self.assertEqual(client.response().headers["x-job-id"], job.id)
        client.hang_up()
        self.assert_nothing_left()

    def test_changes(self) -> None:
        """Each change of state or reason is told when it comes: of a worker that is gone, and that is back."""
        job = self.fleet.add_job(b"x")
        client = self.events(job.id)
        self.fleet.lose()
        self.fleet.find()
        self.fleet.write(job.id, b"y")
        self.fleet.end(job.id, 3)
        found = parse(client.response().body)
        self.assertEqual(
            [(name, event_id, data.get("state")) for name, event_id, data in found],
            [
                ("job", "0,0", "running"),
                ("stdout", "1,0", None),
                ("job", "1,0", "unknown"),
                ("job", "1,0", "running"),
                ("stdout", "2,0", None),
                ("end", "2,0,end", "failed"),
            ],
        )
        self.assertIn("can't be reached", found[2][2]["reason"])
        self.assert_nothing_left()

    def test_other_changes(self) -> None:
        """A change of anything else is no event."""
        job = self.fleet.add_job()
        self.fleet.runner().ends_on_stop = False
        client = self.events(job.id)
        self.server.ask("POST", f"/v1/jobs/{job.id}/stop")
        self.assertIsNotNone(self.scheduler.job(job.id).stop_requested_at)
        self.assertEqual(len(parse(client.response().body)), 1)

    def test_ended_before_its_output(self) -> None:
        """A job may end before its last bytes can be read: that is told, and the end when they came."""
        job = self.fleet.add_job(b"x")
        self.house.workers.hold("stream_output")
        client = self.events(job.id)
        self.fleet.end(job.id, 1)
        self.assertEqual([data.get("state") for _, _, data in parse(client.response().body)][-1], "failed")
        for stream in self.house.workers.running():
            stream.send(Chunk(b"x", 0, end=True))
        self.assertEqual([name for name, _, _ in parse(client.response().body)], ["job", "job", "stdout", "end"])
        self.assert_nothing_left()

    def test_changes_of_a_slow_client(self) -> None:
        """A client that does not read is told the last of the changes when it does, and no other."""
        job = self.fleet.add_job()
        client = self.events(job.id)
        client.socket.producer.pauseProducing()
        for _ in range(5):
            self.fleet.lose()
            self.fleet.find()
        self.fleet.lose()
        self.assertEqual(len(parse(client.response().body)), 1)
        client.socket.take()
        self.assertEqual([data["state"] for _, _, data in parse(client.response().body)], ["running", "unknown"])
        client.hang_up()
        self.assert_nothing_left()

    def test_changes_of_what_it_waits_for(self) -> None:
        """What a queued job waits for changes without a change of the job: that is told with the heartbeat."""
        why = ["no free slot"]
        self.patch(Context, "job_json", lambda _, job: {"id": job.id, "state": job.state.value, "why": why[-1]})
        self.fleet.lose()
        client = self.server.ask("POST", "/v1/jobs", b'{"selector": {}, "command": "echo"}', **EVENTS)
        self.clock.advance(sse.HEARTBEAT_INTERVAL_SECONDS)
        why.append("draining")
        self.clock.pump([sse.HEARTBEAT_INTERVAL_SECONDS] * 2)
        self.assertEqual([data["why"] for _, _, data in parse(client.response().body)], why)
        client.hang_up()
        self.assertTrue(self.house.parts.ledger.idle)

    def test_end_with_output(self) -> None:
        """With ``output`` the end has the last bytes of both streams, as the answer of a call that waits has."""
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
        self.assert_nothing_left()

    def test_hang_up_before_the_end_is_read(self) -> None:
        """A client that leaves while the output of its end is being read leaves nothing behind."""
        job = self.fleet.add_job(b"x")
        client = self.events(job.id, "?output=4")
        read = self.scheduler.held["read_output"] = Deferred()
        self.fleet.end(job.id)
        self.assertEqual(parse(client.response().body)[-1][0], "stdout")
        client.hang_up()
        self.assertTrue(read.called)  # by its cancellation
        self.assert_nothing_left()

    def test_gone_at_once(self) -> None:
        """A job that is kept no longer when the stream begins is not found."""
        job = self.fleet.add_job()
        self.scheduler.fail["watch"] = NotFound("job", job.id)
        self.assertEqual(self.events(job.id).response().status, 404)
        self.assert_nothing_left()

    def test_mistakes(self) -> None:
        """What makes no sense for events is refused before any."""
        job = self.fleet.add_job()
        for query in ("?offset=x", "?offset=-1,0", "?stream=stdout", "?tail=1&offset=1,1", "?tail=x"):
            self.assertEqual(self.events(job.id, query).response().status, 400, query)
        self.assertEqual(self.events(job.id, last_event_id="x").response().status, 400)
        self.assertEqual(self.events(job.id, range="bytes=0-1").response().status, 400)
        self.assert_nothing_left()

    def test_tail(self) -> None:
        """The last lines of each stream."""
        job = self.fleet.add_job(b"a\nb\n", b"x\ny\n", state=JobState.SUCCEEDED)
        found = parse(self.events(job.id, "?tail=1").response().body)
        self.assertEqual([data.get("text") for _, _, data in found[1:3]], ["b\n", "y\n"])

    def test_end_waits_for_the_job(self) -> None:
        """Streams may end before the job is known to: the end comes with its final state."""
        job = self.fleet.add_job(b"x")
        client = self.events(job.id)
        self.fleet.end(job.id, 3, report=False)
        self.assertEqual([name for name, _, _ in parse(client.response().body)], ["job", "stdout"])
        self.house.report("id-w1")
        self.assertEqual(parse(client.response().body)[-1][2]["exit_code"], 3)
        self.assert_nothing_left()

    def test_end_names_the_next_attempt(self) -> None:
        """The end of a job that is run again says by which job."""
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
        self.assert_nothing_left()

    def test_end_never_lies(self) -> None:
        """When the job does not become final, the client is told to come back, not that it ended."""
        job = self.fleet.add_job(b"x")
        client = self.events(job.id)
        self.fleet.end(job.id, report=False)
        self.clock.pump([streams.END_WAIT_MAX_SECONDS / 4] * 4)
        self.assertEqual([name for name, _, _ in parse(client.response().body)], ["job", "stdout", "resume"])
        self.assertTrue(client.response().complete)
        self.assert_nothing_left()

    def test_hang_up_while_settling(self) -> None:
        """A client that leaves between the last byte and the end leaves nothing behind."""
        job = self.fleet.add_job(b"x")
        client = self.events(job.id)
        self.fleet.end(job.id, report=False)
        client.hang_up()
        self.assert_nothing_left()

    def test_heartbeat(self) -> None:
        """While nothing happens a comment is sent now and then, but not to a client that does not read."""
        job = self.fleet.add_job(b"x")
        client = self.events(job.id)
        before = client.response().body
        self.clock.advance(sse.HEARTBEAT_INTERVAL_SECONDS)
        self.assertEqual(client.response().body, before + b":\n\n")
        client.socket.producer.pauseProducing()
        self.clock.advance(sse.HEARTBEAT_INTERVAL_SECONDS)
        self.assertEqual(client.response().body, before + b":\n\n")
        client.socket.take()
        self.clock.advance(sse.HEARTBEAT_INTERVAL_SECONDS)
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
        self.fleet.end("job-1")
        self.assertEqual([name for name, _, _ in parse(client.response().body)], ["job", "end"])
        self.assert_nothing_left()

    def test_queued(self) -> None:
        """The first event is the job that waits, and the others come when it runs; or its end, if it never does."""
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
        self.assert_nothing_left()

    def test_submit_refused(self) -> None:
        """A start that is refused is a problem document, not a stream."""
        self.scheduler.fail["submit"] = Unavailable("no")
        body = b'{"worker": "w1", "command": "echo"}'
        response = self.server.ask("POST", "/v1/jobs", body, **EVENTS).response()
        self.assertEqual((response.status, response.headers["content-type"]), (503, "application/problem+json"))

    def test_one_reader_only(self) -> None:
        """When the second stream can't be opened, the first is let go."""
        job = self.fleet.add_job()
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
        job = self.fleet.add_job(b"x")
        client = self.events(job.id)
        self.house.workers.fail("read_output", OutputPruned(job.id))
        self.house.workers.running()[1].cut(WorkerFault("w1", "what"))
        self.clock.advance(1)
        self.assertEqual([name for name, _, _ in parse(client.response().body)], ["job", "stdout"])
        self.assertEqual((client.response().complete, client.socket.connected), (False, False))
        self.assert_nothing_left()

    def test_shutdown(self) -> None:
        """At shutdown the client is told to resume, where it is, and the body ends properly."""
        job = self.fleet.add_job(b"x\xc3")
        client = self.events(job.id)
        self.successResultOf(self.server.site.drain(5.0))
        self.assertEqual(parse(client.response().body)[-1], ("resume", "1,0", {}))
        self.assertTrue(client.response().complete)
        self.assert_nothing_left()

    def test_slow_client_sees_both(self) -> None:
        """One stream that never runs dry does not keep the other from a slow client."""
        self.begin(window=1000)
        self.house.workers.piece = 1000
        job = self.fleet.add_job(b"x" * 100_000, b"y" * 3000)
        client = self.server.connect()
        client.socket.room = 500
        client.ask("GET", f"/v1/jobs/{job.id}/output", **EVENTS)
        for _ in range(10):
            client.socket.take()
            self.house.settle()
        found = parse(client.response().body)
        self.assertEqual(sum(len(data["text"]) for name, _, data in found if name == "stderr"), 3000)
        self.assertGreater(len([name for name, _, _ in found if name == "stdout"]), 3)
        client.hang_up()
        self.assert_nothing_left()

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
