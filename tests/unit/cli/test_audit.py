"""``schedctl audit`` and ``schedctl audit verify``."""

from __future__ import annotations

import json

from scheduler.security.audit import GENESIS, Act, Anchor, chained
from tests.unit.cli.client import JOB, Case

ACTS = (
    Act(1000.0, "token:ci", "start", JOB["id"], "box", "ok", "10.0.0.9", None, "r-1", {"command": "make"}),
    Act(2000.0, "local:root", "drain", "box", "box", "unchanged", "127.0.0.1", 0, "r-2"),
    Act(3000.0, "", "refused", "GET /v1/jobs\x1b[2K", "", "unauthenticated", "10.0.0.8"),
)
CHAIN = chained(Anchor(), ACTS)


class AuditCase(Case):
    def setUp(self) -> None:
        super().setUp()
        self.client.entries = [{**entry.row(), "hash": entry.hash} for entry in reversed(CHAIN)]


class VerifyTests(AuditCase):
    def verify(self, *arguments: str) -> tuple[int, str]:
        code, out, err = self.run_cli("audit", "verify", *arguments)
        self.assertEqual(err, "")
        return code, out

    def test_changed(self) -> None:
        """A changed row makes the command fail, which names the row."""
        self.client.entries[1] = {**self.client.entries[1], "who": "local:eve"}
        code, out = self.verify()
        self.assertEqual((code, out.splitlines()[0]), (1, "The audit was changed: row 2 does not follow from row 1."))

    def test_missing(self) -> None:
        del self.client.entries[1]
        code, out = self.verify()
        self.assertEqual((code, out.splitlines()[0]), (1, "The audit was changed: row 2 missing."))

    def test_no_entry(self) -> None:
        """An answer that is no audit causes a sentence, not a traceback."""
        self.client.entries = [{"seq": 1}]
        code, out, err = self.run_cli("audit", "verify")
        self.assertEqual((code, out), (125, ""))
        self.assertIn("no entry of an audit", err)

    def test_anchor(self) -> None:
        """An anchor that is not in the audit makes the command fail, and one that is there does not."""
        self.assertEqual(self.verify("--anchor", str(CHAIN[1].anchor))[0], 0)
        for anchor, why in (
            (f"2:{GENESIS}", "that row has another hash"),
            (f"4:{CHAIN[2].hash}", "its last row is 3"),
        ):
            code, out = self.verify("--anchor", anchor)
            self.assertEqual(code, 1)
            self.assertIn(f"The anchor {anchor} is not in the audit: {why}.", out)

    def test_no_anchor(self) -> None:
        """Anything else as an anchor is refused before the scheduler is asked."""
        self.assertIn("must be SEQ:HASH", self.refused("audit", "verify", "--anchor", "17"))
        self.assertEqual(self.client.filters, [])

    def test_whole(self) -> None:
        code, out = self.verify()
        self.assertEqual(code, 0)
        self.assertEqual(
            out.splitlines(), ["3 rows, and each follows from the one before.", f"Head: {CHAIN[2].anchor}"]
        )
        self.client.entries = []
        self.assertEqual(self.verify()[0], 0)


class ListTests(AuditCase):
    def test_table(self) -> None:
        """Rows are listed newest first; no text controls the terminal."""
        titles, refused, drained, started = self.out("audit").splitlines()
        self.assertEqual(titles.split(), ["ROW", "TIME", "WHO", "FROM", "ACTION", "TARGET", "WORKER", "RESULT"])
        self.assertRegex(refused, r"^ *3 .* - +10\.0\.0\.8 +refused +GET /v1/jobs\ufffd\[2K +unauthenticated$")
        self.assertRegex(drained, r"^ *2 .* local:root +127\.0\.0\.1 +drain +box +box +unchanged$")
        self.assertRegex(started, rf"^ *1 .* token:ci +10\.0\.0\.9 +start +{JOB['id'][:8]} +box +ok$")

    def test_filters(self) -> None:
        """Filters are sent as they are given."""
        self.out("audit", "--who", "token:ci", "--action", "stop", "--since", "24h", "--until", "1h", "-n", "1")
        given = {"who": "token:ci", "action": "stop", "since": "24h", "until": "1h"}
        self.assertEqual(self.client.filters, [given])

    def test_programs(self) -> None:
        """``--json`` and ``--format`` have all fields of the API."""
        (first,) = self.out("audit", "--json", "-n", "1").splitlines()
        self.assertEqual(json.loads(first), self.client.entries[0])
        self.assertEqual(self.out("audit", "--format", "{seq} {details.command}").splitlines(), ["3 ", "2 ", "1 make"])
        self.assertIn("no field {args}", self.refused("audit", "--format", "{args}"))
