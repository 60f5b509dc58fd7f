"""The handlers that tell of the scheduler's own process."""

from __future__ import annotations

from twisted.web.server import Request

from scheduler import __version__
from scheduler.api.answers import json_answer, problem_answer
from scheduler.api.context import Context, Reply
from scheduler.api.errors import Problem, no_such_route
from scheduler.api.problems import TYPES, type_json
from scheduler.api.request import query_of


class ProcessRoutes:
    """``/healthz``, ``/readyz``, ``/v1/version``, and what its problem documents mean."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._scheduler = context.scheduler

    async def healthz(self, request: Request) -> Reply:
        query_of(request)
        return json_answer({"alive": True})

    async def readyz(self, request: Request) -> Reply:
        query_of(request)
        readiness = self._scheduler.readiness()
        if readiness.ready:
            return json_answer({"ready": True, "workers_online": readiness.workers_online})
        members = {"ready": False, "workers_online": readiness.workers_online, "reasons": list(readiness.reasons)}
        detail = "; ".join(readiness.reasons)
        return problem_answer(Problem(503, detail, {"Retry-After": "5"}, members, type="not-ready"))

    async def version(self, request: Request) -> Reply:
        query_of(request)
        return json_answer({"version": __version__, "api": "v1"})

    async def problem(self, request: Request, name: str) -> Reply:
        query_of(request)
        if name not in TYPES:
            return problem_answer(no_such_route())
        return json_answer(type_json(name))
