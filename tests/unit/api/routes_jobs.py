"""What the routes of jobs answer, those of their output aside."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from scheduler.errors import (
    DeadlineExceeded,
)
from scheduler.interfaces import JobFilter
from scheduler.model import Job, JobSpec, JobState, QueueTerms, Retry, Target
from tests.unit.api.scenarios import NOW, Reply, Scenarios, scenario


class JobScenarios(Scenarios):
    """Jobs: looks, stops, removals, signals."""

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
