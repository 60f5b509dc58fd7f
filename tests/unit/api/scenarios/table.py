"""Scenarios of every route: methods, parameters, HEAD, and paths that are no route."""

from __future__ import annotations

from scheduler.model import JobState
from tests.unit.api.documents import PATHS, ROUTES_OF
from tests.unit.api.scenarios.base import Reply, Scenarios, scenario


class TableScenarios(Scenarios):
    """The walk over the route table."""

    @scenario
    async def test_methods(self) -> None:
        """Each path answers its own methods; any other is 405 with these methods."""
        self.fleet.add_job()
        for path, methods in PATHS.items():
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
        """A path that is no route is not found, for any method."""
        for path in ("/", "/v1", "/v1/", "/v1/jobs/", "/start/", "/v2/jobs", "/favicon.ico", "/v1/jobs/a/b/c"):
            for method in ("GET", "POST", "DELETE"):
                await self.assert_problem(self.call(method, path), 404)

    @scenario
    async def test_parameters(self) -> None:
        """A route refuses a parameter that its row does not have, and names those that it has."""
        self.fleet.add_job()
        for path, routes in ROUTES_OF.items():
            for route in routes:
                reply = await self.assert_problem(self.call(route.method, f"{path}?bogus=1"), 400, "bogus")
                self.assert_allowed(reply, route.query)

    @scenario
    async def test_fields(self) -> None:
        """A route refuses a field that the body reader in its row does not have, and names those that it has."""
        self.fleet.add_job()
        for path, routes in ROUTES_OF.items():
            for route in routes:
                if route.body is not None:
                    reply = await self.assert_problem(self.call(route.method, path, b'{"bogus": 1}'), 400, "bogus")
                    self.assert_allowed(reply, route.body.names)
        self.assertEqual(self.scheduler.asked("submit"), [])

    def assert_allowed(self, reply: Reply, names: tuple[str, ...]) -> None:
        allowed = reply.json()["detail"].rpartition("allowed: ")[2]
        self.assertEqual(allowed, ", ".join(sorted(names)) or "none", reply.path)
