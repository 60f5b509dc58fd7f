"""``schedctl token``, and the next step of a user without a token."""

from __future__ import annotations

import json
from pathlib import Path

from scheduler.cli import access
from scheduler.cli import main as cli
from scheduler.client import ApiProblem
from tests.unit.cli.client import TOKEN, Case


class CreateTests(Case):
    def test_alone(self) -> None:
        """In a pipe, and with ``-q``, the token is printed alone."""
        self.assertEqual(self.out("token", "create", "ci", "--scope", "run"), "sched_the_token\n")
        self.assertEqual(self.out("token", "create", "ci", "--scope", "run", "-q", terminal=True), "sched_the_token\n")
        self.assertEqual(self.client.made[0], {"name": "ci", "scope": "run", "workers": {}, "expires": None})

    def test_on_a_terminal(self) -> None:
        """On a terminal a note on stderr says that the token is not shown again, and when it expires."""
        code, out, err = self.run_cli("token", "create", "ci", "--scope", "read", "--expires", "90d", terminal=True)
        self.assertEqual((code, out), (0, "sched_the_token\n"))
        self.assertRegex(err, r"not shown again.*expires at 20(98|99)-.*schedctl token revoke ci")

    def test_reach(self) -> None:
        """Labels and expiry are passed on as they were typed."""
        self.out("token", "create", "x", "--scope", "admin", "--workers", "a=1", "--workers", "b=2", "--expires", "1h")
        made = {"name": "x", "scope": "admin", "workers": {"a": "1", "b": "2"}, "expires": "1h"}
        self.assertEqual(self.client.made, [made])

    def test_mistakes(self) -> None:
        """A scope is needed, and labels have a value."""
        self.assertIn("--scope", self.refused("token", "create", "ci"))
        self.assertIn("root", self.refused("token", "create", "ci", "--scope", "root"))
        self.assertIn("key=value", self.refused("token", "create", "ci", "--scope", "run", "--workers", "gpu"))
        self.assertEqual(self.client.made, [])


class ListTests(Case):
    def test_table(self) -> None:
        """Columns: name, id, scope, expiry, last use, maker, reach."""
        self.client.all_tokens = [
            TOKEN,
            {**TOKEN, "name": "old", "expired": True, "expires_at": "2020-01-01T00:00:00Z", "workers": {}},
            {**TOKEN, "name": "z", "expires_at": "2099-01-01T00:00:00Z", "last_used_at": "2026-06-01T00:00:00Z"},
        ]
        titles, first, second, third = self.out("token", "ls").splitlines()
        self.assertEqual(titles.split(), ["NAME", "ID", "SCOPE", "EXPIRES", "USED", "CREATED", "BY", "WORKERS"])
        self.assertRegex(first, r"^ci +abcd2345ef +run +never +not yet +local:root +gpu=1$")
        self.assertRegex(second, r"^old .* expired .* all$")
        self.assertRegex(third, r"^z .* in \d+d .* ago ")

    def test_programs(self) -> None:
        """``--json`` and ``--format`` use the API's fields."""
        self.assertEqual(json.loads(self.out("token", "ls", "--json")), TOKEN)
        self.assertEqual(self.out("token", "ls", "--format", "{name} {workers.gpu}"), "ci 1\n")


class RevokeTests(Case):
    def test_revoked(self) -> None:
        """A token is revoked by its name or its id."""
        for name in ("ci", "abcd2345ef"):
            code, out, err = self.run_cli("token", "revoke", name)
            self.assertEqual((code, out, err), (0, "", "The token ci (abcd2345ef) is revoked.\n"))
        self.assertEqual(self.client.asked.count(("revoke_token", "abcd2345ef")), 2)

    def test_id_first(self) -> None:
        """An id means the token that has it, even if another has that name."""
        self.client.all_tokens = [{**TOKEN, "id": "other23456", "name": "abcd2345ef"}, TOKEN]
        self.run_cli("token", "revoke", "abcd2345ef")
        self.assertIn(("revoke_token", "abcd2345ef"), self.client.asked)

    def test_unknown(self) -> None:
        """If one of the names is unknown, no token is revoked."""
        err = self.refused("token", "revoke", "ci", "nobody")
        self.assertEqual(err, "schedctl: there is no token 'nobody'\n`schedctl token ls` lists the tokens.\n")
        self.assertNotIn(("revoke_token", "abcd2345ef"), self.client.asked)


class NoTokenTests(Case):
    """The next step of a user whose request is 401."""

    def setUp(self) -> None:
        super().setUp()
        self.home = Path(self.mktemp()).absolute()
        self.folder = self.home / "scheduler"
        self.folder.mkdir(parents=True)
        self.file = self.folder / "admin.token"
        cli.os.environ["XDG_STATE_HOME"] = str(self.home)
        problem = {"type": "/problems/unauthenticated", "detail": "the request has no token"}
        self.client.errors["workers", ""] = ApiProblem(401, problem)

    def test_here(self) -> None:
        """On the scheduler's machine it names the file with the token, and shows no token."""
        self.file.write_text("sched_secret\n")
        err = self.refused("workers")
        self.assertIn(f"export SCHEDULER_TOKEN=$(cat {self.file})\n", err)
        self.assertNotIn("sched_secret", err)

    def test_unreadable(self) -> None:
        """If the user may not read the file, it says who may."""
        self.file.symlink_to(self.file)  # can't be opened, by root either
        self.assertIn(f"root can read a token in {self.file}", self.refused("workers"))

    def test_elsewhere(self) -> None:
        """For a scheduler on another machine, and for a user with a token, it is the general one."""
        self.file.write_text("sched_secret\n")
        general = self.refused("--token", "sched_bad", "workers")
        self.assertNotIn("admin.token", general)
        self.assertIn("SCHEDULER_TOKEN", general)
        self.assertEqual(self.refused("--url", "http://other:3000", "workers"), general)

    def test_no_file(self) -> None:
        """Without such a file there is no such step."""
        self.assertEqual(access.next_step("http://other:3000", {}), "")
