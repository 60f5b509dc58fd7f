"""Scenarios of workers and of the process."""

from __future__ import annotations

from tests.unit.api.scenarios.base import Scenarios, scenario


class WorkerScenarios(Scenarios):
    """``/v1/workers`` and the routes below it, ``/healthz`` and ``/readyz``."""

    @scenario
    async def test_workers(self) -> None:
        """Workers are listed by name; one worker is found by id or name."""
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
        for path, draining in (("drain", True), ("resume", False)):
            reply = await self.call("POST", f"/v1/workers/w1/{path}")
            self.assertEqual((reply.status, reply.json()["draining"]), (200, draining))
            await self.assert_problem(self.call("POST", f"/v1/workers/nope/{path}"), 404)

    @scenario
    async def test_forget(self) -> None:
        """A worker that is online is a conflict; any other is forgotten with 204."""
        await self.assert_problem(self.call("DELETE", "/v1/workers/w1"), 409)
        self.fleet.lose()
        reply = await self.call("DELETE", "/v1/workers/w1")
        self.assertEqual((reply.status, reply.body), (204, b""))
        await self.assert_problem(self.call("DELETE", "/v1/workers/w1"), 404)

    @scenario
    async def test_health(self) -> None:
        """The server is alive, and ready or 503 with the reasons."""
        self.assertEqual((await self.call("GET", "/healthz")).status, 200)
        reply = await self.call("GET", "/readyz")
        self.assertEqual((reply.status, reply.json()), (200, {"ready": True, "workers_online": 1}))
        self.house.store.problem = "disk full"
        await self.assert_problem(self.call("POST", "/v1/workers/w1/drain"), 503)
        self.house.parts.service.refuse()
        reply = await self.assert_problem(self.call("GET", "/readyz"), 503, "database unavailable")
        self.assertEqual(reply.json()["reasons"], ["shutting down", "database unavailable: disk full"])
