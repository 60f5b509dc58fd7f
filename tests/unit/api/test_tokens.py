"""``/v1/tokens``, requests with tokens, and the end of these requests."""

from __future__ import annotations

import json
from typing import Any

from twisted.logger import globalLogPublisher

from scheduler.api.routes import ROUTES
from scheduler.security.authentication import Authentication, Credentials
from scheduler.security.interfaces import NewToken
from scheduler.security.principals import Principal, Scope
from scheduler.security.tokens import MAX_TOKENS
from tests.house import result_of
from tests.unit.api.cases import EVENTS, StreamTestCase
from tests.unit.api.conversation import NOW, Connection, Response, Server
from tests.unit.api.documents import example

ROOT = Principal("local", "root", Scope.ADMIN)


class _RootOfMachine:
    """Local users: only root."""

    def principal(self, uid: int) -> Principal:
        return ROOT


class TokenServer(Server):
    """A site that wants a token of each request."""

    def authentication(self) -> Authentication:
        return Authentication(self.house.parts.tokens, _RootOfMachine())


class TokenCase(StreamTestCase):
    def begin(self, **settings: Any) -> None:
        super().begin()
        self.server = TokenServer()
        self.scheduler, self.fleet, self.house = self.server.parts
        self.clock = self.server.clock
        self.tokens = self.house.parts.tokens
        self.admin = self.token("boss")

    def token(self, name: str, scope: Scope = Scope.ADMIN, by: Principal = ROOT, **facts: Any) -> str:
        """The text of a new token."""
        _, text = result_of(self.tokens.create(by, NewToken(name, scope, **facts)))
        return str(text)

    def ask(self, token: str, method: str, target: str, body: bytes = b"", **headers: str) -> Connection:
        return self.server.ask(method, target, body, authorization=f"Bearer {token}", **headers)

    def call(self, method: str, target: str, body: bytes = b"", token: str = "") -> Response:
        return self.ask(token or self.admin, method, target, body).response()

    def make(self, token: str = "", **fields: Any) -> Response:
        return self.call("POST", "/v1/tokens", json.dumps(fields).encode(), token)

    def id_of(self, name: str) -> str:
        (found,) = (token.id for token in self.tokens.all(ROOT) if token.name == name)
        return found


