"""What ``POST /v1/jobs`` and ``/start`` answer, and requests with a key."""

from __future__ import annotations

from scheduler.errors import (
    QueueFull,
    Unreachable,
)
from scheduler.model import QueueTerms, Retry
from tests.unit.api.scenarios import Scenarios, scenario


class SubmittingScenarios(Scenarios):
    """Submissions."""

    # -- keys

    @scenario
    async def test_same_key(self) -> None:
        """A request sent again, however its body is written, starts nothing and gets the first answer."""
        for path, text, again in (
            ("/start", b'{"worker_id": "w1", "command": "a"}', b'{"command":"a", \n"worker_id":"w1"}'),
            ("/v1/jobs", b'{"selector": {}, "command": "a"}', b'{"command":"\\u0061","selector":{}}'),
        ):
            first = await self.call("POST", path, text, idempotency_key=path)
            self.assertEqual((first.status, first.headers.get("idempotent-replayed")), (201, None))
            self.fleet.end(first.headers["location"].rpartition("/")[2])
            second = await self.call("POST", path, again, idempotency_key=path)
            self.assertEqual((second.status, second.body), (201, first.body))
            self.assertEqual(second.headers["idempotent-replayed"], "true")
            self.assertEqual(second.headers["location"], first.headers["location"])
        self.assertEqual(len(self.fleet.runner().started), 2)

    @scenario
    async def test_same_key_another_answer(self) -> None:
        """How the answer is wanted is not part of the request: the end, or the output, of the first job."""
        body = {"worker": "w1", "command": "a"}
        job = (await self.post("/v1/jobs", body, idempotency_key="k")).json()
        self.fleet.write(job["id"], b"out")
        self.fleet.end(job["id"])
        waited = await self.post("/v1/jobs?wait=1", body, idempotency_key="k")
        self.assertEqual((waited.status, waited.json()["state"]), (201, "succeeded"))
        followed = await self.post("/v1/jobs?follow=1", body, idempotency_key="k")
        self.assertEqual((followed.status, followed.headers["x-job-id"], followed.body), (201, job["id"], b"out"))
        events = await self.post("/v1/jobs", body, idempotency_key="k", accept="text/event-stream")
        self.assertEqual(
            [line for line in events.body.split(b"\n") if line.startswith(b"event: ")],
            [b"event: job", b"event: stdout", b"event: end"],
        )
        for reply in (waited, followed, events):
            self.assertEqual(reply.headers["idempotent-replayed"], "true")

    @scenario
    async def test_key_of_another_request(self) -> None:
        """A used key with another body, or at another route, is refused."""
        await self.post("/v1/jobs", {"worker": "w1", "command": "a"}, idempotency_key="k")
        for path, body in (
            ("/v1/jobs", {"worker": "w1", "command": "b"}),
            ("/v1/jobs", {"worker": "w1", "command": "a", "args": []}),
            ("/start", {"worker_id": "w1", "command": "a"}),
        ):
            reply = await self.assert_problem(self.post(path, body, idempotency_key="k"), 422, "'k'")
            self.assertEqual(reply.headers.get("idempotent-replayed"), None)
        self.assertEqual(len(self.fleet.runner().started), 1)

    @scenario
    async def test_key_of_nothing(self) -> None:
        """A start that came to nothing leaves its key free."""
        body = {"worker_id": "w1", "command": "a"}
        self.scheduler.fail["submit"] = Unreachable("w1")
        await self.assert_problem(self.post("/start", body, idempotency_key="k"), 503)
        del self.scheduler.fail["submit"]
        reply = await self.post("/start", body, idempotency_key="k")
        self.assertEqual((reply.status, reply.headers.get("idempotent-replayed")), (201, None))

    @scenario
    async def test_not_a_key(self) -> None:
        """A key is given once, of printable ASCII, not too long; a mistake makes no job."""
        for path, body in (
            ("/start", {"worker_id": "w1", "command": "a"}),
            ("/v1/jobs", {"worker": "w1", "command": "a"}),
        ):
            for wrong in ("", "a" * 256, "a\tb"):
                reply = await self.assert_problem(self.post(path, body, idempotency_key=wrong), 400, "Idempotency-Key")
                self.assertEqual(reply.json()["field"], "Idempotency-Key")
            self.assertEqual(self.scheduler.asked("submit"), [])
        self.assertEqual(
            (await self.post("/start", {"worker_id": "w1", "command": "a"}, idempotency_key=" ~" * 127)).status, 201
        )

    # -- submitting

    @scenario
    async def test_submit(self) -> None:
        """A job in full is answered, with its place."""
        reply = await self.post("/v1/jobs", {"selector": {"zone": "a"}, "command": "echo", "args": ["ä"]})
        self.assertEqual((reply.status, reply.headers["location"]), (201, "/v1/jobs/job-1"))
        self.assertEqual(reply.json()["args"], ["ä"])
        self.assertEqual((await self.call("GET", reply.headers["location"])).json(), reply.json())

    @scenario
    async def test_submit_refused(self) -> None:
        """Nowhere to run is a conflict."""
        await self.assert_problem(self.post("/v1/jobs", {"selector": {"zone": "z"}, "command": "a"}), 409)

    @scenario
    async def test_submit_and_queue(self) -> None:
        """A job that has to wait is answered all the same, with its place, and can be found and stopped."""
        self.fleet.lose()
        for body in ({"selector": {}}, {"worker": "w1", "queue_timeout": "5m"}):
            reply = await self.post("/v1/jobs", {**body, "command": "a", "priority": 7})
            self.assertEqual((reply.status, reply.json()["state"], reply.json()["priority"]), (201, "queued", 7))
            self.assertEqual((await self.call("GET", reply.headers["location"])).json(), reply.json())
            found = (await self.call("GET", "/v1/jobs?state=queued")).json()["jobs"]
            self.assertEqual([job["id"] for job in found], [reply.json()["id"]])
            reply = await self.call("POST", f"{reply.headers['location']}/stop")
            stopped = reply.json()
            self.assertEqual((reply.status, stopped["state"]), (200, "stopped"))
            self.assertEqual(stopped["reason"], "stopped before it was started")
            output = await self.call("GET", f"/v1/jobs/{stopped['id']}/output?follow=1")
            self.assertEqual((output.status, output.body), (200, b""))

    @scenario
    async def test_submit_and_not_queue(self) -> None:
        """Where it may not wait, or no more may, it is refused, with a hint; ``/start`` never waits."""
        self.fleet.lose()
        for body in ({"selector": {}, "queue_timeout": 0}, {"worker": "w1"}):
            reply = await self.assert_problem(self.post("/v1/jobs", {**body, "command": "a"}), 503)
            self.assertIn("retry-after", reply.headers)
        await self.assert_problem(self.post("/start", {"worker_id": "w1", "command": "a"}), 503)
        self.scheduler.fail["submit"] = QueueFull(1000)
        reply = await self.assert_problem(self.post("/v1/jobs", {"selector": {}, "command": "a"}), 429, "queued")
        self.assertEqual(reply.headers["retry-after"], "10")

    @scenario
    async def test_submit_terms(self) -> None:
        """The terms reach the scheduler, and come back with the job."""
        terms = {"queue_timeout": "2m", "priority": -3, "retry": {"attempts": 2, "delay": "1m"}}
        reply = await self.post("/v1/jobs", {"selector": {}, "command": "a", **terms})
        self.assertEqual(self.scheduler.asked("submit")[-1][2], QueueTerms(120.0, -3, Retry(2, 60.0)))
        shown = {name: reply.json()[name] for name in terms}
        self.assertEqual(shown, {"queue_timeout": 120, "priority": -3, "retry": {"attempts": 2, "delay": 60}})

    @scenario
    async def test_submit_many_arguments(self) -> None:
        """10,000 arguments are as good as one."""
        reply = await self.post("/v1/jobs", {"worker": "w1", "command": "echo", "args": ["argument"] * 10_000})
        self.assertEqual((reply.status, len(reply.json()["args"])), (201, 10_000))

    @scenario
    async def test_submit_and_wait(self) -> None:
        """With ``wait`` the answer is the job at its end, or as it is then."""
        reply = await self.post("/v1/jobs?wait=0", {"worker": "w1", "command": "a"})
        self.assertEqual((reply.status, reply.json()["state"]), (201, "running"))

    @scenario
    async def test_wait_with_a_stream(self) -> None:
        """To wait for the end of a stream is one thing too many."""
        body = {"worker": "w1", "command": "a"}
        await self.assert_problem(self.post("/v1/jobs?wait=1&follow=1", body), 400, "wait")
        await self.assert_problem(self.post("/v1/jobs?wait=1", body, accept="text/event-stream"), 400, "wait")
        await self.assert_problem(self.post("/v1/jobs?tail=1", body), 400, "tail")
        self.assertEqual(self.scheduler.asked("submit"), [])
