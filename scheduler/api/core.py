"""The core routes: ``/start``, ``/stop`` and ``/query``, one job on one named worker."""

from __future__ import annotations

from twisted.web.server import Request

from scheduler import wire
from scheduler.api.answers import json_answer
from scheduler.api.context import Context, Reply
from scheduler.api.request import body_of, checked_id, query_of


class CoreRoutes:
    """Their handlers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._scheduler = context.scheduler

    async def start(self, request: Request) -> Reply:
        query_of(request)
        body = body_of(request)
        spec, target = wire.read_start(body)
        key, _ = self._context.key_of(request, "POST /start", body)
        job = await self._scheduler.submit(spec, target, key=key)
        return json_answer({"job_id": job.id}, 201, {"Location": f"/v1/jobs/{job.id}"})

    async def stop(self, request: Request) -> Reply:
        query_of(request)
        worker, job_id = wire.read_worker_and_job(body_of(request))
        await self._context.stopped(self._scheduler.stop(checked_id(job_id), worker), job_id)
        last = self._scheduler.last_attempt(job_id)
        return json_answer(wire.stop_json(last), 200 if last.over else 202)

    async def query(self, request: Request) -> Reply:
        query_of(request)
        worker, job_id = wire.read_worker_and_job(body_of(request))
        return json_answer(wire.query_json(await self._scheduler.query(worker, checked_id(job_id))))
