"""The handler of ``POST /v1/jobs``: submit a job, and answer with the job, with its end, or with its live output."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from twisted.python.failure import Failure

from scheduler.api import outcomes
from scheduler.api.answers import JSON, problem_answer
from scheduler.api.call import PLAIN, Call
from scheduler.api.context import Context, Reply
from scheduler.api.errors import Problem, problem_of
from scheduler.api.following import open_all, open_early
from scheduler.api.outcomes import WANTED, Wanted
from scheduler.api.raw import FollowStream
from scheduler.api.sse import EventStream
from scheduler.api.streams import Opening
from scheduler.errors import Invalid, NotFound, SchedulerError, Unsupported
from scheduler.model import Job, Stream, Submission

#: The parameters of a submission.
QUERY = (*WANTED, "follow", "stall")


async def submit(call: Call) -> Reply:
    """Handle ``POST /v1/jobs``."""
    query, context, scheduler = call.query, call.context, call.scheduler
    wanted, follow = Wanted.read(query), query.flag("follow")
    as_events = call.wants_events(PLAIN if follow else JSON)
    stall = query.stall()
    if wanted.wait is not None and (follow or as_events):
        raise Invalid("wait", "does not go with a stream, which ends when the job does")
    follow = follow and not as_events
    if wanted.output is not None and follow:
        raise Invalid("output", "does not go with follow, which is all of the output")
    if stall is not None and not follow:
        raise Invalid("stall", "goes with follow=1 alone")
    if follow:
        call.check_chunks()
    if follow or as_events:
        call.follows()
    spec, target, terms = call.body
    key, again = call.key()
    if (follow or as_events) and target.worker is not None and not again:
        worker = scheduler.worker(target.worker).worker
        if not worker.has_output:
            raise Unsupported(worker.name, "output")
    offsets = dict.fromkeys(Stream if as_events else (Stream.STDOUT,) if follow else (), 0)
    job, readers = await open_early(scheduler, await scheduler.submit(Submission(spec, target, terms, key)), offsets)
    headers = {"Location": f"/v1/jobs/{job.id}", "X-Job-Id": job.id}
    if not offsets:
        return await outcomes.of_submission(context, await _awaited(context, job, wanted), wanted, headers)

    def unfollowable(failure: Failure) -> Problem:
        return outcomes.unfollowable(context, job, problem_of(failure).detail, headers)

    try:
        readers = readers or open_all(scheduler, job, offsets)
    except SchedulerError:
        return problem_answer(unfollowable(Failure()))
    opening = Opening(headers, 201, unfollowable)
    if as_events:
        return EventStream(context, job, readers, opening, wanted.output)
    return FollowStream(context, job, readers[Stream.STDOUT], opening, stall)


async def _awaited(context: Context, job: Job, wanted: Wanted) -> Job:
    """The job to answer with: its last attempt once that has ended, or as it is after ``wanted.wait`` seconds."""
    scheduler = context.scheduler
    if wanted.wait is None:
        return job
    with suppress(NotFound):  # the job ended, and is no longer kept
        waiting = scheduler.wait_for_attempts(job.id, wanted.wait)
        return await context.unless_shut_down(waiting, partial(scheduler.last_attempt, job.id))
    return job
