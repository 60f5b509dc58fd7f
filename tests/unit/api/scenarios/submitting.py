"""Scenarios of submissions."""

from __future__ import annotations

from scheduler.errors import QueueFull
from scheduler.terms import QueueTerms, Retry
from tests.unit.api.scenarios.base import Scenarios, scenario


class SubmissionScenarios(Scenarios):
    """``POST /v1/jobs``."""

    @scenario
    async def test_submit(self) -> None:
        """A submission is answered with the whole job and its ``Location``."""
        reply = await self.post("/v1/jobs", {"selector": {"zone": "a"}, "command": "echo", "args": ["ä"]})
        self.assertEqual((reply.status, reply.headers["location"]), (201, "/v1/jobs/job-1"))
        self.assertEqual(reply.json()["args"], ["ä"])
        self.assertEqual((await self.call("GET", reply.headers["location"])).json(), reply.json())

    @scenario
    async def test_submit_refused(self) -> None:
        """A submission that no worker matches is a conflict."""
        await self.assert_problem(self.post("/v1/jobs", {"selector": {"zone": "z"}, "command": "a"}), 409)

    @scenario
    async def test_submit_and_queue(self) -> None:
        """A job that has to wait is answered with its ``Location``, and can be listed and stopped."""
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
        """A job that may not wait, or that finds the queue full, is refused; ``/start`` never waits."""
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
        """The terms reach the scheduler, and are part of the job."""
        terms = {"queue_timeout": "2m", "priority": -3, "retry": {"attempts": 2, "delay": "1m"}}
        reply = await self.post("/v1/jobs", {"selector": {}, "command": "a", **terms})
        self.assertEqual(self.scheduler.asked("submit")[-1][0].terms, QueueTerms(120.0, -3, Retry(2, 60.0)))
        shown = {name: reply.json()[name] for name in terms}
        self.assertEqual(shown, {"queue_timeout": 120, "priority": -3, "retry": {"attempts": 2, "delay": 60}})

    @scenario
    async def test_submit_many_arguments(self) -> None:
        """A job may have 10,000 arguments."""
        reply = await self.post("/v1/jobs", {"worker": "w1", "command": "echo", "args": ["argument"] * 10_000})
        self.assertEqual((reply.status, len(reply.json()["args"])), (201, 10_000))

    @scenario
    async def test_submit_and_wait(self) -> None:
        """With ``wait`` the answer is the job at its end, or as it is when the wait is over."""
        reply = await self.post("/v1/jobs?wait=0", {"worker": "w1", "command": "a"})
        self.assertEqual((reply.status, reply.json()["state"]), (201, "running"))

    @scenario
    async def test_wait_with_a_stream(self) -> None:
        """``wait`` does not go with a stream."""
        body = {"worker": "w1", "command": "a"}
        await self.assert_problem(self.post("/v1/jobs?wait=1&follow=1", body), 400, "wait")
        await self.assert_problem(self.post("/v1/jobs?wait=1", body, accept="text/event-stream"), 400, "wait")
        await self.assert_problem(self.post("/v1/jobs?tail=1", body), 400, "tail")
        self.assertEqual(self.scheduler.asked("submit"), [])
