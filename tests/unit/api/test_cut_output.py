"""Output that was not kept completely, as on a full disk: a followed body never ends as if it were complete."""

from __future__ import annotations

from scheduler.cluster.jobs.queue import SWEEP_INTERVAL_SECONDS
from scheduler.model import Stream
from tests.unit.api.cases import EVENTS, StreamTestCase, parse

FULL = "stdout: No space left on device"
SAID = "the output of job 'job-1' was cut: stdout: No space left on device"


class CutOutputTests(StreamTestCase):
    def cut_job(self, output: bytes = b"hello") -> str:
        """The id of an ended job of whose output only these bytes were kept."""
        job = self.fleet.add_job(output)
        self.fleet.end(job.id, output_error=FULL)
        return job.id

    def assert_gone(self, target: str, method: str = "GET", **headers: str) -> None:
        response = self.server.ask(method, target, **headers).response()
        self.assertEqual((response.status, response.json()["detail"]), (410, SAID))
        self.assertEqual(response.headers["content-type"], "application/problem+json")

    def test_followed_to_its_end(self) -> None:
        """A follower gets all bytes that were kept, and then a cut connection."""
        job = self.fleet.add_job(b"hel")
        client = self.follow(job.id)
        self.fleet.write(job.id, b"lo")
        self.fleet.end(job.id, output_error=FULL)
        self.assertEqual((client.response().body, client.response().complete), (b"hello", False))
        self.assertFalse(client.socket.connected)

    def test_followed_later(self) -> None:
        """A follower that comes later gets the same, from any offset before the end."""
        job_id = self.cut_job()
        for offset in range(5):
            response = self.follow(job_id, f"&offset={offset}").response()
            self.assertEqual((response.status, response.body, response.complete), (200, b"hello"[offset:], False))

    def test_followed_from_its_end(self) -> None:
        """A request at the end that was reached is refused with the reason, for either stream."""
        job_id = self.cut_job()
        self.assert_gone(f"/v1/jobs/{job_id}/output?follow=1&offset=5")
        self.assert_gone(f"/v1/jobs/{job_id}/output?follow=1&tail=0")
        self.assert_gone(f"/v1/jobs/{job_id}/output?follow=1&stream=stderr")
        self.assertEqual(self.follow(job_id, "&offset=6").response().status, 416)

    def test_nothing_kept(self) -> None:
        """If no byte was kept, the first request is refused with the reason."""
        self.assert_gone(f"/v1/jobs/{self.cut_job(b'')}/output?follow=1")

    def test_late_reason(self) -> None:
        """If the headers were sent already, the body is cut without a byte."""
        job = self.fleet.add_job()
        client = self.follow(job.id)
        self.fleet.end(job.id, output_error=FULL)
        response = client.response()
        self.assertEqual((response.status, response.body, response.complete), (200, b"", False))

    def test_slow_client(self) -> None:
        """A client that reads slowly gets all bytes that were kept."""
        self.house.workers.piece = 1000
        job_id = self.cut_job(b"x" * 10_000)
        client = self.server.connect()
        client.socket.room = 500
        client.ask("GET", f"/v1/jobs/{job_id}/output?follow=1")
        for _ in range(12):
            client.socket.take()
        self.assertEqual((client.response().body, client.response().complete), (b"x" * 10_000, False))

    def test_submitted(self) -> None:
        """The body of a POST is cut as well, even with no bytes; the next request is refused with the reason."""
        body = b'{"worker": "w1", "command": "echo"}'
        client = self.server.ask("POST", "/v1/jobs?follow=1", body)
        self.fleet.write("job-1", b"hello")
        self.fleet.end("job-1", output_error=FULL)
        self.assertEqual((client.response().status, client.response().body), (201, b"hello"))
        self.assertFalse(client.response().complete)
        client = self.server.ask("POST", "/v1/jobs?follow=1", body)
        self.fleet.end("job-2", output_error=FULL)
        response = client.response()
        self.assertEqual((response.status, response.body, response.complete), (201, b"", False))
        self.assertEqual(self.follow("job-2").response().status, 410)

    def test_cut_while_it_runs(self) -> None:
        """A job whose output was cut while it runs is followed to the cut; there, the next request is refused."""
        job = self.fleet.add_job(b"hello", output_error=FULL)
        self.fleet.end(job.id, report=False, output_error=FULL)
        self.assertFalse(self.follow(job.id).response().complete)
        self.assert_gone(f"/v1/jobs/{job.id}/output?follow=1&offset=5")

    def test_queued(self) -> None:
        """The body of a job that waited for a worker is cut, because its headers were sent at once."""
        self.fleet.lose()
        client = self.server.ask("POST", "/v1/jobs?follow=1", b'{"selector": {}, "command": "echo"}')
        self.fleet.find()
        self.fleet.end("job-1", output_error=FULL)
        self.assertEqual((client.response().status, client.response().complete), (201, False))
        self.clock.advance(SWEEP_INTERVAL_SECONDS)

    def test_snapshot(self) -> None:
        """Without ``follow`` the kept bytes are answered as usual: nothing is promised about the rest."""
        job_id = self.cut_job()
        for query, headers, status, body in (
            ("", {}, 200, b"hello"),
            ("?offset=5", {}, 200, b""),
            ("?tail=1", {}, 200, b"hello"),
            ("", {"range": "bytes=1-2"}, 206, b"el"),
        ):
            response = self.server.ask("GET", f"/v1/jobs/{job_id}/output{query}", **headers).response()
            self.assertEqual((response.status, response.body, response.complete), (status, body, True), query)
        for query, headers in (("?offset=6", {}), ("", {"range": "bytes=5-"})):
            response = self.server.ask("GET", f"/v1/jobs/{job_id}/output{query}", **headers).response()
            self.assertEqual(response.status, 416)

    def test_events(self) -> None:
        """An event stream goes on to the event ``end``, which has the reason; it can be resumed before that."""
        job = self.fleet.add_job(b"hello")
        client = self.server.ask("GET", f"/v1/jobs/{job.id}/output", **EVENTS)
        self.fleet.write(job.id, b"oh", Stream.STDERR)
        self.fleet.end(job.id, output_error=FULL)
        found = parse(client.response().body)
        self.assertEqual([name for name, _, _ in found], ["job", "stdout", "stderr", "end"])
        self.assertEqual((found[-1][1], found[-1][2]["output_error"]), ("5,2,end", FULL))
        again = self.server.ask("GET", f"/v1/jobs/{job.id}/output", **EVENTS, last_event_id="5,2")
        self.assertEqual([name for name, _, _ in parse(again.response().body)], ["job", "end"])
        for each in (client, again):
            self.assertTrue(each.response().complete)
