"""Answers with one job: status and body for ``wait``, ``output`` and ``check``."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from scheduler.errors import DeadlineExceeded, NotFound, ShuttingDown, StartUnanswered, StoreFailed, Unreachable
from scheduler.messages import JobStatus
from scheduler.model import Job, JobState
from tests.unit.api.cases import ServerTestCase
from tests.unit.api.conversation import NOW, Connection, Response
from tests.unit.api.documents import check_problem

BODY = b'{"worker": "w1", "command": "echo"}'


class OutcomeTestCase(ServerTestCase):
    """A server, whose first submitted job is ``job-1``."""

    def post(self, query: str = "", body: bytes = BODY, **headers: str) -> Connection:
        return self.server.ask("POST", f"/v1/jobs{query}", body, **headers)

    def get(self, job: Job, query: str = "") -> Response:
        client = self.server.ask("GET", f"/v1/jobs/{job.id}{query}")
        self.clock.advance(0)
        return client.response()

    def assert_problem(self, response: Response, status: int, kind: str, **members: Any) -> Any:
        """Check a problem document of that type, and return its job."""
        document = response.json()
        self.assertEqual((response.status, document["type"]), (status, f"/problems/{kind}"), document)
        self.assertEqual(response.headers["content-type"], "application/problem+json")
        check_problem(document, status)
        for name, value in members.items():
            self.assertEqual(document[name], value)
        self.assertEqual(document["job_id"], document["job"]["id"])
        return document["job"]


class SubmissionTests(OutcomeTestCase):
    """``POST /v1/jobs``."""

    def test_output(self) -> None:
        """The answer comes at the end of the job, with the last bytes of both streams."""
        client = self.post("?wait=60&output=64KiB")
        self.fleet.write("job-1", b"out\n")
        self.assertFalse(client.answered)
        self.fleet.end("job-1", 3)
        response = client.response()
        found = response.json()
        self.assertEqual((response.status, found["state"], found["exit_code"]), (201, "failed", 3))
        self.assertEqual((found["stdout"], found["stderr"], found["stdout_cut"]), ("out\n", "", False))
        self.assertEqual(response.headers["location"], "/v1/jobs/job-1")

    def test_not_ended(self) -> None:
        """A job that has not ended when the wait is over is 202, with the output so far."""
        client = self.post("?wait=5&output=2")
        self.fleet.write("job-1", b"abc")
        self.clock.advance(5)
        found = client.response().json()
        self.assertEqual((client.response().status, found["state"], found["stdout"]), (202, "running", "bc"))
        self.assertEqual(self.post("?output").response().status, 202)

    def test_wait_alone(self) -> None:
        """Without ``output`` the answer is 201, whether the job has ended or not, and has no output."""
        client = self.post("?wait=5")
        self.clock.advance(5)
        self.assertEqual(client.response().status, 201)
        self.assertNotIn("stdout", client.response().json())

    def test_default(self) -> None:
        """``output`` without a value is 64 KiB; a number is in bytes."""
        client, other = self.post("?wait=5&output"), self.post("?wait=5&output=1000")
        for job_id in ("job-1", "job-2"):
            self.fleet.write(job_id, b"x" * 100_000)
            self.fleet.end(job_id)
        self.assertEqual(len(client.response().json()["stdout"]), 65536)
        self.assertEqual(len(other.response().json()["stdout"]), 1000)

    def test_unavailable(self) -> None:
        """A worker that is gone at the end does not fail the answer."""
        client = self.post("?wait=60&output=4&check=1")
        self.fleet.write("job-1", b"abc")
        self.house.workers.fail("read_output", Unreachable("w1"))
        self.fleet.end("job-1")
        found = client.response().json()
        self.assertEqual((client.response().status, found["state"], found["stdout"]), (201, "succeeded", None))
        self.assertIn("can't be reached", found["output_unavailable"])

    def test_check(self) -> None:
        """With ``check`` only a job that succeeded is 201; any other end is 424, with the job."""
        for state, facts, text in (
            (JobState.FAILED, {"reason": "exit status 3", "exit_code": 3}, "it failed (exit status 3)"),
            (JobState.STOPPED, {"reason": "signal: terminated"}, "it was stopped"),
            (JobState.TIMED_OUT, {"reason": "timeout of 1s"}, "it timed out"),
            (JobState.LOST, {"reason": "rebooted"}, "it is lost (rebooted)"),
        ):
            client = self.post("?wait=60&check=1")
            job_id = self.server.newest()
            if state is JobState.LOST:
                self.house.add(evolve(self.scheduler.job(job_id), state=state, finished_at=NOW, **facts))
            else:
                self.fleet.end(job_id, state=state, **facts)
            job = self.assert_problem(client.response(), 424, "job-failed", job_id=job_id, started=True)
            self.assertEqual(job["state"], state.value)
            self.assertNotIn("stdout", job)
            self.assertIn(text, client.response().json()["detail"])
            self.assertEqual(client.response().headers["location"], f"/v1/jobs/{job_id}")
        client = self.post("?wait=60&check=1")
        self.fleet.end(self.server.newest())
        self.assertEqual((client.response().status, client.response().json()["state"]), (201, "succeeded"))

    def test_check_and_output(self) -> None:
        """The job in the problem has its output; the status is that of ``check``."""
        client, late = self.post("?wait=5&check=1&output=2"), self.post("?wait=5&check=1&output=2")
        self.fleet.write("job-1", b"abc")
        self.fleet.end("job-1", 1)
        self.assertEqual(self.assert_problem(client.response(), 424, "job-failed")["stdout"], "bc")
        self.fleet.write("job-2", b"xyz")
        self.clock.advance(5)
        job = self.assert_problem(late.response(), 424, "job-not-ended", started=True)
        self.assertEqual((job["state"], job["stdout"]), ("running", "yz"))

    def test_check_of_one_that_waits(self) -> None:
        """A queued job has not ended."""
        self.fleet.lose()
        client = self.post("?wait=5&check=1&output", b'{"selector": {}, "command": "echo"}')
        self.clock.advance(5)
        job = self.assert_problem(client.response(), 424, "job-not-ended")
        self.assertEqual((job["state"], job["stdout"], job["output_unavailable"]), ("queued", "", None))

    def test_attempts(self) -> None:
        """With ``retry`` the answer is the last attempt with its output."""
        body = b'{"worker": "w1", "command": "echo", "retry": {"attempts": 1}, "queue_timeout": 60}'
        client = self.post("?wait=60&check=1&output", body)
        self.fleet.write("job-1", b"one")
        self.fleet.end("job-1", 1)
        last = self.scheduler.last_attempt("job-1")
        self.assertFalse(client.answered)
        self.clock.advance(0)
        self.fleet.write(last.id, b"two")
        self.fleet.end(last.id)
        found = client.response().json()
        self.assertEqual((client.response().status, found["id"], found["stdout"]), (201, last.id, "two"))
        self.assertEqual(client.response().headers["x-job-id"], "job-1")

    def test_key(self) -> None:
        """A repeated request with a key is answered with the same failed job and its output, and nothing is started."""
        asked = "?wait=60&check=1&output"
        client = self.post(asked, idempotency_key="k")
        self.fleet.write("job-1", b"out")
        self.fleet.end("job-1", 1)
        for again in (client, self.post(asked, idempotency_key="k"), self.post(asked, idempotency_key="k")):
            job = self.assert_problem(again.response(), 424, "job-failed", job_id="job-1", started=True)
            self.assertEqual(job["stdout"], "out")
        self.assertEqual(again.response().headers["idempotent-replayed"], "true")
        again = self.post("?output", idempotency_key="k")
        self.assertEqual((again.response().status, again.response().json()["state"]), (201, "failed"))
        self.assertEqual(len(self.fleet.runner().started), 1)

    def test_mistakes(self) -> None:
        """A parameter that makes no sense is 400 and named, and nothing is started."""
        for field, query in (
            ("check", "?check=1"),
            ("check", "?check=1&output"),
            ("check", "?check=1&follow=1"),
            ("check", "?wait=1&check=yes"),
            ("wait", "?wait=1&follow=1"),
            ("output", "?output=2MiB"),
            ("output", "?output=1048577"),
            ("output", "?output=-1"),
            ("output", "?output=much"),
            ("output", "?output=1&follow=1"),
        ):
            response = self.post(query).response()
            self.assertEqual((response.status, response.json()["field"]), (400, field), query)
        self.assertEqual(self.scheduler.asked("submit"), [])
        self.assertEqual(self.post("?output=1048576").response().status, 202)

    def test_never_a_server_error(self) -> None:
        """Once the job exists, no failure makes the answer a 5xx or a 429."""
        self.house.workers.hold("start_job")
        for query in ("", "?wait=5", "?wait=5&output", "?wait=5&check=1", "?output", "?follow=1"):
            for method in ("wait_for_attempts", "last_attempt", "read_output", "open_output", "watch", "job"):
                for error in (NotFound("job", "job-1"), ShuttingDown(), StoreFailed("full"), Unreachable("w1")):
                    if method in ("wait_for_attempts", "last_attempt", "job") and not isinstance(error, NotFound):
                        continue  # no other error is possible there
                    for headers in ({}, {"accept": "text/event-stream"}):
                        client = self.post(query, **headers)
                        self.scheduler.fail = {method: error}
                        while self.house.held():
                            start = self.house.take("start_job")
                            start.answer.callback(JobStatus(start.job_id, JobState.RUNNING))
                        self.clock.advance(5)
                        self.scheduler.fail = {}
                        status = client.response().status
                        if status >= 400:
                            check_problem(client.response().json(), status, "POST", "/v1/jobs")
                        self.assertIn(status, (201, 202, 400, 424), (query, method, error, client.response().body))
                        self.assertEqual(status == 400, "wait" in query and bool(headers))
                        client.hang_up()

    def test_shutdown(self) -> None:
        """A call that waits when the process shuts down is answered with the job as it is."""
        checked, plain = self.post("?wait=60&check=1&output"), self.post("?wait=60&output")
        self.server.site.drain(5.0)
        self.assertEqual(self.assert_problem(checked.response(), 424, "job-not-ended")["state"], "running")
        self.assertEqual((plain.response().status, plain.response().json()["state"]), (202, "running"))

    def test_unanswered(self) -> None:
        """A start that was sent and not answered is the only 504, and names the job."""
        self.house.workers.fail("start_job", DeadlineExceeded("start", 10.0), arrives=True)
        response = self.post("?wait=5&check=1").response()
        self.assertEqual((response.status, response.json()["job_id"]), (504, "job-1"))
        self.scheduler.fail["submit"] = StartUnanswered("w1", "job-2", "its disk is on fire")
        self.assertIn("its disk is on fire", self.post().response().json()["detail"])


class LookTests(OutcomeTestCase):
    """``GET /v1/jobs/{id}``."""

    def test_output(self) -> None:
        """A job that has ended is 200, any other is 202, both with the output so far, with or without ``wait``."""
        running = self.fleet.add_job(b"abc")
        ended = self.fleet.add_job(b"abc", state=JobState.FAILED)
        for query in ("?output=2", "?output=2&wait=0"):
            for job, status in ((running, 202), (ended, 200)):
                response = self.get(job, query)
                self.assertEqual((response.status, response.json()["stdout"]), (status, "bc"))
        self.assertEqual(self.get(running, "?wait=0").status, 200)

    def test_end_and_output(self) -> None:
        """The output that comes with the end is complete."""
        job = self.fleet.add_job(b"abc")
        client = self.server.ask("GET", f"/v1/jobs/{job.id}?wait=60&output")
        self.fleet.write(job.id, b"def")
        self.fleet.end(job.id)
        self.assertEqual((client.response().status, client.response().json()["stdout"]), (200, "abcdef"))

    def test_check(self) -> None:
        """A job that succeeded is 200, another end is 424; no end yet is 504 and may be asked again at once."""
        running = self.fleet.add_job(b"abc")
        response = self.get(running, "?wait=0&check=1&output=1")
        job = self.assert_problem(response, 504, "job-not-ended", job_id=running.id)
        self.assertEqual((job["state"], job["stdout"], response.headers["retry-after"]), ("running", "c", "1"))
        self.assertNotIn("started", response.json())
        failed = self.fleet.add_job(state=JobState.FAILED)
        response = self.get(failed, "?wait=0&check=1")
        self.assert_problem(response, 424, "job-failed", job_id=failed.id)
        self.assertNotIn("retry-after", response.headers)
        succeeded = self.fleet.add_job(state=JobState.SUCCEEDED)
        self.assertEqual(self.get(succeeded, "?wait=0&check=1").status, 200)
        self.assertEqual(self.get(succeeded, "?wait=0&check=0").status, 200)

    def test_shutdown(self) -> None:
        """A call that waits when the process shuts down is told to come again."""
        job = self.fleet.add_job()
        client = self.server.ask("GET", f"/v1/jobs/{job.id}?wait=60&check=1")
        self.server.site.drain(5.0)
        self.assert_problem(client.response(), 504, "job-not-ended")

    def test_mistakes(self) -> None:
        """Mistakes are 400 and named."""
        job = self.fleet.add_job()
        for field, query in (("check", "?check=1"), ("output", "?output=2MiB"), ("follow", "?follow=1")):
            response = self.get(job, query)
            self.assertEqual((response.status, response.json()["field"]), (400, field), query)

    def test_head(self) -> None:
        """HEAD waits for nothing, and has the status of the job as it is."""
        job = self.fleet.add_job()
        for query, status in (("?wait=60&check=1", 504), ("?output", 202), ("?wait=60", 200)):
            self.assertEqual(self.server.ask("HEAD", f"/v1/jobs/{job.id}{query}").response().status, status)
