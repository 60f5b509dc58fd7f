"""Scenarios of the audit."""

from __future__ import annotations

import json

from scheduler.security.audit import entry_of, verify
from tests.unit.api.scenarios.base import Scenarios, scenario


class AuditScenarios(Scenarios):
    """``GET /v1/audit``."""

    @scenario
    async def test_refused_audit(self) -> None:
        """A filter that makes no sense is refused, and so is a page of a store that fails."""
        for query in ("since=yesterday", "until=1", "limit=0", "limit=1001", "cursor=x", "cursor=0", "who=", "action="):
            await self.assert_problem(self.call("GET", f"/v1/audit?{query}"), 400, query.partition("=")[0])
        self.house.store.problem = "disk full"
        await self.assert_problem(self.call("GET", "/v1/audit"), 503, "disk full")

    @scenario
    async def test_audit(self) -> None:
        """Acts are listed newest first, with their sender and result, as a chain that can be checked."""
        job = (
            await self.post("/v1/jobs", {"worker": "w1", "command": "make", "args": ["ä\n"], "env": {"S": "s3cret"}})
        ).json()
        for path in ("drain", "resume"):
            await self.call("POST", f"/v1/workers/w1/{path}", x_request_id=path)
        await self.call("POST", "/v1/jobs/nope/stop")
        reply = await self.call("GET", "/v1/audit")
        self.assertEqual(reply.headers["content-type"], "application/json")
        entries = reply.json()["entries"]
        self.assertEqual([each["seq"] for each in entries], [4, 3, 2, 1])
        self.assertEqual([each["action"] for each in entries], ["stop", "resume", "drain", "start"])
        self.assertEqual([each["result"] for each in entries], ["not-found", "ok", "ok", "ok"])
        self.assertEqual([each["request_id"] for each in entries[1:3]], ["resume", "drain"])
        self.assertEqual(
            {(each["who"], each["from"], each["uid"]) for each in entries}, {("local:tester", "127.0.0.1", None)}
        )
        started = entries[3]
        self.assertEqual((started["target"], started["worker"]), (job["id"], "w1"))
        self.assertEqual(started["details"], {"command": "make", "args": ["ä\n"]})
        self.assertEqual(json.dumps(entries).find("s3cret"), -1)
        self.assertEqual(verify(map(entry_of, entries)).why, "")

    @scenario
    async def test_pages_of_audit(self) -> None:
        """Filters and pages."""
        for _ in range(3):
            await self.call("POST", "/v1/workers/w1/drain")
            await self.call("POST", "/v1/workers/w1/resume")

        async def numbers(query: str) -> tuple[list[int], str | None]:
            page = (await self.call("GET", f"/v1/audit?{query}")).json()
            return [each["seq"] for each in page["entries"]], page["next"]

        self.assertEqual(await numbers("limit=4"), ([6, 5, 4, 3], "3"))
        self.assertEqual(await numbers("limit=4&cursor=3"), ([2, 1], None))
        self.assertEqual(await numbers("action=resume"), ([6, 4, 2], None))
        self.assertEqual(await numbers("who=token:ci"), ([], None))
        self.assertEqual(await numbers("since=2001-01-01T00:00:00Z&limit=1"), ([6], "6"))
        self.assertEqual(await numbers("until=2001-01-01T00:00:00Z"), ([], None))
