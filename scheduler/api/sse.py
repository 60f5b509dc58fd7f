"""A job as server-sent events: its state, both of its streams, and its end.

The first event is ``job``. Another ``job`` follows each change of the job's ``state`` or ``reason``, or of the reason
why it is queued. A client that does not read for a while gets only the latest ``job`` when it reads again. The last
event is ``end``, or ``resume`` before this process shuts down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from scheduler.api import event_text
from scheduler.api.context import Context
from scheduler.api.streams import END_WAIT_MAX_SECONDS, Opening, Pull, StreamResource
from scheduler.errors import SchedulerError
from scheduler.interfaces import IOutputReader
from scheduler.messages import Chunk
from scheduler.model import Job, JobState, Stream
from scheduler.reading import Object

HEARTBEAT_INTERVAL_SECONDS = 15.0


def events_headers(job: Job) -> dict[str, str]:
    """The headers of an event stream."""
    return {"Content-Type": "text/event-stream", "X-Job-Id": job.id, "X-Accel-Buffering": "no"}


class EventStream(StreamResource):
    """A response with both streams of a job as server-sent events, and then its end."""

    def __init__(
        self, context: Context, job: Job, readers: Mapping[Stream, IOutputReader], opening: Opening, limit: int | None
    ) -> None:
        """With ``limit`` the event ``end`` has the last ``limit`` bytes of each stream."""
        super().__init__(context, opening.of_kind(events_headers(job)), at_once=not job.over)
        self._job = job
        self._limit = limit
        # the data of the latest event ``job``
        self._told: Object = {}
        self._news = False
        self._unwatch: Callable[[], None] | None = None
        self._pulls = [
            Pull(reader, self._wanted, partial(self._deliver, stream), self._cut) for stream, reader in readers.items()
        ]
        self._pieces = {stream: event_text.Pieces(reader.offset) for stream, reader in readers.items()}
        self._unended = set(readers)

    def resumeProducing(self) -> None:
        self._paused = False
        if not self._finishing:
            self._tell_news()
        super().resumeProducing()

    def _opened(self) -> None:
        try:
            self._unwatch = self._context.scheduler.watch(self._job.id, self._changed)
        except SchedulerError:
            self._cut(Failure())

    def _begin(self) -> None:
        if not (self._begun or self._over):
            super()._begin()
            self._await_silence()
            self._tell()

    def _changed(self, job: Job) -> None:
        before, self._job = self._job, job
        if job.state.final and self._settling is not None:
            return  # the event ``end`` will have it
        if (job.state, job.reason) != (before.state, before.reason):
            self._news = True
            self._tell_news()

    def _tell_news(self) -> None:
        if self._news and self._begun and self._wanted():
            self._tell()

    def _tell(self) -> None:
        self._news = False
        self._told = self._context.job_json(self._job)
        self._event("job", self._told)

    def _await_silence(self) -> None:
        if not self._over:
            self._timer = self._context.clock.callLater(HEARTBEAT_INTERVAL_SECONDS, self._beat)

    def _beat(self) -> None:
        if not self._paused:
            # the reason why a job is queued changes without a change of the job
            if self._job.state is JobState.QUEUED and self._context.job_json(self._job) != self._told:
                self._tell()
            else:
                self._write(event_text.HEARTBEAT)
        self._await_silence()

    def end(self) -> None:
        # The event has data, as a browser drops an event without.
        self._begin()
        self._event("resume", {})
        self._finish()

    def _event(self, name: str, data: Object, ended: bool = False) -> None:
        sent = {stream: pieces.sent for stream, pieces in self._pieces.items()}
        self._write(event_text.event(name, data, event_text.event_id(sent, ended)))

    def _deliver(self, stream: Stream, chunk: Chunk) -> None:
        if chunk.data:  # the end of an empty stream does not show that the other stream can be read
            self._begin()
        pieces = self._pieces[stream]
        for data in pieces.feed(chunk.data):
            self._event(stream.value, data)
        if chunk.end:
            for data in pieces.flush():
                self._event(stream.value, data)
            self._unended.discard(stream)
            if not self._unended:
                self._settle(
                    self._context.scheduler.wait(self._job.id, END_WAIT_MAX_SECONDS).addCallback(self._end_of),
                    self._settled,
                )

    def _end_of(self, job: Job) -> Deferred[Object | None]:
        """The data of the event ``end``; ``None`` if the job has not ended, as far as is known."""

        async def described() -> Object | None:
            return await self._context.described(job, self._limit) if job.state.final else None

        return Deferred.fromCoroutine(described())

    def _settled(self, data: Object | None) -> None:
        if data is None:
            self.end()
            return
        self._begin()
        self._event("end", data, ended=True)
        self._finish()

    def _close(self) -> None:
        super()._close()
        unwatch, self._unwatch = self._unwatch, None
        if unwatch is not None:
            unwatch()
