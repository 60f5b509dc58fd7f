"""What each route answers: a body of tests that runs in memory and over a real socket alike.

A subclass gives ``scheduler``, ``call`` and ``play``; a scenario is a coroutine
that ``play`` runs to its end.
"""

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
from scheduler.model import JobSpec, JobState, QueueTerms, Target
from tests.unit.api.routes_jobs import JobScenarios
from tests.unit.api.routes_output import OutputScenarios
from tests.unit.api.routes_submitting import SubmittingScenarios
from tests.unit.api.scenarios import ROUTES, scenario


class RouteScenarios(SubmittingScenarios, JobScenarios, OutputScenarios):
    """All routes."""

    # -- the core routes

    @scenario
    async def test_start(self) -> None:
        """A job is started on the worker, by id or name, and its id is answered."""
        for worker in ("w1", "id-w1"):
            reply = await self.post("/start", {"worker_id": worker, "command": "echo", "path": "p"})
            self.assertEqual((reply.status, set(reply.json())), (201, {"job_id"}))
            submitted = self.scheduler.asked("submit")[-1][:2]
            self.assertEqual(submitted, (JobSpec(command="echo", path="p"), Target(worker=worker)))
            self.assertEqual(self.scheduler.job(reply.json()["job_id"]).terms, QueueTerms())

    @scenario
    async def test_core_run(self) -> None:
        """Started, asked for, stopped, stopped again, asked for: as ever."""
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
        """Neither worker nor job are made up, nor is a job found at another worker."""
        self.fleet.add_worker("w2")
        job = self.fleet.add_job()
        await self.assert_problem(self.post("/start", {"worker_id": "w9", "command": "a"}), 404, "worker 'w9'")
        for path in ("/stop", "/query"):
            for worker, job_id in (("w9", job.id), ("w1", "nope"), ("w2", job.id), ("w1", "../etc"), ("w1", "ä")):
                await self.assert_problem(self.post(path, {"worker_id": worker, "job_id": job_id}), 404)

    @scenario
    async def test_failures(self) -> None:
        """What the scheduler can't do has its status, and a hint where trying again helps."""
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
        """A job that was started and is kept no longer when its end is to be answered is answered as it was."""
        self.scheduler.fail["wait_for_attempts"] = NotFound("job", "job-1")
        reply = await self.post("/v1/jobs?wait=1", {"worker": "w1", "command": "a"})
        self.assertEqual((reply.status, reply.json()["id"]), (201, "job-1"))
        self.assertEqual(reply.headers["location"], "/v1/jobs/job-1")

    # -- bodies

    @scenario
    async def test_types(self) -> None:
        """A body is JSON with its type, with curl's or without one; another type is refused."""
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

    @scenario
    async def test_mistakes_in_bodies(self) -> None:
        """A mistake is named, with its field, and makes no job."""
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
        """Routes that want nothing take nothing, or an empty object."""
        for path in ("/v1/workers/w1/drain", "/v1/workers/w1/resume"):
            self.assertEqual((await self.call("POST", path)).status, 200)
            self.assertEqual((await self.call("POST", path, b"{}")).status, 200)
            await self.assert_problem(self.call("POST", path, b'{"a": 1}'), 400, "a")

    # -- workers

    @scenario
    async def test_workers(self) -> None:
        """All by name, or one by id or name."""
        self.fleet.add_worker("a1")
        self.fleet.add_job()
        reply = await self.call("GET", "/v1/workers")
        self.assertEqual([worker["name"] for worker in reply.json()["workers"]], ["a1", "w1"])
        for name in ("w1", "id-w1"):
            worker = (await self.call("GET", f"/v1/workers/{name}")).json()
            self.assertEqual((worker["id"], worker["state"], worker["running_jobs"]), ("id-w1", "online", 1))
        await self.assert_problem(self.call("GET", "/v1/workers/nope"), 404)

    @scenario
    async def test_drain(self) -> None:
        """Drained and resumed."""
        for path, draining in (("drain", True), ("resume", False)):
            reply = await self.call("POST", f"/v1/workers/w1/{path}")
            self.assertEqual((reply.status, reply.json()["draining"]), (200, draining))
            await self.assert_problem(self.call("POST", f"/v1/workers/nope/{path}"), 404)

    @scenario
    async def test_forget(self) -> None:
        """An online worker stays; another is gone, without a word."""
        await self.assert_problem(self.call("DELETE", "/v1/workers/w1"), 409)
        self.fleet.lose()
        reply = await self.call("DELETE", "/v1/workers/w1")
        self.assertEqual((reply.status, reply.body), (204, b""))
        await self.assert_problem(self.call("DELETE", "/v1/workers/w1"), 404)

    # -- the process

    @scenario
    async def test_health(self) -> None:
        """Alive; ready, or why not."""
        self.assertEqual((await self.call("GET", "/healthz")).status, 200)
        reply = await self.call("GET", "/readyz")
        self.assertEqual((reply.status, reply.json()), (200, {"ready": True, "workers_online": 1}))
        self.house.store.problem = "disk full"
        await self.assert_problem(self.call("POST", "/v1/workers/w1/drain"), 503)
        self.house.parts.service.refuse()
        reply = await self.assert_problem(self.call("GET", "/readyz"), 503, "the store fails")
        self.assertEqual(reply.json()["reasons"], ["shutting down", "the store fails: disk full"])

    # -- methods

    @scenario
    async def test_methods(self) -> None:
        """Each route answers its own methods; the others are refused with those it has."""
        self.fleet.add_job()
        for path, methods in ROUTES.items():
            for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"):
                reply = await self.call(method, path)
                if method not in methods:
                    self.assertEqual(reply.status, 405, (method, path))
                    self.assertEqual(set(reply.headers["allow"].split(", ")), methods)
                elif reply.status == 405:
                    raise AssertionError(f"{method} {path} is refused")

    @scenario
    async def test_head(self) -> None:
        """HEAD is GET without the body, and starts nothing."""
        job = self.fleet.add_job(b"0123456789")
        for path in ("/healthz", "/v1/jobs", f"/v1/jobs/{job.id}", f"/v1/jobs/{job.id}/output", "/v1/workers"):
            get, head = await self.call("GET", path), await self.call("HEAD", path)
            self.assertEqual((head.status, head.body), (get.status, b""))
            for name in ("content-length", "content-type"):
                self.assertEqual(head.headers[name], get.headers[name], path)
        head = await self.call("HEAD", f"/v1/jobs/{job.id}/output", range="bytes=2-4")
        self.assertEqual((head.status, head.headers["content-range"]), (206, "bytes 2-4/10"))
        ended = self.fleet.add_job(b"0123456789", state=JobState.SUCCEEDED)
        for headers in ({}, {"accept": "text/event-stream"}):
            path = f"/v1/jobs/{ended.id}/output?follow=1"
            get, head = await self.call("GET", path, **headers), await self.call("HEAD", path, **headers)
            self.assertEqual((head.status, head.body), (200, b""))
            for found in (get, head):
                for name in ("date", "x-request-id", "transfer-encoding", "content-length"):
                    found.headers.pop(name, None)
            self.assertEqual(head.headers, get.headers)
        self.assertEqual((await self.call("HEAD", f"/v1/jobs/{job.id}?wait=300")).status, 200)
        self.assertEqual((await self.call("HEAD", "/v1/jobs/nope/output")).status, 404)
        self.assertTrue(self.house.parts.outputs.idle)

    @scenario
    async def test_nowhere(self) -> None:
        """What is no route is not found, for any method."""
        for path in ("/", "/v1", "/v1/", "/v1/jobs/", "/start/", "/v2/jobs", "/favicon.ico", "/v1/jobs/a/b/c"):
            for method in ("GET", "POST", "DELETE"):
                await self.assert_problem(self.call(method, path), 404)

    @scenario
    async def test_parameters(self) -> None:
        """No route takes a parameter that it does not know."""
        self.fleet.add_job()
        for path, methods in ROUTES.items():
            for method in methods - {"HEAD"}:
                body = b'{"worker_id": "w1", "job_id": "job-1"}' if path in ("/stop", "/query") else b""
                await self.assert_problem(self.call(method, f"{path}?bogus=1", body), 400, "bogus")
