"""``POST /v1/jobs``: submit a job, and answer with it, with its end, or with its output as it comes."""

from __future__ import annotations

from attrs import evolve
from twisted.python.failure import Failure
from twisted.web.server import Request

from scheduler import wire
from scheduler.api.answers import json_answer, problem_answer
from scheduler.api.context import Context, Reply
from scheduler.api.errors import problem_of
from scheduler.api.following import FromTheStart
from scheduler.api.output import OutputRoutes
from scheduler.api.request import body_of, query_of, wants_events
from scheduler.errors import Invalid, SchedulerError, Unsupported
from scheduler.model import JobState, Stream


class SubmissionRoutes:
    """Its handler."""

    def __init__(self, context: Context, outputs: OutputRoutes) -> None:
        self._context = context
        self._scheduler = context.scheduler
        self._outputs = outputs

    async def submit(self, request: Request) -> Reply:
        query = query_of(request, ("wait", "follow"))
        wait, follow, as_events = query.wait(), query.flag("follow"), wants_events(request)
        if wait is not None and (follow or as_events):
            raise Invalid("wait", "does not go with a stream, which ends when the job does")
        body = body_of(request)
        spec, target, terms = wire.read_submit(body)
        key, again = self._context.key_of(request, "POST /v1/jobs", body)
        if (follow or as_events) and target.worker is not None and not again:
            worker = self._scheduler.worker(target.worker).worker
            if worker.classic:
                raise Unsupported(worker.name, "output")
        streams = tuple(Stream) if as_events else (Stream.STDOUT,) if follow else ()
        with FromTheStart(self._scheduler, streams) as output:
            job = await self._scheduler.submit(spec, target, terms, key, output.starting if streams else None)
        headers = {"Location": f"/v1/jobs/{job.id}", "X-Job-Id": job.id}
        named = {"job_id": job.id, "started": True}  # in a problem that its output has: it runs all the same
        try:
            if as_events:
                return self._outputs.events(job, output.readers(job), headers, started=True)
            if follow:
                (reader,) = output.readers(job).values()
                return self._outputs.follow(
                    job, reader, headers, 201, at_once=job.state is JobState.QUEUED, members=named
                )
            if wait is not None:
                job = await self._context.ended(
                    self._scheduler.wait_for_attempts, self._scheduler.last_attempt, job.id, wait
                )
        except SchedulerError:
            problem = problem_of(Failure())
            members = {**problem.members, **named}
            return problem_answer(evolve(problem, headers={**problem.headers, **headers}, members=members))
        return json_answer(self._context.job_json(job), 201, headers)
