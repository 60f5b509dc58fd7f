"""Scenarios of access: every route and method, with every kind of credentials, within reach and beyond.

All requests are made from the route table. A new route is covered by itself, or fails for want of an example here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import frozen

from scheduler.api.routes import ROUTES, Route
from scheduler.limits import ClientLimits
from scheduler.model import Job, JobSpec, JobState
from scheduler.security.principals import Scope
from tests.doubles.authentication import INVALID, OTHER_UID, OWN_UID, TOKENS, Doorkeeper
from tests.unit.api.scenarios.base import Reply, Scenarios, scenario

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

#: Bodies of the routes that read one, but for ``worker`` and ``job``, the name of a worker and the id of a job.
BODIES: Mapping[str, Mapping[str, object]] = {
    "POST /start": {"worker_id": "worker", "command": "forbidden", "path": ""},
    "POST /stop": {"worker_id": "worker", "job_id": "job"},
    "POST /query": {"worker_id": "worker", "job_id": "job"},
    "POST /v1/jobs": {"worker": "worker", "command": "forbidden"},
    "POST /v1/jobs/stop": {"worker": "worker"},
    "POST /v1/jobs/<job_id>/stop": {},
    "POST /v1/jobs/<job_id>/signal": {"signal": "SIGTERM"},
    "POST /v1/workers/<worker>/drain": {},
    "POST /v1/workers/<worker>/resume": {},
    "POST /v1/tokens": {"name": "new", "scope": "read"},
}

#: The same routes in other forms: query strings, and the wanted type of the answer.
EVENTS = "text/event-stream"
FORMS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "POST /v1/jobs": (("?wait=1", ""), ("?follow=1", ""), ("", EVENTS)),
    "GET /v1/jobs/<job_id>": (("?wait=1", ""), ("?output=1", "")),
    "GET /v1/jobs/<job_id>/output": (("?follow=1", ""), ("?tail=1", ""), ("", EVENTS)),
    "GET /v1/jobs": (("?worker=worker", ""), ("?output=1", "")),
}

#: Routes that name neither a worker nor a job, whoever calls them.
NAMELESS = {
    *("GET /v1/jobs", "GET /v1/workers", "GET /healthz", "GET /readyz", "GET /v1/version", "GET /problems/<name>"),
    *("GET /v1/tokens", "POST /v1/tokens", "GET /v1/tokens/<token_id>", "DELETE /v1/tokens/<token_id>"),
    "GET /v1/audit",
}

#: The tests make many connections, and send many tokens that are not valid.
LIMITS = ClientLimits(connections_per_address=1_000_000, failed_logins_per_minute=1_000_000)


@frozen
class Example:
    """A request to a path of the table; ``route`` is the route for its method, if there is one."""

    method: str
    path: str
    route: Route | None
    body: bytes = b""
    accept: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"accept": self.accept} if self.accept else {}

    @property
    def names_worker(self) -> bool:
        assert self.route is not None
        return "<worker>" in self.route.path or "worker" in _values(self.route) or "worker=" in self.path

    @property
    def names_job(self) -> bool:
        assert self.route is not None
        return "<job_id>" in self.route.path or "job" in _values(self.route)


def _values(route: Route) -> list[object]:
    return [] if route.body is None else list(BODIES[route.name].values())


def examples(worker: str, job: Callable[[], str]) -> Iterator[Example]:
    """A request for each path and method, in each form, that names this worker, and a job with the id that it gets."""

    def filled(path: str) -> str:
        return (
            path.replace("<worker>", worker)
            .replace("<job_id>", job() if "<job_id>" in path else "")
            .replace("<name>", "busy")
            .replace("<token_id>", "nope")
        )

    for path in dict.fromkeys(route.path for route in ROUTES):
        by_method = {method: route for route in ROUTES if route.path == path for method in route.methods}
        for method in METHODS:
            route = by_method.get(method)
            if route is None:
                yield Example(method, filled(path), None)
                continue
            for query, accept in (("", ""), *FORMS.get(route.name, ())):
                body = b""
                if route.body is not None:
                    names = {"worker": worker, "job": job() if "job" in _values(route) else ""}
                    document = {key: names.get(str(value), value) for key, value in BODIES[route.name].items()}
                    body = json.dumps(document).encode()
                yield Example(method, filled(path) + query.replace("=worker", f"={worker}"), route, body, accept)


class AccessScenarios(Scenarios):
    """Refusals. ``w1`` has the label ``zone=a``, ``w2`` has ``zone=b`` and runs a job."""

    doorkeeper: Doorkeeper

    def begin(self) -> None:
        self.fleet.add_worker("w2", labels={"zone": "b", "secret": "s3cr3t"})
        self.fleet.refuse("forbidden", "not allowed")
        self.foreign = self.fleet.add_job(b"foreign\n", on="w2", spec=JobSpec("foreign"))

    def own(self) -> str:
        """The id of a new job on ``w1``."""
        return self.fleet.add_job(b"own\n", state=JobState.SUCCEEDED).id

    def ask(self, example: Example, token: str = "", **headers: str) -> Any:
        fields = {**example.headers, **headers, **({"authorization": f"Bearer {token}"} if token else {})}
        return self.call(example.method, example.path, example.body, **fields)

    async def assert_refused(self, example: Example, token: str, status: int, kind: str, **headers: str) -> Reply:
        """The request is answered with that problem, and nothing was asked of the scheduler."""
        del self.scheduler.calls[:]
        reply: Reply = await self.ask(example, token, **headers)
        self.assertEqual(reply.status, status, (example, token, reply.body))
        if example.method != "HEAD":
            self.assertEqual(reply.json()["type"], f"/problems/{kind}", (example, token))
        self.assertEqual(self.scheduler.calls, [], example)
        return reply

    async def assert_unauthenticated(self, example: Example, token: str = "", **headers: str) -> None:
        reply = await self.assert_refused(example, token, 401, "unauthenticated", **headers)
        self.assertEqual(reply.headers["www-authenticate"], 'Bearer realm="scheduler"')

    async def assert_admitted(self, example: Example, token: str = "") -> None:
        reply = await self.ask(example, token)
        self.assertEqual(reply.status in {401, 403}, False, (example, reply.body))
        self.assertEqual(reply.status == 405, example.route is None, (example, reply.body))

    @scenario
    async def test_no_valid_token(self) -> None:
        """Without a valid token every path is 401, for every method, but those that are open; these tell nothing."""
        self.begin()
        bad: list[tuple[str, dict[str, str]]] = [("", {}), *((token, {}) for token in INVALID)]
        bad += [("", {"authorization": value}) for value in ("Basic YTpi", "Bearer", "Bearer ", "admin")]
        for example in examples("w1", self.own):
            for token, headers in bad:
                if example.route is None or example.route.scope is not Scope.OPEN:
                    await self.assert_unauthenticated(example, token, **headers)
                else:
                    reply = await self.ask(example, token, **headers)
                    said = {"/healthz": {"alive": True}, "/readyz": {"ready": True}}[example.path]
                    self.assertEqual(reply.status, 200)
                    self.assertEqual(example.method == "HEAD" or reply.json() == said, True, reply.body)
        for path in ("/", "/v1", "/nope", "/v1/jobs/a/b/c", "/healthz/"):
            await self.assert_unauthenticated(Example("GET", path, None))
        await self.assert_unauthenticated(Example("GET", "/v1/jobs?token=admin&access_token=admin", None))

    @scenario
    async def test_not_ready(self) -> None:
        """Without a token nobody is told why the scheduler is not ready."""
        self.house.store.problem = "disk full"
        self.house.parts.service.refuse()
        reply = await self.call("GET", "/readyz")
        self.assertEqual((reply.status, b"disk" in reply.body, reply.json()["ready"]), (503, False, False))
        reply = await self.call("GET", "/readyz", authorization="Bearer reader")
        self.assertIn("shutting down", reply.json()["reasons"])

    @scenario
    async def test_scopes(self) -> None:
        """A token of each scope is admitted where the table says so, and is told the scope that is needed elsewhere."""
        self.begin()
        for example in examples("w1", self.own):
            for token in ("reader", "runner", "admin"):
                if example.route is None or example.route.scope <= TOKENS[token].scope:
                    await self.assert_admitted(example, token)
                else:
                    reply = await self.assert_refused(example, token, 403, "scope-needed")
                    if example.method != "HEAD":
                        self.assertEqual(reply.json()["needed_scope"], example.route.scope.name.lower())

    @scenario
    async def test_other_sites(self) -> None:
        """A request for another site's page, or by a rebound name, is refused with the best of tokens, and without."""
        self.begin()
        for example in examples("w1", self.own):
            for token in ("admin", ""):
                await self.assert_refused(example, token, 403, "cross-site", origin="https://evil.example")
                await self.assert_refused(example, token, 403, "cross-site", sec_fetch_site="cross-site")
                await self.assert_refused(example, token, 403, "host-not-allowed", host="evil.example")

    @scenario
    async def test_local_users(self) -> None:
        """A local user who needs a token is 401 without one; the user of the process itself needs none."""
        self.begin()
        for example in examples("w1", self.own):
            self.doorkeeper.uid[0] = OTHER_UID
            if example.route is None or example.route.scope is not Scope.OPEN:
                await self.assert_unauthenticated(example)
            await self.assert_admitted(example, "admin")
            self.doorkeeper.uid[0] = OWN_UID
            await self.assert_admitted(example)
            await self.assert_refused(example, "", 403, "cross-site", origin="https://evil.example")

    @scenario
    async def test_beyond_reach(self) -> None:
        """A foreign worker is 403, a foreign job is 404, and neither is touched nor told of."""
        self.begin()
        before = self.seen(self.foreign)

        def foreign() -> str:
            return self.foreign.id

        for worker, job in (("w2", foreign), ("id-w2", self.own), ("w1", foreign)):
            for example in examples(worker, job):
                if example.route is None:
                    continue
                foreign_worker = example.names_worker and worker != "w1"
                foreign_job = example.names_job and job is foreign
                reply = await self.ask(example, "limited")
                if foreign_worker:
                    self.assert_problem_is(reply, 403, "refused")
                elif foreign_job:
                    self.assert_problem_is(reply, 404, "job-unknown")
                elif example.names_worker or example.names_job:
                    self.assertEqual(reply.status in {401, 403, 404}, False, (example, reply.body))
                else:
                    self.assertIn(example.route.name, NAMELESS)
                for secret in (b"s3cr3t", b"zone=b", b"foreign", b"30001"):
                    self.assertEqual(secret in reply.body, False, (example, reply.body))
        self.assertEqual(self.seen(self.foreign), before)

    def assert_problem_is(self, reply: Reply, status: int, kind: str) -> None:
        self.assertEqual(reply.status, status, (reply.method, reply.path, reply.body))
        if reply.method != "HEAD":
            self.assertEqual(reply.json()["type"], f"/problems/{kind}", reply.path)

    def seen(self, job: Job) -> tuple[object, ...]:
        """All that there is of a job and its worker, and the calls that the worker got."""
        runner = self.fleet.runner("w2")
        return self.house.job(job.id), self.house.worker("id-w2"), list(runner.started), list(runner.signals)

    @scenario
    async def test_nothing_by_that_name(self) -> None:
        """Names that nothing has are 404 for everybody."""
        self.begin()
        for token in ("admin", "limited"):
            for example in examples("nope", lambda: "nope"):
                if example.route is not None and (example.names_worker or example.names_job):
                    reply = await self.ask(example, token)
                    self.assertEqual(reply.status, 404, (example, reply.body))

    @scenario
    async def test_lists(self) -> None:
        """Lists show only what is within reach."""
        self.begin()
        own = self.own()
        limited = {"authorization": "Bearer limited"}
        for query in ("", "?limit=1", "?state=running,succeeded", "?output=1"):
            jobs = (await self.call("GET", f"/v1/jobs{query}", **limited)).json()["jobs"]
            self.assertEqual([job["id"] for job in jobs], [own])
        workers = (await self.call("GET", "/v1/workers", **limited)).json()["workers"]
        self.assertEqual([worker["name"] for worker in workers], ["w1"])
        ready = (await self.call("GET", "/readyz", **limited)).json()
        self.assertEqual(ready, {"ready": True, "workers_online": 1})
        everything = (await self.call("GET", "/v1/jobs", authorization="Bearer reader")).json()["jobs"]
        self.assertEqual(len(everything), 2)

    @scenario
    async def test_audit_of_all(self) -> None:
        """The audit is about all workers, so a token that reaches only some may not read it."""
        self.begin()
        self.assert_problem_is(await self.call("GET", "/v1/audit", authorization="Bearer limited"), 403, "refused")
        self.assertEqual((await self.call("GET", "/v1/audit", authorization="Bearer admin")).status, 200)

    @scenario
    async def test_created_by(self) -> None:
        """A job names the principal that submitted it, by either route, and is found by it."""
        self.begin()
        for token in ("runner", "admin"):
            for path, worker in (("/start", "worker_id"), ("/v1/jobs", "worker")):
                body = {worker: "w1", "command": "forbidden", **({"path": ""} if path == "/start" else {})}
                reply = await self.post(path, body, authorization=f"Bearer {token}")
                job = (await self.call("GET", reply.headers["location"], authorization="Bearer reader")).json()
                self.assertEqual(job["created_by"], f"token:{token}")
            found = await self.call("GET", f"/v1/jobs?created_by=token:{token}", authorization="Bearer reader")
            self.assertEqual({job["created_by"] for job in found.json()["jobs"]}, {f"token:{token}"})
            self.assertEqual(len(found.json()["jobs"]), 2)

    @scenario
    async def test_keys(self) -> None:
        """The same key of two principals is two keys."""
        self.begin()
        ids = set()
        for token in ("runner", "admin", "limited"):
            for repeated in (False, True):
                reply = await self.post(
                    "/v1/jobs",
                    {"worker": "w1", "command": "forbidden"},
                    authorization=f"Bearer {token}",
                    idempotency_key="k",
                )
                self.assertEqual((reply.status, "idempotent-replayed" in reply.headers), (201, repeated))
                ids.add(reply.json()["id"])
        self.assertEqual(len(ids), 3)
        reply = await self.post(
            "/v1/jobs", {"worker": "w1", "command": "other"}, authorization="Bearer reader", idempotency_key="k"
        )
        self.assertEqual(reply.status, 403)
