"""The handlers of ``/v1/workers`` and the routes below it."""

from __future__ import annotations

from scheduler import wire
from scheduler.api.answers import Answer, json_answer
from scheduler.api.call import Call
from scheduler.api.context import Reply
from scheduler.api.lists import WORKERS_AT_ONCE, all_workers


async def every(call: Call) -> Reply:
    """Answer with all workers, by name."""
    views = call.scheduler.workers()
    if len(views) <= WORKERS_AT_ONCE:
        return json_answer({"workers": [wire.worker_json(view) for view in views]})
    return await call.context.document(all_workers(call.scheduler, views))


async def one(call: Call, worker: str) -> Reply:
    """Answer with a worker, by id or name."""
    return json_answer(wire.worker_json(call.scheduler.worker(worker)))


async def drain(call: Call, worker: str) -> Reply:
    """Place no more jobs on the worker."""
    return json_answer(wire.worker_json(await call.scheduler.drain(worker)))


async def resume(call: Call, worker: str) -> Reply:
    """Undo ``drain``."""
    return json_answer(wire.worker_json(await call.scheduler.resume(worker)))


async def forget(call: Call, worker: str) -> Reply:
    """Drop a worker that is not online."""
    await call.scheduler.forget(worker)
    return Answer(status=204)
