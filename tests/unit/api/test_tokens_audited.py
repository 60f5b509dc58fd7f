"""Tokens that are made and revoked, in the audit."""

from __future__ import annotations

import json
from pathlib import Path

from scheduler.model import Ref
from scheduler.security.audit import Act
from scheduler.security.first_token import FirstToken
from scheduler.security.principals import Scope
from tests.unit.api.test_tokens import TokenCase


class AuditedTests(TokenCase):
    def setUp(self) -> None:
        super().setUp()
        self.begin()

    def acts(self) -> list[tuple[str, ...]]:
        """The principal, action, token and result of each entry."""
        return [(act.who, act.action, act.target, act.result) for act in self.entries()]

    def entries(self) -> list[Act]:
        return [entry.act for entry in self.house.store.audit.values()]

    def test_made_and_revoked(self) -> None:
        """Each is a row, with the facts about the token and without its text, under the name of who did it."""
        text = self.make(name="ci", scope="run", workers={"gpu": "1"}, expires="90d").json()["token"]
        token_id = self.id_of("ci")
        self.assertEqual(self.call("DELETE", f"/v1/tokens/{token_id}").status, 204)
        self.assertEqual(
            self.acts(), [("token:boss", "token.create", "ci", "ok"), ("token:boss", "token.revoke", "ci", "ok")]
        )
        made, revoked = self.entries()
        details = json.loads(made.details)
        self.assertEqual((details["scope"], details["workers"]), ("run", {"gpu": "1"}))
        self.assertIn("expires_at", details)
        self.assertEqual(json.loads(revoked.details), {"id": token_id})
        self.assertEqual((made.origin, bool(made.request_id)), ("127.0.0.1", True))
        self.assertNotIn(text, repr(self.entries()))
        self.assertNotIn(text.split("_")[2], repr(self.entries()))

    def test_in_one_transaction(self) -> None:
        """The row is saved with the token, and with its removal."""
        store = self.house.store
        store.held = True
        for method, path, body in (("POST", "/v1/tokens", b'{"name":"ci","scope":"run"}'), ("DELETE", "", b"")):
            asked = self.ask(self.admin, method, path or f"/v1/tokens/{self.id_of('ci')}", body)
            (saved,) = (records for records, _ in store.saves if any(isinstance(each, Act) for each in records))
            tokens = [each for each in saved if isinstance(each, Ref) or getattr(each, "name", "") == "ci"]
            self.assertEqual(len(tokens), 1, saved)
            while store.saves:
                store.commit()
            self.assertLess(asked.response().status, 300)

    def test_refused(self) -> None:
        """A token that is not made or not there is recorded with the error; so is a scope that is too small."""
        self.make(name="ci", scope="run")
        self.assertEqual(self.make(name="ci", scope="run").status, 409)
        self.assertEqual(self.call("DELETE", "/v1/tokens/nope").status, 404)
        runner = self.token("runner", Scope.RUN)
        self.assertEqual(self.make(runner, name="more", scope="admin").status, 403)
        self.assertEqual(
            self.acts()[1:],
            [
                ("token:boss", "token.create", "ci", "name-taken"),
                ("token:boss", "token.revoke", "nope", "not-found"),
                ("token:runner", "refused", "POST /v1/tokens", "scope-needed"),
            ],
        )

    def test_store_fails(self) -> None:
        """A token that can't be saved is not made; a revocation that can't be saved holds, and its row follows."""
        self.make(name="ci", scope="run")
        self.house.store.problem = "disk full"
        self.assertEqual(self.make(name="more", scope="run").status, 503)
        self.assertEqual(self.call("DELETE", f"/v1/tokens/{self.id_of('ci')}").status, 503)
        self.house.store.problem = ""
        self.clock.advance(10.0)
        self.assertEqual(
            sorted(self.acts()[1:]),
            [
                ("token:boss", "token.create", "more", "store-failed"),
                ("token:boss", "token.revoke", "ci", "ok"),
                ("token:boss", "token.revoke", "ci", "store-failed"),
            ],
        )

    def test_first(self) -> None:
        """The token that the scheduler makes for itself at its start is recorded, too."""
        self.call("DELETE", f"/v1/tokens/{self.id_of('boss')}")
        parts = self.house.parts
        folder = Path(self.mktemp())
        folder.mkdir(mode=0o700)
        self.assertIsNone(self.successResultOf(FirstToken(parts.tokens, folder, parts.audit).make()))
        self.assertEqual(self.acts()[-1], ("scheduler", "token.create", "admin", "ok"))
