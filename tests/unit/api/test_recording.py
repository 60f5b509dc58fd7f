"""Requests in the audit: those refused at the door, and the sender of those that are not."""

from __future__ import annotations

import json
from ipaddress import ip_network

from attrs import evolve
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from scheduler.api.server import make_site
from scheduler.errors import Unauthenticated
from scheduler.model import JobState
from scheduler.security.audit import Act
from scheduler.security.authentication import Authentication
from scheduler.security.principals import Principal, Scope
from scheduler.security.token_text import new_text
from scheduler.views import JobFilter
from tests.doubles.authentication import NoLocalUsers, NoTokens
from tests.unit.api.cases import ServerTestCase
from tests.unit.api.conversation import HOSTS, NOW


class Tokens(NoTokens):
    """Tokens with the names of the scopes that they have."""

    def principal(self, token: str) -> Principal:
        if token == "limited":
            return Principal("token", token, Scope.ADMIN, {"zone": "nowhere"})
        scopes = {scope.name.lower(): scope for scope in Scope}
        if token not in scopes:
            raise Unauthenticated("no such token")
        return Principal("token", token, scopes[token])


class RecordingTests(ServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        door = Authentication(Tokens(), NoLocalUsers())
        audit = self.house.parts.audit
        self.server.site = make_site(self.scheduler, door, self.clock, lambda: NOW, HOSTS, audit=audit)

    def ask(self, method: str, path: str, token: str = "", body: bytes = b"", **headers: str) -> int:
        """The status of the answer."""
        if token:
            headers["authorization"] = f"Bearer {token}"
        return self.server.ask(method, path, body, **headers).response().status

    def acts(self) -> list[Act]:
        return [entry.act for entry in self.house.store.audit.values()]

    def assert_refused(self, *expected: tuple[str, str, str]) -> None:
        """Exactly these refusals are recorded: who asked for what, and the reason."""
        self.assertEqual([(act.who, act.target, act.result) for act in self.acts()], list(expected))
        self.assertEqual({(act.action, act.origin) for act in self.acts()}, {("refused", "127.0.0.1")})

    def test_no_token(self) -> None:
        """A request without a valid token is recorded, also one for a path that no route has; its query is not."""
        self.assertEqual(self.ask("GET", "/v1/jobs?label=s3cret"), 401)
        self.assertEqual(self.ask("POST", "/start", "garbage"), 401)
        self.assertEqual(self.ask("GET", "/v9/nowhere"), 401)
        self.assertEqual(self.ask("PATCH", "/v1/jobs"), 401)
        refused = [("", asked, "unauthenticated") for asked in ("GET /v1/jobs", "POST /start")]
        refused += [("", asked, "unauthenticated") for asked in ("GET /v9/nowhere", "PATCH /v1/jobs")]
        self.assert_refused(*refused)
        self.assertNotIn("s3cret", repr(self.acts()))
        self.assertNotIn("garbage", repr(self.acts()))

    def test_scope(self) -> None:
        """A request beyond the scope of its token is recorded under the token's name; so is one for the audit."""
        self.assertEqual(self.ask("POST", "/v1/workers/w1/drain", "run", b"{}"), 403)
        self.assertEqual(self.ask("GET", "/v1/audit", "run"), 403)
        self.assert_refused(
            ("token:run", "POST /v1/workers/w1/drain", "scope-needed"), ("token:run", "GET /v1/audit", "scope-needed")
        )

    def test_reach(self) -> None:
        """A request to read what is beyond the reach of its token is recorded under the token's name."""
        asked = ("GET /v1/workers/w1", "GET /v1/jobs", "GET /v1/audit", "POST /query")
        body = json.dumps({"worker_id": "w1", "job_id": self.fleet.add_job().id}).encode()
        self.assertEqual(self.ask("GET", "/v1/workers/w1", "limited"), 403)
        self.assertEqual(self.ask("GET", "/v1/jobs?worker=w1", "limited"), 403)
        self.assertEqual(self.ask("GET", "/v1/audit", "limited"), 403)
        self.assertEqual(self.ask("POST", "/query", "limited", body), 403)
        self.assert_refused(*[("token:limited", each, "refused") for each in asked])

    def test_foreign_jobs(self) -> None:
        """A request for a job beyond the reach of its token, which is 404 for it, is recorded."""
        job = self.fleet.add_job(b"text")
        asked = [f"GET /v1/jobs/{job.id}", f"GET /v1/jobs/{job.id}/output"]
        for each in asked:
            self.assertEqual(self.ask(*each.split(), "limited"), 404)
        self.assertEqual(self.ask("GET", "/v1/jobs/unheard-of", "limited"), 404)
        self.assert_refused(*[("token:limited", each, "beyond-reach") for each in asked])

    def test_token_in_the_path(self) -> None:
        """A token that is sent in place of an id is recorded and logged without its secret."""
        lines: list[str] = []

        def observe(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        token = new_text("abcdefghij")
        for method, path in (("DELETE", "tokens"), ("GET", "jobs"), ("POST", "workers")):
            for sender in ("admin", "read", ""):
                self.ask(method, f"/v1/{path}/{token}{'/drain' if method == 'POST' else ''}", sender)
        shown = repr(self.acts()) + "".join(lines)
        self.assertIn("sched_abcdefghij_...", shown)
        self.assertNotIn(token.split("_")[2], shown)
        self.assertGreaterEqual(len(self.acts()), 6)

    def test_guard(self) -> None:
        """A request for another host, or on behalf of another page, is recorded."""
        self.assertEqual(self.ask("GET", "/v1/jobs", "admin", host="evil.example"), 403)
        self.assertEqual(self.ask("POST", "/start", "admin", origin="http://evil.example"), 403)
        self.assert_refused(("", "GET /v1/jobs", "host-not-allowed"), ("", "POST /start", "cross-site"))

    def test_open(self) -> None:
        """A request that needs no token, or is refused for another reason, is not recorded."""
        self.assertEqual(self.ask("GET", "/healthz"), 200)
        self.assertEqual(self.ask("GET", "/v1/jobs?bogus=1", "read"), 400)
        self.assertEqual(self.ask("GET", "/v1/jobs", "read"), 200)
        self.assertEqual(self.acts(), [])

    def test_foreign_output(self) -> None:
        """Output of another principal's job is recorded however it is read: by itself, followed, or with the job."""
        paths = ("/v1/jobs/{}/output", "/v1/jobs/{}/output?follow=1", "/v1/jobs/{}?output=1KiB")
        for number, path in enumerate(paths):
            job = self.fleet.add_job(b"text", state=JobState.SUCCEEDED)
            registry = self.house.parts.ledger.registry
            registry.put_job(evolve(registry.jobs.get(job.id), created_by="token:other"))
            self.assertEqual(self.ask("GET", f"/v1/jobs/{job.id}", "read"), 200)
            self.assertEqual(len(self.acts()), number)
            self.assertEqual(self.ask("GET", path.format(job.id), "read"), 200)
            act = self.acts()[-1]
            self.assertEqual((act.action, act.target, act.who), ("read", job.id, "token:read"))
        for job in self.scheduler.jobs(JobFilter(), 10, None).jobs:
            registry.put_job(evolve(job, created_by="token:third"))
        self.assertEqual(self.ask("GET", "/v1/jobs?output=1KiB", "run"), 200)
        self.assertEqual([act.who for act in self.acts()[len(paths) :]], ["token:run"] * len(paths))

    def test_user(self) -> None:
        """The user of this machine who sends a request is recorded, also if it claims to come from elsewhere."""
        self.server.site.trusted_proxies = (ip_network("127.0.0.2"),)
        for peer in ("127.0.0.1", "127.0.0.2"):
            connection = self.server.connect(peer=peer)
            connection.protocol.uid = 7
            connection.ask("GET", "/v1/jobs", x_forwarded_for="192.0.2.1")
        self.assertEqual([(act.origin, act.uid) for act in self.acts()], [("127.0.0.1", 7), ("192.0.2.1", None)])

    def test_sender(self) -> None:
        """An act is recorded under its principal, address and request id, by the core routes and v1 alike."""
        body = json.dumps({"worker_id": "w1", "command": "echo", "path": "x"}).encode()
        self.assertEqual(self.ask("POST", "/start", "run", body, x_request_id="r-7"), 201)
        self.assertEqual(self.ask("POST", "/v1/workers/w1/drain", "admin"), 200)
        started, drained = self.acts()
        self.assertEqual((started.who, started.origin, started.request_id), ("token:run", "127.0.0.1", "r-7"))
        self.assertEqual(json.loads(started.details), {"command": "echo", "path": "x"})
        self.assertEqual((drained.who, drained.action, drained.result), ("token:admin", "drain", "ok"))
        self.assertEqual(len(drained.request_id), 32)
