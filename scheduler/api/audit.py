"""The handler of ``/v1/audit``."""

from __future__ import annotations

from typing import Any

from scheduler.api.answers import JSON, Answer
from scheduler.api.call import Call
from scheduler.api.context import Reply
from scheduler.api.parameters import PAGE_MAX_JOBS
from scheduler.errors import Refused
from scheduler.security.audit import AuditFilter, AuditPage, Entry, compact

#: The parameters of the list of entries.
QUERY = ("who", "action", "since", "until", "limit", "cursor")


async def page(call: Call) -> Reply:
    """List the entries that match, newest first, one page. A principal that reaches only some workers has no audit."""
    if call.principal is not None and call.principal.reach:
        raise Refused(f"the audit is about all workers, and {call.principal} reaches only some")
    query, audit, now = call.query, call.context.audit, call.context.wall_time()
    which = AuditFilter(query.text("who"), query.text("action"), query.moment("since", now), query.moment("until", now))
    limit = query.number("limit", 1, PAGE_MAX_JOBS) or 100
    before = query.number("cursor", 1, 10**18 - 1)
    found = AuditPage() if audit is None else await audit.page(which, limit, before)
    cursor = None if found.before is None else str(found.before)
    document = compact({"entries": [entry_json(entry) for entry in found.entries], "next": cursor})
    return Answer(document.encode("ascii") + b"\n", content_type=JSON)


def entry_json(entry: Entry) -> dict[str, Any]:
    """The JSON of an entry: its row, and its hash."""
    return {**entry.row(), "hash": entry.hash}
