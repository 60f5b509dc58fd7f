"""The handler of a job's output: the part that exists now, one stream as it is written, or both streams as events."""

from __future__ import annotations

from scheduler.api.answers import Answer
from scheduler.api.call import PLAIN, Call, checked_id
from scheduler.api.context import Reply
from scheduler.api.event_text import read_offsets, says_end
from scheduler.api.following import open_all
from scheduler.api.raw import FollowStream, RawStream, follow_headers
from scheduler.api.spans import READ_MAX_BYTES, SpanReader, offset_of_tail, read_range, size_of, span_of
from scheduler.api.sse import EventStream, events_headers
from scheduler.api.streams import Opening
from scheduler.errors import DeadlineExceeded, Invalid, OutputCut, Unavailable, WorkerFault
from scheduler.interfaces import IScheduler
from scheduler.messages import Chunk
from scheduler.model import Job, JobState, Stream

#: The parameters of a job's output.
QUERY = ("stream", "offset", "tail", "follow", "stall", "output")

_RAW = {"Content-Type": "text/plain; charset=utf-8"}


async def output(call: Call, job_id: str) -> Reply:
    """Handle ``GET /v1/jobs/{id}/output``."""
    query, scheduler = call.query, call.scheduler
    as_events, follow, tail = call.wants_events(PLAIN), query.flag("follow"), query.number("tail", 0, 10**9)
    if tail is not None and query.given("offset"):
        raise Invalid("tail", "does not go with offset")
    stall, limit = query.stall(), query.output()
    if stall is not None and (as_events or not follow):
        raise Invalid("stall", "goes with follow=1 alone")
    if limit is not None and not as_events:
        raise Invalid("output", "goes with events alone, whose end it is for")
    job = scheduler.job(checked_id(job_id))
    if as_events:
        return await _resumed_events(call, job, tail, limit)
    stream, offset = query.stream(), query.number("offset", 0, 10**18 - 1)
    if call.header("range") is not None and (follow or offset is not None or tail is not None):
        raise Invalid("Range", "does not go with follow, offset or tail")
    if not follow:
        return await _snapshot(call, job, stream, offset or 0, tail)
    call.check_chunks()
    if tail is not None:
        offset, _ = await offset_of_tail(scheduler, job.id, stream, tail)
    else:
        found = await _check_offset(scheduler, job, stream, offset or 0)
        if found is not None and found.end and found.cut:
            raise OutputCut(job.id, found.cut)
    if call.head:
        return Answer(headers=follow_headers(job, offset or 0), sized=False)
    call.follows()
    job = scheduler.job(job.id)
    reader = scheduler.open_output(job.id, stream, offset or 0)
    return FollowStream(call.context, job, reader, Opening(), stall)


async def _snapshot(call: Call, job: Job, stream: Stream, offset: int, tail: int | None) -> Reply:
    """Answer with the output that exists now, or a part of it, and its length."""
    scheduler = call.scheduler
    headers, status, end = {**_RAW, "Accept-Ranges": "bytes"}, 200, None
    # No validator is ever sent, so no If-Range can match: such a client gets all of the output.
    wanted = read_range(call.header("range")) if call.header("if-range") is None else None
    if tail is not None:
        offset, end = await offset_of_tail(scheduler, job.id, stream, tail)
    elif wanted is not None:
        size = await size_of(scheduler, job.id, stream)
        if size or wanted[0] >= 0:
            offset, end = span_of(wanted, size)
            headers["Content-Range"], status = f"bytes {offset}-{end - 1}/{size}", 206
    size = 0 if call.head else READ_MAX_BYTES if end is None else min(READ_MAX_BYTES, end - offset)
    first = await scheduler.read_output(job.id, stream, offset, size)
    end = max(first.size, offset) if end is None else end
    headers |= {"Content-Length": str(end - offset), "X-Output-Offset": str(offset)}
    if call.head:
        return Answer(status=status, headers=headers)
    reader = SpanReader(scheduler, job.id, stream, first, end)
    return RawStream(call.context, job.id, reader, Opening(headers, status))


async def _check_offset(scheduler: IScheduler, job: Job, stream: Stream, offset: int) -> Chunk | None:
    """The chunk at ``offset``, if it can be read now. Raises the error that refuses a follower at this offset.

    The headers of a job that has not ended do not wait for the first byte, so the offset is checked before.
    """
    if not offset or not (job.over or job.state is JobState.RUNNING):
        return None
    try:
        return await scheduler.read_output(job.id, stream, offset, 0)
    except (Unavailable, DeadlineExceeded, WorkerFault):
        return None  # a follower waits until the worker can be asked


async def _resumed_events(call: Call, job: Job, tail: int | None, limit: int | None) -> Reply:
    query, scheduler = call.query, call.scheduler
    if query.given("stream"):
        raise Invalid("stream", "does not go with events, which are of both")
    if call.header("range") is not None:
        raise Invalid("Range", "does not go with events")
    # A browser that reconnects repeats its URL, so the header is newer than the parameter.
    last, given = call.header("last-event-id"), query.text("offset")
    if says_end(last or given or ""):
        return Answer(status=204)  # so that an EventSource does not reconnect
    if last:
        offsets = read_offsets("Last-Event-ID", last)
    elif given is not None:
        offsets = read_offsets("offset", given)
    else:
        offsets = dict.fromkeys(Stream, 0)
        for stream in Stream if tail is not None else ():
            offsets[stream], _ = await offset_of_tail(scheduler, job.id, stream, tail or 0)
    for stream, offset in offsets.items() if tail is None else ():
        await _check_offset(scheduler, job, stream, offset)
    if call.head:
        return Answer(headers=events_headers(job), sized=False)
    call.follows()
    job = scheduler.job(job.id)
    return EventStream(call.context, job, open_all(scheduler, job, offsets), Opening(), limit)
