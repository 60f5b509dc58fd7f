"""``POST /v1/jobs``: submit a job, and answer with it, with its end, or with its output as it comes."""

from __future__ import annotations

from contextlib import suppress

from twisted.python.failure import Failure
from twisted.web.server import Request

from scheduler import wire
from scheduler.api.answers import JSON, problem_answer
from scheduler.api.context import Context, Reply
from scheduler.api.errors import Problem, problem_of
from scheduler.api.following import FromTheStart
from scheduler.api.outcomes import WANTED, Outcomes, Wanted
from scheduler.api.output import OutputRoutes, Shown
from scheduler.api.request import PLAIN, body_of, check_chunks, query_of, wants_events
from scheduler.errors import Invalid, NotFound, SchedulerError, Unsupported
from scheduler.model import Job, Stream


class SubmissionRoutes:
    """Its handler."""

    def __init__(self, context: Context, outputs: OutputRoutes, outcomes: Outcomes) -> None:
        self._context = context
        self._scheduler = context.scheduler
        self._outputs = outputs
        self._outcomes = outcomes

    async def submit(self, request: Request) -> Reply:
        query = query_of(request, (*WANTED, "follow", "stall"))
        wanted, follow = Wanted.read(query), query.flag("follow")
        as_events = wants_events(request, PLAIN if follow else JSON)
        stall = query.stall()
        if wanted.wait is not None and (follow or as_events):
            raise Invalid("wait", "does not go with a stream, which ends when the job does")
        follow = follow and not as_events
        if wanted.output is not None and follow:
            raise Invalid("output", "does not go with follow, which is all of the output")
        if stall is not None and not follow:
            raise Invalid("stall", "goes with follow=1 alone")
        if follow:
            check_chunks(request)
        body = body_of(request)
        spec, target, terms = wire.read_submit(body)
        key, again = self._context.key_of(request, "POST /v1/jobs", body)
        if (follow or as_events) and target.worker is not None and not again:
            worker = self._scheduler.worker(target.worker).worker
            if not worker.has_output:
                raise Unsupported(worker.name, "output")
        streams = tuple(Stream) if as_events else (Stream.STDOUT,) if follow else ()
        with FromTheStart(self._scheduler, streams) as output:
            job = await self._scheduler.submit(spec, target, terms, key, output.starting if streams else None)
        headers = {"Location": f"/v1/jobs/{job.id}", "X-Job-Id": job.id}
        if not streams:
            return await self._outcomes.of_submission(await self._awaited(job, wanted), wanted, headers)

        job = self._as_it_is(job)

        def unfollowable(failure: Failure) -> Problem:
            return self._outcomes.unfollowable(job, problem_of(failure).detail, headers)

        try:
            readers = output.readers(job)
        except SchedulerError:
            return problem_answer(unfollowable(Failure()))
        how = Shown(headers, 201, unfollowable)
        if as_events:
            return self._outputs.events(job, readers, how, wanted.output)
        return self._outputs.follow(job, readers[Stream.STDOUT], how, stall)

    async def _awaited(self, job: Job, wanted: Wanted) -> Job:
        """The job as it is to be answered: at the end of its last attempt, or as it is by then."""
        if wanted.wait is None:
            return job if wanted.output is None else self._as_it_is(job)
        with suppress(NotFound):  # it ended, and is kept no longer
            scheduler = self._scheduler
            return await self._context.ended(scheduler.wait_for_attempts, scheduler.last_attempt, job.id, wanted.wait)
        return job

    def _as_it_is(self, job: Job) -> Job:
        """The job now; the answer to a key is of the first time."""
        with suppress(NotFound):
            return self._scheduler.job(job.id)
        return job
