"""Scenarios of idempotency keys."""

from __future__ import annotations

from scheduler.errors import Unreachable
from tests.unit.api.scenarios.base import Scenarios, scenario


class KeyScenarios(Scenarios):
    """``Idempotency-Key`` on ``/start`` and ``POST /v1/jobs``."""

    @scenario
    async def test_same_key(self) -> None:
        """A repeated request starts nothing and gets the job as it is now, however its body is written."""
        for path, text, again in (
            ("/start", b'{"worker_id": "w1", "command": "a"}', b'{"command":"a", \n"worker_id":"w1"}'),
            ("/v1/jobs", b'{"selector": {}, "command": "a"}', b'{"command":"\\u0061","selector":{}}'),
        ):
            first = await self.call("POST", path, text, idempotency_key=path)
            self.assertEqual((first.status, first.headers.get("idempotent-replayed")), (201, None))
            job = self.fleet.end(first.headers["location"].rpartition("/")[2])
            second = await self.call("POST", path, again, idempotency_key=path)
            now = {"job_id": job.id} if path == "/start" else (await self.call("GET", f"/v1/jobs/{job.id}")).json()
            self.assertEqual((second.status, second.json()), (201, now))
            self.assertEqual(second.headers["idempotent-replayed"], "true")
            self.assertEqual(second.headers["location"], first.headers["location"])
        self.assertEqual(len(self.fleet.runner().started), 2)

    @scenario
    async def test_same_key_another_answer(self) -> None:
        """The form of the answer is not part of the request: the end or the output of the first job is answered."""
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
        """A used key with another body or route is refused."""
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
        """A failed start leaves its key free."""
        body = {"worker_id": "w1", "command": "a"}
        self.scheduler.fail["submit"] = Unreachable("w1")
        await self.assert_problem(self.post("/start", body, idempotency_key="k"), 503)
        del self.scheduler.fail["submit"]
        reply = await self.post("/start", body, idempotency_key="k")
        self.assertEqual((reply.status, reply.headers.get("idempotent-replayed")), (201, None))

    @scenario
    async def test_not_a_key(self) -> None:
        """A key is given once and is printable ASCII of limited length; a mistake starts no job."""
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
