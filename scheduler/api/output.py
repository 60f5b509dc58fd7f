"""The handlers of a job's output: a part of what is there, all of it as it comes, or both streams as events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from attrs import field, frozen
from twisted.python.failure import Failure
from twisted.web.server import Request

from scheduler.api.answers import Answer
from scheduler.api.context import Context, Reply
from scheduler.api.errors import Problem, problem_of
from scheduler.api.events import read_offsets, says_end
from scheduler.api.following import Readers, open_all
from scheduler.api.guard import values_of
from scheduler.api.outcomes import Outcomes
from scheduler.api.query import Query
from scheduler.api.request import PLAIN, check_chunks, checked_id, query_of, wants_events
from scheduler.api.spans import READ_MAX_BYTES, SpanReader, offset_of_tail, read_range, size_of
from scheduler.api.sse import EventStream, events_headers
from scheduler.api.streams import FollowStream, RawStream, follow_headers
from scheduler.errors import DeadlineExceeded, Invalid, OutputCut, Unavailable, WorkerFault
from scheduler.interfaces import IOutputReader
from scheduler.messages import Chunk
from scheduler.model import Job, JobState, Stream

_RAW = {"Content-Type": "text/plain; charset=utf-8"}


@frozen
class Shown:
    """How a stream is answered: what it says beside its body, and how a failure before that is told."""

    headers: Mapping[str, str] = field(factory=dict)
    status: int = 200
    problem: Callable[[Failure], Problem] = problem_of


class OutputRoutes:
    """``GET /v1/jobs/{id}/output``; and the same streams as answers to a submission."""

    def __init__(self, context: Context, outcomes: Outcomes) -> None:
        self._context = context
        self._outcomes = outcomes
        self._scheduler = context.scheduler

    async def output(self, request: Request, job_id: str) -> Reply:
        query = query_of(request, ("stream", "offset", "tail", "follow", "stall", "output"))
        as_events, follow, tail = wants_events(request, PLAIN), query.flag("follow"), query.number("tail", 0, 10**9)
        if tail is not None and query.given("offset"):
            raise Invalid("tail", "does not go with offset")
        stall, limit = query.stall(), query.output()
        if stall is not None and (as_events or not follow):
            raise Invalid("stall", "goes with follow=1 alone")
        if limit is not None and not as_events:
            raise Invalid("output", "goes with events alone, whose end it is for")
        job = self._scheduler.job(checked_id(job_id))
        if as_events:
            return await self._resumed_events(request, job, query, tail, limit)
        stream, offset = query.stream(), query.number("offset", 0, 10**18 - 1)
        ranged = request.requestHeaders.hasHeader("range")
        if ranged and (follow or offset is not None or tail is not None):
            raise Invalid("Range", "does not go with follow, offset or tail")
        if follow:
            check_chunks(request)
            if tail is not None:
                offset, _ = await offset_of_tail(self._scheduler, job.id, stream, tail)
            else:
                there = await self._check_offset(job, stream, offset or 0)
                if there is not None and there.end and there.cut:
                    raise OutputCut(job.id, there.cut)
            if request.method == b"HEAD":
                return Answer(headers=follow_headers(job, offset or 0), sized=False)
            job = self._scheduler.job(job.id)
            return self.follow(job, self._scheduler.open_output(job.id, stream, offset or 0), Shown(), stall)
        return await self._snapshot(request, job, stream, offset or 0, tail)

    async def _snapshot(self, request: Request, job: Job, stream: Stream, offset: int, tail: int | None) -> Reply:
        """What is there now, or a part of it, with its length."""
        headers, status, end = {**_RAW, "Accept-Ranges": "bytes"}, 200, None
        wanted = None
        if not request.requestHeaders.hasHeader("if-range"):  # nothing it could hold is known here
            wanted = read_range(",".join(values_of(request.requestHeaders, "range")))
        if tail is not None:
            offset, end = await offset_of_tail(self._scheduler, job.id, stream, tail)
        elif wanted is not None:
            size = await size_of(self._scheduler, job.id, stream)
            if size or wanted.suffix is None:
                offset, end = wanted.within(size)
                headers["Content-Range"], status = f"bytes {offset}-{end - 1}/{size}", 206
        size = 0 if request.method == b"HEAD" else READ_MAX_BYTES if end is None else min(READ_MAX_BYTES, end - offset)
        first = await self._scheduler.read_output(job.id, stream, offset, size)
        end = max(first.size, offset) if end is None else end
        headers |= {"Content-Length": str(end - offset), "X-Output-Offset": str(offset)}
        if request.method == b"HEAD":
            return Answer(status=status, headers=headers)
        reader = SpanReader(self._scheduler, job.id, stream, first, end)
        return RawStream(self._context.clock, self._context.under_way, job.id, reader, headers, status)

    async def _check_offset(self, job: Job, stream: Stream, offset: int) -> Chunk | None:
        """What is at that offset now, where that is known: raises what a follower from there on would be refused for.

        The headers of a job that has not ended do not wait for the first byte, so it is asked before.
        """
        if not offset or not (job.over or job.state is JobState.RUNNING):
            return None
        try:
            return await self._scheduler.read_output(job.id, stream, offset, 0)
        except (Unavailable, DeadlineExceeded, WorkerFault):
            return None  # a follower waits until the worker can be asked

    def follow(self, job: Job, reader: IOutputReader, shown: Shown, stall: float | None) -> Reply:
        """One stream as it comes, and its end."""
        headers = {**follow_headers(job, reader.offset), **shown.headers}
        context = self._context
        return FollowStream(
            context.clock,
            context.under_way,
            self._scheduler,
            job,
            reader,
            headers,
            shown.status,
            stall,
            shown.problem,
        )

    async def _resumed_events(
        self, request: Request, job: Job, query: Query, tail: int | None, limit: int | None
    ) -> Reply:
        if query.given("stream"):
            raise Invalid("stream", "does not go with events, which are of both")
        if request.requestHeaders.hasHeader("range"):
            raise Invalid("Range", "does not go with events")
        # A browser that reconnects repeats its URL, so the header is the later word.
        last, given = "".join(values_of(request.requestHeaders, "last-event-id")), query.text("offset")
        if says_end(last or given or ""):
            return Answer(status=204)  # so an EventSource does not come again
        if last:
            offsets = read_offsets("Last-Event-ID", last)
        elif given is not None:
            offsets = read_offsets("offset", given)
        else:
            offsets = dict.fromkeys(Stream, 0)
            for stream in Stream if tail is not None else ():
                offsets[stream], _ = await offset_of_tail(self._scheduler, job.id, stream, tail or 0)
        for stream, offset in offsets.items() if tail is None else ():
            await self._check_offset(job, stream, offset)
        if request.method == b"HEAD":
            return Answer(headers=events_headers(job), sized=False)
        job = self._scheduler.job(job.id)
        return self.events(job, open_all(self._scheduler, job, offsets), Shown(), limit)

    def events(self, job: Job, readers: Readers, shown: Shown, limit: int | None) -> Reply:
        """Both streams, and the end with the last ``limit`` bytes of them, if it is to have some."""
        context = self._context
        headers = {**events_headers(job), **shown.headers}
        return EventStream(
            context.clock,
            context.under_way,
            self._scheduler,
            job,
            readers,
            context.job_json,
            partial(self._outcomes.described, limit=limit),
            headers,
            shown.status,
            shown.problem,
        )
