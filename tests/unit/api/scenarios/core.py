"""Scenarios of the core routes and of request bodies."""

from __future__ import annotations

from scheduler.errors import (
    Busy,
    DeadlineExceeded,
    NoFreeSlot,
    NotFound,
    StartUnanswered,
    StoreFailed,
    Unreachable,
    WorkerFault,
)
from scheduler.model import JobSpec, Submission
from scheduler.terms import QueueTerms, Target
from tests.doubles.authentication import TESTER
from tests.unit.api.scenarios.base import Scenarios, scenario


class CoreScenarios(Scenarios):
    """``/start``, ``/stop`` and ``/query``, and the rules for every body."""

    @scenario
    async def test_start(self) -> None:
        """A job is started on the worker, by id or name, and its id is answered."""
        for worker in ("w1", "id-w1"):
            reply = await self.post("/start", {"worker_id": worker, "command": "echo", "path": "p"})
            self.assertEqual((reply.status, set(reply.json())), (201, {"job_id"}))
            (submitted,) = self.scheduler.asked("submit")[-1]
            spec, target = JobSpec(command="echo", path="p"), Target(worker=worker)
            self.assertEqual(submitted, Submission(spec, target, created_by=str(TESTER)))
            self.assertEqual(self.scheduler.job(reply.json()["job_id"]).terms, QueueTerms())

    @scenario
    async def test_core_run(self) -> None:
        """A job is started, queried, stopped, stopped again, and queried."""
        job_id = (await self.post("/start", {"worker_id": "w1", "command": "cat", "path": ""})).json()["job_id"]
        both = {"worker_id": "w1", "job_id": job_id}
        self.assertEqual((await self.post("/query", both)).json(), {"done": False, "error": False, "error_text": ""})
        for _ in range(2):
            reply = await self.post("/stop", both)
            self.assertEqual((reply.status, reply.json()), (200, {"success": True}))
        self.assertEqual(
            (await self.post("/query", both)).json(), {"done": True, "error": True, "error_text": "signal: terminated"}
        )

    @scenario
    async def test_core_not_found(self) -> None:
        """An unknown worker or job is not found, nor is the job of another worker."""
        self.fleet.add_worker("w2")
        job = self.fleet.add_job()
        await self.assert_problem(self.post("/start", {"worker_id": "w9", "command": "a"}), 404, "worker 'w9'")
        for path in ("/stop", "/query"):
            for worker, job_id in (("w9", job.id), ("w1", "nope"), ("w2", job.id), ("w1", "../etc"), ("w1", "ä")):
                await self.assert_problem(self.post(path, {"worker_id": worker, "job_id": job_id}), 404)

    @scenario
    async def test_failures(self) -> None:
        """Each failure of the scheduler has its status, with ``Retry-After`` if a retry can help."""
        for error, status, retry_after in (
            (Unreachable("w1"), 503, "5"),
            (NoFreeSlot("full", 7), 503, "7"),
            (Busy("calls", 4), 503, "1"),
            (StoreFailed("disk full"), 503, "5"),
            (WorkerFault("w1", "what"), 502, None),
            (DeadlineExceeded("start", 10.0), 504, None),
        ):
            self.scheduler.fail["submit"] = error
            reply = await self.assert_problem(self.post("/start", {"worker_id": "w1", "command": "a"}), status)
            self.assertEqual(reply.headers.get("retry-after"), retry_after)
        self.scheduler.fail["submit"] = StartUnanswered("w1", "job-7")
        reply = await self.assert_problem(self.post("/start", {"worker_id": "w1", "command": "a"}), 504)
        self.assertEqual((reply.json()["job_id"], reply.json()["started"]), ("job-7", "unknown"))

    @scenario
    async def test_failure_after_the_start(self) -> None:
        """A job that was started and then removed is answered as it was at its start."""
        self.scheduler.fail["wait_for_attempts"] = NotFound("job", "job-1")
        reply = await self.post("/v1/jobs?wait=1", {"worker": "w1", "command": "a"})
        self.assertEqual((reply.status, reply.json()["id"]), (201, "job-1"))
        self.assertEqual(reply.headers["location"], "/v1/jobs/job-1")

    @scenario
    async def test_types(self) -> None:
        """A body is JSON with its own type, with curl's, or without a type; any other type is refused."""
        body = b'{"worker_id": "w1", "command": "a"}'
        for kind in (
            "application/json",
            "application/x-www-form-urlencoded",
            "Application/JSON; charset=UTF-8",
            'application/json;charset="utf-8"',
        ):
            self.assertEqual((await self.call("POST", "/start", body, content_type=kind)).status, 201, kind)
        self.assertEqual((await self.call("POST", "/start", body)).status, 201)
        for kind in ("text/plain", "multipart/form-data; boundary=a", "application/json; charset=latin-1", "x"):
            await self.assert_problem(self.call("POST", "/start", body, content_type=kind), 415)
        for encoding in ("gzip", "br", "identity, gzip"):
            await self.assert_problem(self.call("POST", "/start", body, content_encoding=encoding), 415)

    @scenario
    async def test_mistakes_in_bodies(self) -> None:
        """A mistake is named by its field, and starts no job."""
        for body, field in (
            (b"{", "body"),
            (b"[]", "body"),
            (b"", "worker_id"),
            (b'{"worker_id": 1, "command": "a"}', "worker_id"),
            (b'{"worker_id": "w1", "command": "a", "args": []}', "args"),
            (b'{"worker_id": "w1", "command": "a", "command": "b"}', "command"),
            (b'{"worker_id": "w1", "command": "a\\u0000"}', "command"),
            (b'{"worker_id": "w1", "command": "a\\nb"}', "command"),
            (b'{"worker_id": "w1", "command": "a\\ud800"}', "command"),
        ):
            reply = await self.assert_problem(self.call("POST", "/start", body), 400, field)
            self.assertEqual(reply.json()["field"], field)
        self.assertEqual(self.scheduler.asked("submit"), [])

    @scenario
    async def test_bodies_of_nothing(self) -> None:
        """Routes without fields take no body, or an empty object."""
        for path in ("/v1/workers/w1/drain", "/v1/workers/w1/resume"):
            self.assertEqual((await self.call("POST", path)).status, 200)
            self.assertEqual((await self.call("POST", path, b"{}")).status, 200)
            await self.assert_problem(self.call("POST", path, b'{"a": 1}'), 400, "a")
