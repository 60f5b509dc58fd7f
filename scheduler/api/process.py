"""The handlers that describe the scheduler's own process: its health, its version, and the types of its problems."""

from __future__ import annotations

from typing import Any

from scheduler import __version__
from scheduler.api.answers import json_answer, problem_answer
from scheduler.api.call import Call
from scheduler.api.context import Reply
from scheduler.api.errors import Problem, no_such_route
from scheduler.api.problems import TYPES, type_json


async def healthz(_: Call) -> Reply:
    """Answer 200 while the process lives."""
    return json_answer({"alive": True})


async def readyz(call: Call) -> Reply:
    """Answer 200 while the scheduler can take work, else 503; a principal is also told the reasons, and of workers."""
    if call.principal is None:
        if call.context.scheduler.readiness().ready:
            return json_answer({"ready": True})
        detail = "the scheduler can't take work now; with a token, the answer has the reasons"
        return problem_answer(Problem(503, detail, {"Retry-After": "5"}, {"ready": False}, type="not-ready"))
    readiness = call.scheduler.readiness()
    members: dict[str, Any] = {"ready": readiness.ready, "workers_online": readiness.workers_online}
    if readiness.notes:
        members["notes"] = list(readiness.notes)
    if readiness.ready:
        return json_answer(members)
    members["reasons"] = list(readiness.reasons)
    detail = "; ".join(readiness.reasons)
    return problem_answer(Problem(503, detail, {"Retry-After": "5"}, members, type="not-ready"))


async def version(_: Call) -> Reply:
    """Answer with the version of the program and of its API."""
    return json_answer({"version": __version__, "api": "v1"})


async def problem(_: Call, name: str) -> Reply:
    """Answer with the meaning of a type of problem."""
    return json_answer(type_json(name)) if name in TYPES else problem_answer(no_such_route())
