"""The handlers of workers."""

from __future__ import annotations

from twisted.web.server import Request

from scheduler import wire
from scheduler.api.answers import Answer, json_answer
from scheduler.api.context import Context, Reply
from scheduler.api.lists import WORKERS_AT_ONCE, all_workers
from scheduler.api.request import body_of, query_of


class WorkerRoutes:
    """``/v1/workers`` and what is below it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._scheduler = context.scheduler

    async def workers(self, request: Request) -> Reply:
        query_of(request)
        views = self._scheduler.workers()
        if len(views) <= WORKERS_AT_ONCE:
            return json_answer({"workers": [wire.worker_json(view) for view in views]})
        return await self._context.document(all_workers(self._scheduler, views))

    async def worker(self, request: Request, worker: str) -> Reply:
        query_of(request)
        return json_answer(wire.worker_json(self._scheduler.worker(worker)))

    async def drain(self, request: Request, worker: str) -> Reply:
        query_of(request)
        wire.read_nothing(body_of(request))
        return json_answer(wire.worker_json(await self._scheduler.drain(worker)))

    async def resume(self, request: Request, worker: str) -> Reply:
        query_of(request)
        wire.read_nothing(body_of(request))
        return json_answer(wire.worker_json(await self._scheduler.resume(worker)))

    async def forget(self, request: Request, worker: str) -> Reply:
        query_of(request)
        await self._scheduler.forget(worker)
        return Answer(status=204)
