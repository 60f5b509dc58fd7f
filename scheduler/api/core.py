"""The handlers of the core routes: ``/start``, ``/stop`` and ``/query``, one job on one named worker."""

from __future__ import annotations

from scheduler import wire
from scheduler.api.answers import json_answer
from scheduler.api.call import Call, checked_id
from scheduler.api.context import Reply
from scheduler.model import Submission


async def start(call: Call) -> Reply:
    """Start a job on the named worker."""
    spec, target = call.body
    key, _ = call.key()
    accepted = await call.scheduler.submit(Submission(spec, target, key=key))
    job = await accepted.answered
    return json_answer({"job_id": job.id}, 201, {"Location": f"/v1/jobs/{job.id}"})


async def stop(call: Call) -> Reply:
    """Stop a job and wait for its end; 202 if the stop is only recorded."""
    worker, job_id = call.body
    await call.context.stopped(call.scheduler.stop(checked_id(job_id), worker), job_id)
    last = call.scheduler.last_attempt(job_id)
    return json_answer(wire.stop_json(last), 200 if last.over else 202)


async def query(call: Call) -> Reply:
    """Ask the worker whether the job is done."""
    worker, job_id = call.body
    return json_answer(wire.query_json(await call.scheduler.query(worker, checked_id(job_id))))
