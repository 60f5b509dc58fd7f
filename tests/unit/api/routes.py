"""What each route answers: a body of tests that runs in memory and over a real socket alike.

A subclass gives ``scheduler``, ``call`` and ``play``; a scenario is a coroutine
that ``play`` runs to its end.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Coroutine
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred

from scheduler.errors import (
    Busy,
    DeadlineExceeded,
    NoFreeSlot,
    NotFound,
    QueueFull,
    StartUnanswered,
    StoreFailed,
    Unreachable,
    WorkerFault,
)
from scheduler.interfaces import JobFilter
from scheduler.model import Job, JobSpec, JobState, QueueTerms, Retry, Target
from tests.doubles.overridden import Overridden
from tests.fleet import Fleet
from tests.house import House
from tests.unit.api.documents import check_problem

NOW = 1_700_000_000.0

ROUTES = {
    "/start": {"POST"},
    "/stop": {"POST"},
    "/query": {"POST"},
    "/v1/jobs": {"GET", "HEAD", "POST"},
    "/v1/jobs/stop": {"POST"},
    "/v1/jobs/job-1": {"GET", "HEAD", "DELETE"},
    "/v1/jobs/job-1/stop": {"POST"},
    "/v1/jobs/job-1/signal": {"POST"},
    "/v1/jobs/job-1/output": {"GET", "HEAD"},
    "/v1/workers": {"GET", "HEAD"},
    "/v1/workers/w1": {"GET", "HEAD", "DELETE"},
    "/v1/workers/w1/drain": {"POST"},
    "/v1/workers/w1/resume": {"POST"},
    "/healthz": {"GET", "HEAD"},
    "/readyz": {"GET", "HEAD"},
    "/v1/version": {"GET", "HEAD"},
    "/problems/busy": {"GET", "HEAD"},
}


@frozen
class Reply:
    """A response as its client sees it."""

    status: int
    phrase: str
    headers: dict[str, str]
    body: bytes
    #: What it answers.
    method: str
    path: str

    def json(self) -> Any:
        """The body's document."""
        return json.loads(self.body)


def scenario(test: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], Any]:
    """A test written as a coroutine."""

    @functools.wraps(test)
    def played(self: Any) -> Any:
        return self.play(Deferred.fromCoroutine(test(self)))

    return played


