"""The handlers that tell of the scheduler's own process."""

from __future__ import annotations

from twisted.web.server import Request

from scheduler.api.answers import json_answer, problem_answer
from scheduler.api.context import Context, Reply
from scheduler.api.errors import Problem
from scheduler.api.request import query_of


class ProcessRoutes:
    """``/healthz`` and ``/readyz``."""

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
        return problem_answer(Problem(503, "; ".join(readiness.reasons), {"Retry-After": "5"}, members))