class RouteTests(TokenCase):
    def test_made(self) -> None:
        """The answer has the token and all about it, is not to be stored, and the token works."""
        response = self.make(name="ci", scope="run", workers={"gpu": "1"}, expires="90d")
        made = response.json()
        self.assertEqual((response.status, response.headers["cache-control"]), (201, "no-store"))
        self.assertEqual(response.headers["location"], f"/v1/tokens/{made['id']}")
        self.assertRegex(made["token"], rf"^sched_{made['id']}_[A-Za-z0-9]{{43}}_[0-9a-f]{{8}}$")
        self.assertEqual(
            {key: value for key, value in made.items() if key not in ("id", "token")},
            {
                "name": "ci",
                "scope": "run",
                "workers": {"gpu": "1"},
                "created_at": "2023-11-14T22:13:20.000000Z",
                "created_by": "token:boss",
                "expires_at": "2024-02-12T22:13:20.000000Z",
                "expired": False,
                "last_used_at": None,
            },
        )
        self.assertEqual(self.call("GET", "/v1/version", token=made["token"]).status, 200)

    def test_shown_once(self) -> None:
        """Lists and looks show neither the token nor its digest."""
        made = self.make(name="ci", scope="run").json()
        listed, one = self.call("GET", "/v1/tokens"), self.call("GET", f"/v1/tokens/{made['id']}")
        self.assertEqual([token["name"] for token in listed.json()["tokens"]], ["boss", "ci"])
        self.assertEqual(one.json(), {key: value for key, value in made.items() if key != "token"})
        digest = self.tokens.get(ROOT, made["id"]).digest
        for body in (listed.body, one.body):
            self.assertNotIn(made["token"].split("_")[2].encode(), body)
            self.assertNotIn(digest.encode(), body)

    def test_expiry(self) -> None:
        """A token expires after a duration, at a time, or never."""
        for number, (expires, shown) in enumerate(
            (
                (3600, "2023-11-14T23:13:20.000000Z"),
                ("2030-01-02T03:04:05+01:00", "2030-01-02T02:04:05.000000Z"),
                (None, None),
            )
        ):
            made = self.make(name=f"t-{number}", scope="read", expires=expires).json()
            self.assertEqual(made["expires_at"], shown)

    def test_mistakes(self) -> None:
        """A body with a mistake makes no token; the answer names the field."""
        good = {"name": "ci", "scope": "run"}
        for field, value in (
            ("name", None),
            ("name", "a b"),
            ("name", "é"),
            ("name", 5),
            ("scope", "root"),
            ("scope", "OPEN"),
            ("scope", "Run"),
            ("scope", None),
            ("workers", ["gpu"]),
            ("workers", "gpu=1"),
            ("expires", "soon"),
            ("expires", 0),
            ("expires", -1),
            ("expires", "4000d"),
            ("expires", True),
            ("expires", "2001-01-01T00:00:00Z"),
            ("expires", "2026-02-30T00:00:00Z"),
            ("admin", True),
        ):
            response = self.make(**{**good, field: value})
            self.assertEqual((response.status, response.json().get("field")), (400, field), (field, value))
        self.assertEqual(self.make(**good, workers={"gpu": 1}).json()["field"], "workers.gpu")
        for missing in good:
            fields = {key: value for key, value in good.items() if key != missing}
            self.assertEqual(self.make(**fields).json()["field"], missing)
        self.assertEqual(len(self.tokens.all(ROOT)), 1)

    def test_conflicts(self) -> None:
        """A second token of a name, and one more than there may be, are refused with 409."""
        self.make(name="ci", scope="run")
        self.assertEqual(self.make(name="ci", scope="read").json()["type"], "/problems/name-taken")
        for number in range(MAX_TOKENS - 2):
            self.token(f"t-{number}")
        response = self.make(name="more", scope="read")
        self.assertEqual((response.status, response.json()["type"]), (409, "/problems/conflict"))

    def test_within_reach(self) -> None:
        """A token makes no token that reaches further, and does not see those that do."""
        own = self.token("zone", reach={"zone": "a"})
        self.assertEqual(self.make(own, name="a", scope="read").json()["workers"], {"zone": "a"})
        refused = self.make(own, name="b", scope="read", workers={"zone": "b"})
        self.assertEqual((refused.status, refused.json()["type"]), (403, "/problems/refused"))
        listed = self.call("GET", "/v1/tokens", token=own).json()["tokens"]
        self.assertEqual([token["name"] for token in listed], ["a", "zone"])
        for method in ("GET", "DELETE"):
            response = self.call(method, f"/v1/tokens/{self.id_of('boss')}", token=own)
            self.assertEqual((response.status, response.json()["type"]), (404, "/problems/token-unknown"))

    def test_revoked(self) -> None:
        """A revoked token is 401 from then on, and not known any more."""
        made = self.make(name="ci", scope="run").json()
        path = f"/v1/tokens/{made['id']}"
        self.assertEqual(self.call("DELETE", path).status, 204)
        response = self.call("GET", "/v1/jobs", token=made["token"])
        self.assertEqual((response.status, response.json()["type"]), (401, "/problems/unauthenticated"))
        self.assertTrue(response.headers["www-authenticate"].startswith("Bearer"))
        for method in ("GET", "DELETE"):
            self.assertEqual(self.call(method, path).json()["type"], "/problems/token-unknown")

    def test_revokes_itself(self) -> None:
        """A token that revokes itself gets the answer."""
        self.assertEqual(self.call("DELETE", f"/v1/tokens/{self.id_of('boss')}").status, 204)
        self.assertEqual(self.call("GET", "/v1/tokens").status, 401)

    def test_store_fails(self) -> None:
        """If the database fails, no token is made; a revocation is answered with 503 and holds."""
        self.token("ci")
        self.house.store.problem = "disk full"
        self.assertEqual(self.make(name="new", scope="run").json()["type"], "/problems/store-failing")
        path = f"/v1/tokens/{self.id_of('ci')}"
        self.assertEqual(self.call("DELETE", path).json()["type"], "/problems/store-failing")
        self.assertEqual([token.name for token in self.tokens.all(ROOT)], ["boss"])
        self.house.store.problem = ""
        self.clock.advance(10)

    def test_for_admins(self) -> None:
        """A token with a smaller scope can't even list tokens."""
        for scope in (Scope.READ, Scope.RUN):
            small = self.token(scope.name, scope)
            for route in ROUTES:
                if route.path.startswith("/v1/tokens"):
                    response = self.call(route.method, example(route), token=small)
                    self.assertEqual((response.status, response.json()["needed_scope"]), (403, "admin"), route.name)


