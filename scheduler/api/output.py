"""The handlers of a job's output: a part of what is there, all of it as it comes, or both streams as events."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.web.server import Request

from scheduler.api.answers import Answer
from scheduler.api.context import Context, Reply
from scheduler.api.events import read_offsets
from scheduler.api.following import Readers, open_all
from scheduler.api.guard import values_of
from scheduler.api.query import Query
from scheduler.api.request import checked_id, query_of, wants_events
from scheduler.api.spans import offset_of_tail, read_range, size_of
from scheduler.api.streams import CHUNK, EventStream, RawStream, SpanReader
from scheduler.errors import Invalid
from scheduler.interfaces import IOutputReader
from scheduler.model import Job, Stream

_RAW = {"Content-Type": "text/plain; charset=utf-8"}


class OutputRoutes:
    """``GET /v1/jobs/{id}/output``; and the same streams as answers to a submission."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._scheduler = context.scheduler

    async def output(self, request: Request, job_id: str) -> Reply:
        query = query_of(request, ("stream", "offset", "tail", "follow"))
        as_events, follow, tail = wants_events(request), query.flag("follow"), query.number("tail", 0, 10**9)
        if tail is not None and query.given("offset"):
            raise Invalid("tail", "does not go with offset")
        job = self._scheduler.job(checked_id(job_id))
        if as_events:
            return await self._resumed_events(request, job, query, tail)
        stream, offset = query.stream(), query.number("offset", 0, 10**18 - 1)
        ranged = request.requestHeaders.hasHeader("range")
        if ranged and (follow or offset is not None or tail is not None):
            raise Invalid("Range", "does not go with follow, offset or tail")
        if follow:
            if tail is not None:
                offset, _ = await offset_of_tail(self._scheduler, job.id, stream, tail)
            if request.method == b"HEAD":
                return Answer(headers=_RAW)
            return self.follow(job, self._scheduler.open_output(job.id, stream, offset or 0), {}, 200)
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
        size = 0 if request.method == b"HEAD" else CHUNK if end is None else min(CHUNK, end - offset)
        first = await self._scheduler.read_output(job.id, stream, offset, size)
        end = max(first.size, offset) if end is None else end
        headers |= {"Content-Length": str(end - offset), "X-Output-Offset": str(offset)}
        if request.method == b"HEAD":
            return Answer(status=status, headers=headers)
        reader = SpanReader(self._scheduler, job.id, stream, first, end)
        return RawStream(self._context.clock, self._context.under_way, job.id, reader, headers, status)

    def follow(
        self,
        job: Job,
        reader: IOutputReader,
        headers: dict[str, str],
        status: int,
        at_once: bool = False,
        members: Mapping[str, object] | None = None,
    ) -> Reply:
        headers = {**_RAW, **headers, "X-Output-Offset": str(reader.offset), "X-Accel-Buffering": "no"}
        return RawStream(
            self._context.clock, self._context.under_way, job.id, reader, headers, status, at_once, members
        )

    async def _resumed_events(self, request: Request, job: Job, query: Query, tail: int | None) -> Reply:
        if query.given("stream"):
            raise Invalid("stream", "does not go with events, which are of both")
        if request.requestHeaders.hasHeader("range"):
            raise Invalid("Range", "does not go with events")
        # A browser that reconnects repeats its URL, so the header is the later word.
        last, given = "".join(values_of(request.requestHeaders, "last-event-id")), query.text("offset")
        if last:
            offsets = read_offsets("Last-Event-ID", last)
        elif given is not None:
            offsets = read_offsets("offset", given)
        else:
            offsets = dict.fromkeys(Stream, 0)
            for stream in Stream if tail is not None else ():
                offsets[stream], _ = await offset_of_tail(self._scheduler, job.id, stream, tail or 0)
        if request.method == b"HEAD":
            return Answer(content_type="text/event-stream")
        return self.events(job, open_all(self._scheduler, job, offsets), {})

    def events(self, job: Job, readers: Readers, headers: dict[str, str], started: bool = False) -> Reply:
        return EventStream(
            self._context.clock, self._context.under_way, self._scheduler, job, readers, headers, started
        )
