"""Output as it arrives: both streams as events, or one as raw bytes, resumed after a connection ended too early.

The position in each stream is counted in bytes. A byte that arrives again is skipped, and a missing byte is an error
(``OutputLost``). So the delivered data is the stream, exactly once.

A connection counts as cut if it breaks, if its body ends without the end of the job, and if nothing arrived for
``EVENT_SILENCE_SECONDS`` or ``RAW_SILENCE_SECONDS``. The scheduler sends a comment every 15 s on an event stream, so
silence there means a dead connection. A raw body has no such comments: another request at the same offset loses
nothing.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from scheduler.client.errors import ApiProblem, ClientError, OutputLost
from scheduler.client.exchange import Answer, Deliver, Head, Loss, NoAnswer, Open, Read, Request, Script, Source, whole
from scheduler.client.repeating import Repeater
from scheduler.client.sse import Parser, ServerEvent
from scheduler.client.values import Changed, Ended, Event, Job, Output

#: Seconds without a byte after which a connection counts as cut. The first is three times that of the scheduler's
#: comments.
EVENT_SILENCE_SECONDS = 45.0

RAW_SILENCE_SECONDS = 60.0

STREAMS = ("stdout", "stderr")


def follow(repeater: Repeater, path: str, job_id: str, stdout: int, stderr: int) -> Source[Event]:
    """The events of a job, from these offsets on, until it has ended. ``path`` is the path of its output."""
    progress = _Progress(job_id, {"stdout": stdout, "stderr": stderr})
    attempts = repeater.attempts()
    while True:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": progress.position}
        request = Request("GET", path, headers=headers, silence=EVENT_SILENCE_SECONDS)
        head = yield Open(request)
        failure = yield from _refusal(repeater, head, path, job_id)
        if failure is None:
            if not head.headers.get("content-type", "").startswith("text/event-stream"):
                raise ClientError("the answer is not an event stream: is there a scheduler?")
            parser = Parser()
            attempts.begun()
            while failure is None:
                data = yield Read()
                if isinstance(data, NoAnswer):
                    failure = data
                elif not data:
                    failure = NoAnswer(Loss.LOST, "the event stream ended before the job did")
                else:
                    attempts.alive()
                    for event in map(progress.take, parser.feed(data)):
                        if event is not None:
                            attempts.progressed()
                            yield Deliver(event)
                        if isinstance(event, Ended):
                            return
        yield from repeater.again(request, failure, attempts)


class _Progress:
    """The offsets up to which both streams were delivered, and the new part of each event."""

    def __init__(self, job_id: str, reached: dict[str, int]) -> None:
        self._job_id = job_id
        self._reached = reached
        self._job: Mapping[str, Any] | None = None

    @property
    def position(self) -> str:
        return ",".join(str(self._reached[stream]) for stream in STREAMS)

    def take(self, event: ServerEvent) -> Event | None:
        """The new part of an event; ``None`` if nothing is new, and for events that this version does not know."""
        if event.name not in (*STREAMS, "job", "end"):
            return None
        try:
            data = json.loads(event.data)
        except (ValueError, RecursionError):
            raise ClientError(f"the event {event.name} is not JSON: {event.data[:80]!r}") from None
        if event.name in STREAMS:
            return self._output(event.name, data)
        job = Job.from_json(data)
        if event.name == "end":
            return Ended(job)
        if data == self._job:
            return None
        self._job = data
        return Changed(job)

    def _output(self, stream: str, data: Any) -> Output | None:
        try:
            offset = int(data["offset"])
            piece = data["text"].encode() if "text" in data else base64.b64decode(data["base64"], validate=True)
        except (TypeError, KeyError, AttributeError, ValueError, binascii.Error):
            raise ClientError(f"the event {stream} is malformed: {str(data)[:80]}") from None
        return self.output(stream, offset, piece)

    def output(self, stream: str, offset: int, data: bytes) -> Output | None:
        """The new bytes of ``data``, which begins at ``offset``. Raises ``OutputLost`` if earlier bytes are missing."""
        reached = self._reached[stream]
        if offset > reached:
            raise OutputLost(f"{stream} goes on at byte {offset}, and ends at {reached}", job_id=self._job_id)
        new = data[reached - offset :]
        if not new:
            return None
        self._reached[stream] += len(new)
        return Output(stream, reached, new)


def output(
    repeater: Repeater, path: str, job_id: str, stream: str, offset: int, tail: int | None, follow: bool
) -> Source[bytes]:
    """The bytes of one stream: the present bytes or, with ``follow``, all until the job has ended."""
    attempts = repeater.attempts()
    #: The offset of the next byte, and the offset after the last; ``None`` while unknown.
    reached: int | None = None if tail is not None else offset
    end: int | None = None
    while True:
        request = _raw_request(path, stream, reached, end, tail, follow)
        head = yield Open(request)
        failure = yield from _refusal(repeater, head, path, job_id, begun=end is not None)
        if failure is None:
            attempts.begun()
            start, length = _extent(head)
            if reached is None:
                reached = start
            if start != reached:
                raise OutputLost(f"{stream} goes on at byte {start}, and ends at {reached}", job_id=job_id)
            if not follow and end is None and length is not None:
                end = start + length
            while failure is None:
                data = yield Read()
                if isinstance(data, NoAnswer):
                    failure = data
                elif not data:
                    failure = (yield from _unfinished(repeater, path, stream, reached)) if follow else None
                    if failure is None:
                        return
                else:
                    reached += len(data)
                    attempts.progressed()
                    yield Deliver(data)
            if end is not None and reached >= end:
                return
        yield from repeater.again(request, failure, attempts)


def _raw_request(
    path: str, stream: str, reached: int | None, end: int | None, tail: int | None, follow: bool
) -> Request:
    query = [("stream", stream)]
    headers = {}
    if end is not None:
        headers["Range"] = f"bytes={reached}-{end - 1}"  # the end as of the first request
    elif reached is not None:
        query.append(("offset", str(reached)))
    else:
        query.append(("tail", str(tail)))
    if follow:
        query.append(("follow", "1"))
    return Request("GET", path, tuple(query), headers=headers, silence=RAW_SILENCE_SECONDS if follow else None)


def _extent(head: Head) -> tuple[int, int | None]:
    """The offset of a body, and its length or ``None``. Raises ``ClientError`` if the body is no output."""
    start, length = head.headers.get("x-output-offset", ""), head.headers.get("content-length", "")
    if not start.isdigit():
        raise ClientError("the answer is not the output of a job: is there a scheduler?")
    return int(start), (int(length) if length.isdigit() else None)


def _unfinished(repeater: Repeater, path: str, stream: str, reached: int) -> Script[NoAnswer | None]:
    """Why a body that ended properly is not all of the job's output; ``None`` if it is.

    A proxy may properly end a body that was cut on its way there, and not every client sees trailers, which would tell.
    """
    answer = yield from repeater.answer(Request("GET", path.removesuffix("/output"), expected=frozenset({404})))
    if answer.status == 404:
        return None  # the job was removed meanwhile
    job = Job.from_json(answer.json())
    size = job.stdout_bytes if stream == "stdout" else job.stderr_bytes
    if job.final and (size is None or reached >= size):
        return None
    return NoAnswer(Loss.LOST, "the output ended before the job did")


def _refusal(
    repeater: Repeater, head: Head | NoAnswer, path: str, job_id: str, begun: bool = False
) -> Script[Answer | NoAnswer | None]:
    """The failure of a request for output; ``None`` if output follows. Raises ``OutputLost`` if it will never come."""
    if isinstance(head, NoAnswer):
        return head
    repeater.reached = True
    if head.status < 300:
        return None
    answer = yield from whole(head)
    if isinstance(answer, Answer):
        problem = ApiProblem(answer.status, answer.document)
        if problem.status == 410 or problem.type == "output-unknown" or (problem.status == 416 and begun):
            raise OutputLost(problem.detail, job_id=job_id)
        if problem.type == "unavailable" and (yield from _job(repeater, path)).state == "lost":
            raise OutputLost(problem.detail, job_id=job_id)
    return answer


def _job(repeater: Repeater, path: str) -> Script[Job]:
    """The present state of the job whose output has this path."""
    return Job.from_json((yield from repeater.answer(Request("GET", path.removesuffix("/output")))).json())