class RequestTests(TokenCase):
    def test_not_in_the_query(self) -> None:
        """A token in the query string is an unknown parameter, and admits nobody."""
        for name in ("token", "access_token", "authorization"):
            target = f"/v1/jobs?{name}={self.admin}"
            response = self.call("GET", target)
            self.assertEqual((response.status, response.json()["field"]), (400, name))
            self.assertEqual(self.server.ask("GET", target).response().status, 401)

    def test_garbage(self) -> None:
        """A header that is no token, or two headers, are 401, also where local users need no token."""
        for given in ("", "Bearer", "Bearer ", "Basic dTpw", "Bearer x", f"Bearer {self.admin[:-1]}", "Bearer \xe9"):
            response = self.server.ask("GET", "/v1/jobs", authorization=given).response()
            self.assertEqual(response.status, 401, given)
        twice = self.server.connect()
        line = f"Authorization: Bearer {self.admin}\r\n"
        twice.send(f"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n{line}{line}\r\n".encode())
        self.assertEqual(twice.response().status, 401)

    def test_secrets_in_no_log(self) -> None:
        """No line of the log has a token."""
        logged: list[str] = []
        globalLogPublisher.addObserver(lambda event: logged.append(repr(event)))
        self.addCleanup(globalLogPublisher.removeObserver, globalLogPublisher)
        made = self.make(name="ci", scope="run").json()
        self.call("GET", "/v1/jobs", token=made["token"])
        self.call("DELETE", f"/v1/tokens/{made['id']}")
        self.call("GET", "/v1/jobs", token=made["token"])
        self.assertTrue(logged)
        for secret in (made["token"], self.admin):
            self.assertNotIn(secret.split("_")[2], "".join(logged))

    def test_credentials_not_shown(self) -> None:
        """The representation of what a request shows has no token."""
        self.assertNotIn(self.admin, repr(Credentials((f"Bearer {self.admin}",))))


class EndTests(TokenCase):
    """The requests under way of a token that ends."""

    def begin(self, **settings: Any) -> None:
        super().begin()
        self.ci = self.token("ci", Scope.RUN, expires_at=NOW + 60)
        self.job = self.fleet.add_job()

    def revoke(self) -> None:
        self.assertEqual(self.call("DELETE", f"/v1/tokens/{self.id_of('ci')}").status, 204)

    def assert_cut(self, connection: Connection) -> None:
        self.assertTrue(connection.socket.aborted)

    def test_raw(self) -> None:
        """A body that is followed is cut, so it does not look complete; that of another token goes on."""
        path = f"/v1/jobs/{self.job.id}/output?follow=1"
        cut, stays = self.ask(self.ci, "GET", path), self.ask(self.admin, "GET", path)
        self.revoke()
        self.assert_cut(cut)
        self.assertFalse(cut.response().complete)
        self.assertTrue(stays.socket.connected)
        stays.hang_up()

    def test_events(self) -> None:
        """Events are cut without ``end`` or ``resume``."""
        cut = self.ask(self.ci, "GET", f"/v1/jobs/{self.job.id}/output", **EVENTS)
        self.revoke()
        self.assert_cut(cut)
        self.assertNotIn(b"event: resume", cut.response().body)
        self.assertNotIn(b"event: end", cut.response().body)

    def test_long_poll(self) -> None:
        """A client that waits for a job's end is cut, and nobody waits any more."""
        cut = self.ask(self.ci, "GET", f"/v1/jobs/{self.job.id}?wait=60")
        self.assertFalse(cut.answered)
        self.revoke()
        self.assert_cut(cut)
        self.assertFalse(cut.answered)

    def test_answered(self) -> None:
        """A connection whose requests are answered stays."""
        connection = self.ask(self.ci, "GET", "/v1/jobs")
        self.assertEqual(connection.response().status, 200)
        self.revoke()
        self.assertTrue(connection.socket.connected)

    def test_expired(self) -> None:
        """A stream is cut when its token expires, at the next look."""
        cut = self.ask(self.ci, "GET", f"/v1/jobs/{self.job.id}/output?follow=1")
        self.tokens.look()
        self.assertTrue(cut.socket.connected)
        self.server.now += 60
        self.tokens.look()
        self.assert_cut(cut)
