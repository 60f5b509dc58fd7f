"""Submissions that are answered with a stream."""

from scheduler.cluster.jobs.queue import SWEEP_INTERVAL_SECONDS
from scheduler.errors import Busy, DeadlineExceeded, ShuttingDown, Unreachable, Unsupported
from scheduler.model import JobState
from tests.unit.api.cases import EVENTS, StreamTestCase
from tests.unit.api.documents import check_problem


class SubmittedTests(StreamTestCase):
    """``POST /v1/jobs?follow=1``, and the same with events."""

    def test_submitted(self) -> None:
        """A single POST runs a job, streams its output, and has its id in a header."""
        client = self.server.ask("POST", "/v1/jobs?follow=1", b'{"worker": "w1", "command": "echo"}')
        job = self.scheduler.job(client.response().headers["x-job-id"])
        self.assertEqual(client.response().status, 201)
        self.assertEqual(client.response().headers["location"], f"/v1/jobs/{job.id}")
        self.fleet.write(job.id, b"hello")
        self.fleet.end(job.id, 2)
        self.assertEqual((client.response().body, client.response().complete), (b"hello", True))
        self.assertEqual(client.response().trailers, {"x-job-state": "failed", "x-exit-code": "2"})

    def test_output_before_the_answer(self) -> None:
        """Readers are opened when the start is sent, and closed if the start fails."""
        for query, headers, count in (("?follow=1", {}, 1), ("", EVENTS, 2)):
            self.begin()
            self.house.workers.hold("start_job", "stream_output")
            client = self.server.ask("POST", f"/v1/jobs{query}", b'{"worker": "w1", "command": "echo"}', **headers)
            self.assertEqual(len(self.house.workers.running()), count)
            self.house.take("start_job").answer.errback(DeadlineExceeded("start", 10.0))
            self.assertEqual(client.response().status, 504)
            self.assert_nothing_left()

    def test_gone_before_the_answer(self) -> None:
        """A client that leaves during the start leaves no reader."""
        self.house.workers.hold("start_job", "stream_output")
        client = self.server.ask("POST", "/v1/jobs?follow=1", b'{"worker": "w1", "command": "echo"}')
        self.assertEqual(len(self.house.workers.running()), 1)
        client.hang_up()

    def test_gone_before_the_start(self) -> None:
        """If the client leaves before the job is durable, no reader is opened; the job is started all the same."""
        self.house.workers.hold("start_job", "stream_output")
        self.house.store.held = True
        self.server.ask("POST", "/v1/jobs?follow=1", b'{"worker": "w1", "command": "echo"}').hang_up()
        self.house.store.commit()
        self.house.store.held = False
        self.house.take("start_job").answer.errback(DeadlineExceeded("start", 10.0))

    def test_queued(self) -> None:
        """A job that waits for a worker is answered with headers at once, and with bytes when it runs."""
        self.fleet.lose()
        client = self.server.ask("POST", "/v1/jobs?follow=1", b'{"selector": {}, "command": "echo"}')
        response = client.response()
        self.assertEqual((response.status, response.headers["x-job-id"], response.body), (201, "job-1", b""))
        self.assertFalse(response.complete)
        self.fleet.find()
        self.fleet.write("job-1", b"hello")
        self.fleet.end("job-1")
        self.assertEqual((client.response().body, client.response().complete), (b"hello", True))
        self.clock.advance(SWEEP_INTERVAL_SECONDS)

    def test_queued_for_nothing(self) -> None:
        """The body of a job that is never started ends properly, with no bytes."""
        self.fleet.lose()
        client = self.server.ask("POST", "/v1/jobs?follow=1", b'{"selector": {}, "command": "echo"}')
        self.clock.advance(3600)
        self.assertIs(self.scheduler.job("job-1").state, JobState.FAILED)
        self.assertEqual((client.response().body, client.response().complete), (b"", True))
        self.clock.advance(SWEEP_INTERVAL_SECONDS)

    def test_submitted_unfollowed(self) -> None:
        """If the job runs but can't be followed, the problem names it, and is no 5xx."""
        for query, headers in (("?follow=1", {}), ("", EVENTS)):
            for error in (Busy("streams", 256), ShuttingDown(), Unsupported("w1", "output"), Unreachable("w1")):
                self.scheduler.fail["open_output"] = error
                body = b'{"worker": "w1", "command": "echo"}'
                response = self.server.ask("POST", f"/v1/jobs{query}", body, **headers).response()
                document, job_id = response.json(), self.server.newest()
                self.assertEqual((response.status, document["type"]), (424, "/problems/output-unavailable"))
                self.assertEqual((document["job_id"], document["job"]["id"]), (job_id, job_id))
                check_problem(document, 424, "POST", "/v1/jobs")
                self.assertIs(document["started"], True)
                self.assertIn(str(error), document["detail"])
                self.assertEqual(response.headers["location"], f"/v1/jobs/{job_id}")
                self.assertNotIn("retry-after", response.headers)

    def test_submitted_and_cut(self) -> None:
        """If the output is lost later, the connection is cut; the headers have the job's id."""
        client = self.server.ask("POST", "/v1/jobs?follow=1", b'{"worker": "w1", "command": "echo"}')
        self.successResultOf(self.server.site.drain(5.0))
        response = client.response()
        self.assertEqual((response.status, response.headers["x-job-id"], response.complete), (201, "job-1", False))
        self.assertFalse(client.socket.connected)

    def test_submitted_before(self) -> None:
        """If the output of a replayed submission is gone, the answer is a problem with the job, and no 5xx."""
        body = b'{"worker": "w1", "command": "echo"}'
        self.server.ask("POST", "/v1/jobs", body, idempotency_key="k")
        self.fleet.write("job-1", b"x")
        self.fleet.end("job-1")
        self.fleet.prune("job-1")
        response = self.server.ask("POST", "/v1/jobs?follow=1", body, idempotency_key="k").response()
        self.assertEqual((response.status, response.json()["job_id"]), (424, "job-1"))
        self.assertIn("no longer kept", response.json()["detail"])

    def test_submitted_to_a_core_worker(self) -> None:
        """A job is not started on a worker whose output can't be followed."""
        self.fleet.add_worker("old", core=True)
        body = b'{"worker": "old", "command": "echo"}'
        self.assertEqual(self.server.ask("POST", "/v1/jobs?follow=1", body).response().status, 501)
        self.assertEqual(self.server.ask("POST", "/v1/jobs", body, **EVENTS).response().status, 501)
        self.assertEqual(self.scheduler.asked("submit"), [])
