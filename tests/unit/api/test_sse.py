"""A job as events: the events that are sent, and the end."""

from scheduler.api import sse
from scheduler.api.context import Context
from scheduler.cluster.jobs.queue import SWEEP_INTERVAL_SECONDS
from scheduler.errors import Busy, NotFound, OutputPruned, WorkerFault
from scheduler.messages import Chunk
from scheduler.model import JobState, Stream
from tests.unit.api.cases import EVENTS, StreamTestCase, parse


class EventStreamTests(StreamTestCase):
    """``GET /v1/jobs/{id}/output`` with ``Accept: text/event-stream``."""

    def test_whole_run(self) -> None:
        """Both streams come as they are written, then the end with the job; ids count the bytes sent of both."""
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

    def test_accept(self) -> None:
        """Events are sent if ``Accept`` names them, unless it prefers the other answer; ``q=0`` refuses them."""
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
                client = self.server.ask(method, target, body, accept=accept)
                kind = client.response().headers["content-type"]
                self.assertEqual(kind == "text/event-stream", expected, (accept, method, target))
                client.hang_up()

    def test_job_first(self) -> None:
        """The event ``job`` comes at once, before any output, and again only when the job changes."""
        job = self.fleet.add_job()
        client = self.events(job.id)
        [(name, event_id, data)] = parse(client.response().body)
        self.assertEqual((name, event_id, data["state"]), ("job", "0,0", "running"))
        self.assertEqual(client.response().headers["x-job-id"], job.id)
        client.hang_up()

    def test_tail(self) -> None:
        """``tail`` begins with the last lines of each stream."""
        job = self.fleet.add_job(b"a\nb\n", b"x\ny\n", state=JobState.SUCCEEDED)
        found = parse(self.events(job.id, "?tail=1").response().body)
        self.assertEqual([data.get("text") for _, _, data in found[1:3]], ["b\n", "y\n"])

    def test_heartbeat(self) -> None:
        """While nothing happens a comment is sent now and then, except to a client that does not read."""
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

    def test_pruned(self) -> None:
        """Output of an ended job that is gone is refused before any event."""
        job = self.fleet.add_job(b"abc", state=JobState.SUCCEEDED)
        self.fleet.prune(job.id)
        self.assertEqual(self.events(job.id).response().status, 410)

    def test_gone_at_once(self) -> None:
        """A job that is removed before the stream begins is not found."""
        job = self.fleet.add_job()
        self.scheduler.fail["watch"] = NotFound("job", job.id)
        self.assertEqual(self.events(job.id).response().status, 404)

    def test_mistakes(self) -> None:
        """A parameter that makes no sense for events is refused before any event."""
        job = self.fleet.add_job()
        for query in ("?offset=x", "?offset=-1,0", "?stream=stdout", "?tail=1&offset=1,1", "?tail=x"):
            self.assertEqual(self.events(job.id, query).response().status, 400, query)
        self.assertEqual(self.events(job.id, last_event_id="x").response().status, 400)
        self.assertEqual(self.events(job.id, range="bytes=0-1").response().status, 400)

    def test_one_reader_only(self) -> None:
        """If the second stream can't be opened, the first is closed."""
        job = self.fleet.add_job()
        opened = self.scheduler.open_output

        def once(job_id: str, stream: Stream, offset: int) -> object:
            if stream is Stream.STDERR:
                raise Busy("streams", 1)
            return opened(job_id, stream, offset)

        self.patch(self.scheduler, "open_output", once)
        self.assertEqual(self.events(job.id).response().status, 503)

    def test_failure_midway(self) -> None:
        """A failure of one stream cuts the response, without an end."""
        job = self.fleet.add_job(b"x")
        client = self.events(job.id)
        self.house.workers.fail("read_output", OutputPruned(job.id))
        self.house.workers.running()[1].cut(WorkerFault("w1", "what"))
        self.clock.advance(1)
        self.assertEqual([name for name, _, _ in parse(client.response().body)], ["job", "stdout"])
        self.assertEqual((client.response().complete, client.socket.connected), (False, False))

    def test_shutdown(self) -> None:
        """At shutdown the client gets the event ``resume`` with its position, and the body ends properly."""
        job = self.fleet.add_job(b"x\xc3")
        client = self.events(job.id)
        self.successResultOf(self.server.site.drain(5.0))
        self.assertEqual(parse(client.response().body)[-1], ("resume", "1,0", {}))
        self.assertTrue(client.response().complete)

    def test_slow_client_sees_both(self) -> None:
        """A slow client gets both streams, even if one of them always has data."""
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


class ChangeTests(StreamTestCase):
    def test_changes(self) -> None:
        """Each change of state or reason is an event: the worker is gone, and it is back."""
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

    def test_other_changes(self) -> None:
        """A change of anything else is no event."""
        job = self.fleet.add_job()
        self.fleet.runner().ends_on_stop = False
        client = self.events(job.id)
        self.server.ask("POST", f"/v1/jobs/{job.id}/stop")
        self.assertIsNotNone(self.scheduler.job(job.id).stop_requested_at)
        self.assertEqual(len(parse(client.response().body)), 1)
        self.fleet.end(job.id)

    def test_ended_before_its_output(self) -> None:
        """A job may end before its last bytes are read: ``job`` comes at once, ``end`` after the bytes."""
        job = self.fleet.add_job(b"x")
        self.house.workers.hold("stream_output")
        client = self.events(job.id)
        self.fleet.end(job.id, 1)
        self.assertEqual([data.get("state") for _, _, data in parse(client.response().body)][-1], "failed")
        for stream in self.house.workers.running():
            stream.send(Chunk(b"x", 0, end=True))
        self.assertEqual([name for name, _, _ in parse(client.response().body)], ["job", "job", "stdout", "end"])

    def test_changes_of_a_slow_client(self) -> None:
        """A client that does not read gets only the last of the changes when it reads again."""
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

    def test_changes_of_what_it_waits_for(self) -> None:
        """A change of the reason why a job is queued is sent with the next heartbeat."""
        why = ["no free slot"]
        self.patch(Context, "job_json", lambda _, job: {"id": job.id, "state": job.state.value, "why": why[-1]})
        self.fleet.lose()
        client = self.server.ask("POST", "/v1/jobs", b'{"selector": {}, "command": "echo"}', **EVENTS)
        self.clock.advance(sse.HEARTBEAT_INTERVAL_SECONDS)
        why.append("draining")
        self.clock.pump([sse.HEARTBEAT_INTERVAL_SECONDS] * 2)
        self.assertEqual([data["why"] for _, _, data in parse(client.response().body)], why)
        client.hang_up()
        self.scheduler.stop("job-1")
        self.clock.advance(SWEEP_INTERVAL_SECONDS)
