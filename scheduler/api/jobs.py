"""The handlers of jobs that there are: listing, looking at one, waiting for its end, stopping."""

from __future__ import annotations

from twisted.web.server import Request

from scheduler import wire
from scheduler.api.answers import JSON, Answer, json_answer
from scheduler.api.context import Context, Reply
from scheduler.api.lists import all_jobs, page_of_jobs
from scheduler.api.outcomes import WANTED, Outcomes, Wanted
from scheduler.api.query import FILTERS, PAGE_MAX_JOBS, Query, pairs_of
from scheduler.api.request import body_of, checked_id, pairs_in, query_of
from scheduler.errors import Invalid


class JobRoutes:
    """``GET /v1/jobs`` and what is below it, but for the output."""

    def __init__(self, context: Context, outcomes: Outcomes) -> None:
        self._context = context
        self._outcomes = outcomes
        self._scheduler = context.scheduler

    async def jobs(self, request: Request) -> Reply:
        query = query_of(request, (*FILTERS, "limit", "cursor", "output"))
        output = query.output()
        limit = query.number("limit", 1, PAGE_MAX_JOBS) or 100
        page = self._scheduler.jobs(query.filter(self._context.wall_time()), limit, query.text("cursor"))
        if output is not None:
            return Answer(await self._outcomes.excerpts.page(page, output), content_type=JSON)
        return await self._context.document(
            page_of_jobs(self._scheduler, page, self._context.filled, self._context.job_json)
        )

    async def job(self, request: Request, job_id: str) -> Reply:
        wanted = Wanted.read(query_of(request, WANTED))
        job = self._scheduler.job(checked_id(job_id))
        if wanted.wait is not None and not job.state.final and request.method != b"HEAD":
            job = await self._context.ended(self._scheduler.wait, self._scheduler.job, job_id, wanted.wait)
        return await self._outcomes.of_job(job, wanted)

    async def stop_job(self, request: Request, job_id: str) -> Reply:
        query_of(request)
        wire.read_nothing(body_of(request))
        job = await self._context.stopped(self._scheduler.stop(checked_id(job_id)), job_id)
        return json_answer(
            await self._context.described(job), 200 if self._scheduler.last_attempt(job_id).over else 202
        )

    async def signal(self, request: Request, job_id: str) -> Reply:
        query_of(request)
        name, to = wire.read_signal(body_of(request))
        await self._scheduler.signal(checked_id(job_id), name, to)
        return json_answer(await self._context.described(self._scheduler.job(job_id)))

    async def remove(self, request: Request, job_id: str) -> Reply:
        query_of(request)
        if await self._scheduler.remove(checked_id(job_id)):
            return Answer(status=204)
        return json_answer(await self._context.described(self._scheduler.job(job_id)), 202)

    async def stop_matching(self, request: Request) -> Reply:
        pairs = pairs_in(request) + pairs_of(body_of(request))
        which = Query(pairs, FILTERS).filter(self._context.wall_time())
        if not pairs:
            raise Invalid("filter", f"at least one is needed to stop jobs: {', '.join(FILTERS)}")
        stopped = await self._context.unless_shut_down(self._scheduler.stop_matching(which))
        return await self._context.document(all_jobs(stopped, self._context.filled, self._context.job_json))
