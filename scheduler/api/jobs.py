"""The handlers of ``/v1/jobs`` and the routes below it, except submissions and output.

A new route is a handler here, or in a module beside, and a row of ``scheduler.api.routes``.
"""

from __future__ import annotations

from functools import partial

from scheduler.api import outcomes
from scheduler.api.answers import JSON, Answer, json_answer
from scheduler.api.call import Call, checked_id
from scheduler.api.context import Reply
from scheduler.api.lists import all_jobs, page_of_jobs
from scheduler.api.outcomes import Wanted
from scheduler.api.parameters import FILTERS, PAGE_MAX_JOBS, Query
from scheduler.errors import Invalid

#: The parameters of a list of jobs.
PAGE_QUERY = (*FILTERS, "limit", "cursor", "output")


async def page(call: Call) -> Reply:
    """List the jobs that match, newest first, one page."""
    context, query = call.context, call.query
    output = query.output()
    limit = query.number("limit", 1, PAGE_MAX_JOBS) or 100
    found = call.scheduler.jobs(query.filter(context.wall_time()), limit, query.text("cursor"))
    if output is not None:
        call.note_reads(found.jobs)
        return Answer(await context.excerpts.page(found, output), content_type=JSON)
    return await context.document(page_of_jobs(call.scheduler, found, context.shown))


async def one(call: Call, job_id: str) -> Reply:
    """Answer with a job, as it is now or at its end."""
    wanted = Wanted.read(call.query)
    job = call.scheduler.job(checked_id(job_id))
    if wanted.wait is not None and not job.state.final and not call.head:
        waiting = call.scheduler.wait(job_id, wanted.wait)
        job = await call.context.unless_shut_down(waiting, partial(call.scheduler.job, job_id))
    if wanted.output is not None:
        call.note_reads([job])
    return await outcomes.of_job(call.context, job, wanted)


async def stop(call: Call, job_id: str) -> Reply:
    """Stop a job and wait for its end; 202 if the stop is only recorded."""
    job = await call.context.stopped(call.scheduler.stop(checked_id(job_id)), job_id)
    status = 200 if call.scheduler.last_attempt(job_id).over else 202
    return json_answer(await call.context.described(job), status)


async def signal(call: Call, job_id: str) -> Reply:
    """Send a signal to a running job."""
    name, to = call.body
    await call.scheduler.signal(checked_id(job_id), name, to)
    return json_answer(await call.context.described(call.scheduler.job(job_id)))


async def remove(call: Call, job_id: str) -> Reply:
    """Remove an ended job and its output; 202 if its worker can't be told yet."""
    if await call.scheduler.remove(checked_id(job_id)):
        return Answer(status=204)
    return json_answer(await call.context.described(call.scheduler.job(job_id)), 202)


async def stop_matching(call: Call) -> Reply:
    """Stop all jobs that match the filters of the query and of the body."""
    context = call.context
    pairs = [*call.query.pairs, *call.body]
    which = Query(pairs, FILTERS).filter(context.wall_time())
    if not pairs:
        raise Invalid("filter", f"at least one is needed to stop jobs: {', '.join(FILTERS)}")
    stopped = await context.unless_shut_down(call.scheduler.stop_matching(which))
    return await context.document(all_jobs(stopped, context.shown))