class RouteScenarios:
    """All routes, over a scheduler with the worker ``w1``."""

    scheduler: Overridden
    fleet: Fleet
    house: House
    call: Callable[..., Deferred[Reply]]
    play: Callable[[Deferred[None]], Any]
    assertEqual: Callable[..., None]  # noqa: N815
    assertIn: Callable[..., None]  # noqa: N815

    def post(self, path: str, document: object, **headers: str) -> Deferred[Reply]:
        return self.call("POST", path, json.dumps(document).encode(), **headers)

    async def assert_problem(self, reply: Deferred[Reply], status: int, text: str = "") -> Reply:
        found = await reply
        self.assertEqual(found.status, status, found.body)
        self.assertEqual(found.headers["content-type"], "application/problem+json")
        self.assertEqual((found.json()["status"], found.json()["title"]), (status, found.phrase))
        self.assertIn(text, found.json()["detail"])
        check_problem(found.json(), status, found.method, found.path)
        return found

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

    # -- jobs

    @scenario
    async def test_jobs(self) -> None:
        """Newest first, in pages."""
        for _ in range(5):
            self.fleet.add_job()
        first = (await self.call("GET", "/v1/jobs?limit=3")).json()
        self.assertEqual([job["id"] for job in first["jobs"]], ["job-5", "job-4", "job-3"])
        second = (await self.call("GET", f"/v1/jobs?limit=3&cursor={first['next']}")).json()
        self.assertEqual([job["id"] for job in second["jobs"]], ["job-2", "job-1"])
        self.assertEqual(second["next"], None)
        self.assertEqual(self.scheduler.asked("jobs")[-1][1], 3)
        await self.call("GET", "/v1/jobs")
        self.assertEqual(self.scheduler.asked("jobs")[-1], (JobFilter(), 100, None))
        for mistake in ("limit=0", "limit=1001", "cursor=x", "state=dead", "worker=w1&worker=w2", "foo=1"):
            await self.assert_problem(self.call("GET", f"/v1/jobs?{mistake}"), 400, mistake.partition("=")[0])

    @scenario
    async def test_filters(self) -> None:
        """They reach the scheduler."""
        await self.call("GET", "/v1/jobs?state=running,unknown&label=a=1&created_after=1h")
        self.assertEqual(
            self.scheduler.asked("jobs")[-1][0],
            JobFilter(
                states=frozenset({JobState.RUNNING, JobState.UNKNOWN}), labels={"a": "1"}, created_after=NOW - 3600
            ),
        )

    @scenario
    async def test_job(self) -> None:
        """One job, of which an ended one is answered at once."""
        job = self.fleet.add_job(state=JobState.FAILED)
        for path in (f"/v1/jobs/{job.id}", f"/v1/jobs/{job.id}?wait=300"):
            reply = await self.call("GET", path)
            self.assertEqual((reply.status, reply.json()["state"]), (200, "failed"))
        for path in ("/v1/jobs/nope", "/v1/jobs/..", "/v1/jobs/a.b", "/v1/jobs/%00", "/v1/jobs/" + "a" * 65):
            await self.assert_problem(self.call("GET", path), 404)
        await self.assert_problem(self.call("GET", f"/v1/jobs/{job.id}?wait=301"), 400, "wait")

    @scenario
    async def test_stop(self) -> None:
        """The job that was stopped is answered."""
        job = self.fleet.add_job()
        reply = await self.call("POST", f"/v1/jobs/{job.id}/stop")
        self.assertEqual((reply.status, reply.json()["state"], reply.json()["signal"]), (200, "stopped", "SIGTERM"))
        await self.assert_problem(self.call("POST", "/v1/jobs/nope/stop"), 404)

    @scenario
    async def test_stop_later(self) -> None:
        """A stop that can't be delivered yet is accepted, with when it was asked for, and is no success so far."""
        job = self.fleet.add_job()
        self.fleet.lose()
        for _ in range(2):
            reply = await self.call("POST", f"/v1/jobs/{job.id}/stop")
            document = reply.json()
            self.assertEqual((reply.status, document["id"], document["state"]), (202, job.id, "unknown"))
            self.assertEqual(document["stop_requested_at"], "2023-11-14T22:13:20.000000Z")
            reply = await self.post("/stop", {"worker_id": "w1", "job_id": job.id})
            self.assertEqual(reply.status, 202)
            self.assertEqual(reply.json(), {"success": False, "stop_requested_at": "2023-11-14T22:13:20.000000Z"})
        self.fleet.find()
        reply = await self.post("/stop", {"worker_id": "w1", "job_id": job.id})
        self.assertEqual((reply.status, reply.json()), (200, {"success": True}))

    async def assert_stopped(self, job: Job, status: int) -> list[dict[str, Any]]:
        """Both ways to stop it are answered with that status; the documents."""
        replies = [
            await self.call("POST", f"/v1/jobs/{job.id}/stop"),
            await self.post("/stop", {"worker_id": "w1", "job_id": job.id}),
        ]
        self.assertEqual([reply.status for reply in replies], [status, status])
        return [reply.json() for reply in replies]

    @scenario
    async def test_stop_left_running(self) -> None:
        """A stop that left processes behind is a conflict that names them, until they are gone."""
        for job in (self.fleet.add_job(), self.fleet.add_job()):
            self.fleet.leave(job.id, 123, 124)
            if job.id == "job-2":
                self.fleet.end(job.id)
            for document in await self.assert_stopped(job, 409):
                self.assertEqual((document["success"], document["leftover"]), (False, [123, 124]))
                self.assertEqual((document["job_id"], document["status"]), (job.id, 409))
                self.assertIn("could not be ended", document["detail"])
            self.fleet.leave(job.id)
            document, core = await self.assert_stopped(job, 200)
            self.assertEqual((document["leftover"], core), ([123, 124], {"success": True}))

    @scenario
    async def test_stop_attempts(self) -> None:
        """A stop of an attempt that failed is one of its last attempt; the answer is the job that was asked for."""
        for ends, status in ((True, 200), (False, 202)):
            self.fleet.find()
            job = self.fleet.add_job(terms=QueueTerms(3600.0, retry=Retry(1)), target=Target(worker="w1"))
            job = self.fleet.end(job.id, 1)
            await self.call("GET", "/healthz")  # meanwhile the next attempt is started
            last = self.scheduler.last_attempt(job.id)
            self.assertEqual((last.state, last.retry_of), (JobState.RUNNING, job.id))
            if not ends:
                self.fleet.lose()
            document, core = await self.assert_stopped(job, status)
            self.assertEqual((document["id"], document["state"], document["retried_by"]), (job.id, "failed", last.id))
            self.assertEqual(core["success"], ends)
            self.assertEqual(self.scheduler.job(last.id).over, ends)

    @scenario
    async def test_orphan(self) -> None:
        """A job that is lost and runs is shown as an orphan, can be asked for, and stopped."""
        job = self.fleet.add_job(state=JobState.LOST)
        other = self.fleet.add_job(state=JobState.SUCCEEDED)
        self.fleet.come_back()
        for query, ids in (("1", [job.id]), ("true", [job.id]), ("0", [other.id])):
            listed = (await self.call("GET", f"/v1/jobs?orphan={query}")).json()["jobs"]
            self.assertEqual([found["id"] for found in listed], ids)
        await self.assert_problem(self.call("GET", "/v1/jobs?orphan=perhaps"), 400, "orphan")
        for orphan in (True, False):
            found = (await self.call("GET", f"/v1/jobs/{job.id}")).json()
            self.assertEqual((found["state"], found["orphan"]), ("lost", orphan))
            reply = await self.call("POST", f"/v1/jobs/{job.id}/stop")
            self.assertEqual((reply.status, reply.json()["orphan"]), (200, False))

    @scenario
    async def test_remove(self) -> None:
        """An ended job is gone after it; one that has not ended stays, and is 409."""
        ended, job = self.fleet.add_job(state=JobState.FAILED), self.fleet.add_job()
        reply = await self.call("DELETE", f"/v1/jobs/{ended.id}")
        self.assertEqual((reply.status, reply.body), (204, b""))
        for method, path in (("DELETE", ""), ("GET", ""), ("GET", "/output"), ("GET", "/output?follow=1")):
            await self.assert_problem(self.call(method, f"/v1/jobs/{ended.id}{path}"), 404)
        reply = await self.assert_problem(self.call("DELETE", f"/v1/jobs/{job.id}"), 409, "it is running")
        self.assertEqual((reply.json()["type"], reply.json()["job_id"]), ("/problems/job-not-ended", job.id))
        self.assertEqual((await self.call("GET", f"/v1/jobs/{job.id}")).status, 200)

    @scenario
    async def test_remove_later(self) -> None:
        """While its worker can't be told the job is answered, with since when it is to go."""
        job = self.fleet.add_job(state=JobState.FAILED)
        self.fleet.lose()
        for _ in range(2):
            reply = await self.call("DELETE", f"/v1/jobs/{job.id}")
            self.assertEqual((reply.status, reply.json()["id"]), (202, job.id))
            self.assertEqual(reply.json()["remove_requested_at"], "2023-11-14T22:13:20.000000Z")
        self.fleet.find()
        await self.assert_problem(self.call("DELETE", f"/v1/jobs/{job.id}"), 404)

    @scenario
    async def test_remove_with_a_key(self) -> None:
        """A submission whose job was removed is 410 from then on, with that job's id, and starts nothing."""
        body = {"worker": "w1", "command": "true"}
        first = await self.post("/v1/jobs", body, idempotency_key="k")
        self.fleet.end(first.json()["id"])
        self.assertEqual((await self.call("DELETE", f"/v1/jobs/{first.json()['id']}")).status, 204)
        for query in ("", "?wait=1", "?follow=1"):
            reply = await self.assert_problem(self.post(f"/v1/jobs{query}", body, idempotency_key="k"), 410)
            document = reply.json()
            self.assertEqual((document["type"], document["started"]), ("/problems/job-removed", True))
            self.assertEqual(document["job_id"], first.json()["id"])
        self.assertEqual((await self.call("GET", "/v1/jobs")).json()["jobs"], [])

    @scenario
    async def test_signal(self) -> None:
        """A signal is sent by its name, with or without SIG, to the main process or the tree; the job is answered."""
        job = self.fleet.add_job()
        for body, sent in (
            ({"signal": "SIGUSR1"}, ("SIGUSR1", "main")),
            ({"signal": "usr2", "to": "tree"}, ("SIGUSR2", "tree")),
        ):
            reply = await self.post(f"/v1/jobs/{job.id}/signal", body)
            self.assertEqual((reply.status, reply.json()["id"], reply.json()["state"]), (200, job.id, "running"))
            self.assertEqual(self.fleet.signals()[-1], (job.id, *sent))
        for mistake in ({}, {"signal": 10}, {"signal": "10"}, {"signal": "SIGNONE"}):
            await self.assert_problem(self.post(f"/v1/jobs/{job.id}/signal", mistake), 400, "signal")
        await self.assert_problem(self.post("/v1/jobs/nope/signal", {"signal": "HUP"}), 404)

    @scenario
    async def test_signal_refused(self) -> None:
        """A job that is not running gets none; a worker that can't be reached is 503, a lost answer 504."""
        ended, job = self.fleet.add_job(state=JobState.FAILED), self.fleet.add_job()

        def signal(which: Job) -> Deferred[Reply]:
            return self.post(f"/v1/jobs/{which.id}/signal", {"signal": "HUP"})

        reply = await self.assert_problem(signal(ended), 409, "it is failed")
        self.assertEqual(reply.json()["type"], "/problems/job-not-running")
        self.fleet.leave(job.id, 123)
        await self.assert_problem(signal(job), 409, "can't be sent")
        self.fleet.lose()
        reply = await self.assert_problem(signal(job), 503, "can't be reached")
        self.assertEqual(reply.json()["type"], "/problems/worker-unreachable")
        self.scheduler.fail["signal"] = DeadlineExceeded("SIGHUP to job", 10.0, job.id)
        reply = await self.assert_problem(signal(job), 504)
        self.assertEqual((reply.json()["job_id"], self.fleet.signals()), (job.id, []))

    @scenario
    async def test_stop_matching(self) -> None:
        """All that match are stopped, by query or by body; without a filter none is."""
        for way in ("?label=a=1", {"label": {"a": "1"}}):
            mine = self.fleet.add_job(spec=JobSpec(command="a", labels={"a": "1"}))
            other = self.fleet.add_job()
            if isinstance(way, str):
                reply = await self.call("POST", f"/v1/jobs/stop{way}")
            else:
                reply = await self.post("/v1/jobs/stop", way)
            self.assertEqual([(job["id"], job["state"]) for job in reply.json()["jobs"]], [(mine.id, "stopped")])
            self.assertEqual(self.scheduler.job(other.id).state, JobState.RUNNING)
        await self.assert_problem(self.call("POST", "/v1/jobs/stop"), 400, "filter")
        await self.assert_problem(self.call("POST", "/v1/jobs/stop", b"{}"), 400, "filter")
        await self.assert_problem(self.post("/v1/jobs/stop?worker=w1", {"worker": "w1"}), 400, "twice")
        await self.assert_problem(self.post("/v1/jobs/stop", {"limit": "1"}), 400, "limit")
        await self.assert_problem(self.post("/v1/jobs/stop", {"worker": "nosuch"}), 404, "worker 'nosuch' not found")
        for query in ("?worker=nosuch", "?worker=nosuch&output=1K"):
            await self.assert_problem(self.call("GET", f"/v1/jobs{query}"), 404, "worker 'nosuch' not found")
        await self.assert_problem(self.post("/v1/jobs/stop", {"workers": ["w1"]}), 400, "did you mean worker?")

    # -- output

    @scenario
    async def test_output(self) -> None:
        """What is there, with its length; from an offset; the last lines; of either stream."""
        job = self.fleet.add_job(b"one\ntwo\n", b"err")
        for query, body, offset in (
            ("", b"one\ntwo\n", 0),
            ("?offset=4", b"two\n", 4),
            ("?offset=8", b"", 8),
            ("?tail=1", b"two\n", 4),
            ("?tail=0", b"", 8),
            ("?stream=stderr", b"err", 0),
            ("?follow=0", b"one\ntwo\n", 0),
        ):
            reply = await self.call("GET", f"/v1/jobs/{job.id}/output{query}")
            self.assertEqual((reply.status, reply.body), (200, body))
            self.assertEqual(reply.headers["content-length"], str(len(body)))
            self.assertEqual(reply.headers["x-output-offset"], str(offset))
            self.assertEqual(reply.headers["content-type"], "text/plain; charset=utf-8")
            self.assertEqual(reply.headers["accept-ranges"], "bytes")

    @scenario
    async def test_large_output(self) -> None:
        """Output that takes many reads comes whole, and what is written meanwhile is not added."""
        self.house.workers.piece = 1000
        job = self.fleet.add_job(bytes(range(256)) * 300)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output")
        self.assertEqual(reply.body, bytes(range(256)) * 300)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output", range="bytes=500-60000")
        self.assertEqual(reply.body, (bytes(range(256)) * 300)[500:60001])

    @scenario
    async def test_ranges(self) -> None:
        """One range is answered, others are as if there were none."""
        job = self.fleet.add_job(b"0123456789")
        for header, body, content_range in (
            ("bytes=0-0", b"0", "bytes 0-0/10"),
            ("bytes=5-", b"56789", "bytes 5-9/10"),
            ("bytes=-3", b"789", "bytes 7-9/10"),
            ("bytes=8-99", b"89", "bytes 8-9/10"),
        ):
            reply = await self.call("GET", f"/v1/jobs/{job.id}/output", range=header)
            self.assertEqual((reply.status, reply.body), (206, body))
            self.assertEqual(reply.headers["content-range"], content_range)
            self.assertEqual(reply.headers["content-length"], str(len(body)))
        for header in ("bytes=0-1,4-5", "bytes=x", "bytes=5-4", "lines=1-2", "%00", "-"):
            reply = await self.call("GET", f"/v1/jobs/{job.id}/output", range=header)
            self.assertEqual((reply.status, reply.body), (200, b"0123456789"), header)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output", range="bytes=0-0", if_range='"x"')
        self.assertEqual(reply.status, 200)
        for header in ("bytes=10-", "bytes=99-100", "bytes=-0"):
            reply = await self.assert_problem(self.call("GET", f"/v1/jobs/{job.id}/output", range=header), 416)
            self.assertEqual(reply.headers["content-range"], "bytes */10")
        await self.assert_problem(self.call("GET", f"/v1/jobs/{job.id}/output?offset=11"), 416)
        for query in ("follow=1", "offset=0", "tail=1"):
            path = f"/v1/jobs/{job.id}/output?{query}"
            await self.assert_problem(self.call("GET", path, range="bytes=0-1"), 400, "Range")

    @scenario
    async def test_range_of_nothing(self) -> None:
        """Of an empty output no byte can be had, but its last ones are all there are."""
        job = self.fleet.add_job(b"")
        await self.assert_problem(self.call("GET", f"/v1/jobs/{job.id}/output", range="bytes=0-"), 416)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output", range="bytes=-5")
        self.assertEqual((reply.status, reply.body), (200, b""))

    @scenario
    async def test_output_mistakes(self) -> None:
        """Mistakes are named; what is not there is not found; what can't be had is 501."""
        job = self.fleet.add_job(b"x")
        for query in ("stream=out", "offset=-1", "offset=x", "tail=-1", "tail=1&offset=1", "follow=2", "wait=1"):
            await self.assert_problem(self.call("GET", f"/v1/jobs/{job.id}/output?{query}"), 400)
        await self.assert_problem(self.call("GET", "/v1/jobs/nope/output"), 404)
        self.fleet.add_worker("old", core=True)
        old = (await self.post("/start", {"worker_id": "old", "command": "a"})).json()["job_id"]
        for query in ("", "?follow=1", "?tail=1"):
            await self.assert_problem(self.call("GET", f"/v1/jobs/{old}/output{query}"), 501)
        await self.assert_problem(self.call("GET", f"/v1/jobs/{old}/output", accept="text/event-stream"), 501)

    @scenario
    async def test_follow(self) -> None:
        """Of an ended job, following is reading to the end."""
        job = self.fleet.add_job(b"all of it", b"no", JobState.SUCCEEDED)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output?follow=1")
        self.assertEqual((reply.status, reply.body), (200, b"all of it"))
        self.assertEqual("content-length" in reply.headers, False)

    @scenario
    async def test_events(self) -> None:
        """Of an ended job, the events are both streams and the end."""
        job = self.fleet.add_job(b"out", b"err", JobState.SUCCEEDED)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output", accept="text/event-stream")
        self.assertEqual(reply.headers["content-type"], "text/event-stream")
        self.assertEqual(reply.body.count(b"\n\n"), 4)
        self.assertIn(b'event: stdout\nid: 3,0\ndata: {"offset":0,"text":"out"}\n\n', reply.body)

    @scenario
    async def test_pruned(self) -> None:
        """Output that is no longer kept is gone, however it is asked for; the job is not."""
        job = self.fleet.add_job(b"out", b"", JobState.SUCCEEDED)
        self.fleet.prune(job.id)
        path = f"/v1/jobs/{job.id}/output"
        for query in ("", "?follow=1", "?tail=1", "?offset=1", "?offset=1&follow=1"):
            await self.assert_problem(self.call("GET", path + query), 410, "no longer kept")
        for span in ("bytes=0-1", "bytes=-1", "bytes=2-"):
            await self.assert_problem(self.call("GET", path, range=span), 410)
        await self.assert_problem(self.call("GET", path, accept="text/event-stream"), 410)
        self.assertEqual((await self.call("HEAD", path)).status, 410)
        self.assertEqual((await self.call("GET", f"{path}?stream=stderr")).body, b"")
        self.assertEqual((await self.call("GET", f"/v1/jobs/{job.id}")).json()["stdout_bytes"], 3)
        second = self.fleet.add_job(b"", b"err", JobState.SUCCEEDED)
        self.fleet.prune(second.id)
        events = self.call("GET", f"/v1/jobs/{second.id}/output", accept="text/event-stream")
        await self.assert_problem(events, 410)

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
