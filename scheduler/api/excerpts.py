"""Excerpts: the last bytes of a job's output as members of its JSON.

Theory of operation. An excerpt belongs to a job in a certain state. If the job is over, the length of each stream is
known, and the excerpt is complete. If not, the excerpt is the end of the output so far, and a character whose rest may
still come is held back. Output that can't be read now does not fail the answer: the job's ``output_unavailable`` has
the reason.

Few streams of one worker are read at a time (``KeyedTurns``). Further reads wait in line here, so that they do not take
the places of other calls to that worker. An answer waits at most ``READ_DEADLINE_SECONDS`` for its output. At most
``READS_PER_PAGE`` jobs of a page are read at a time, and at most ``MAX_PAGES_READ`` pages, which bounds memory.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from scheduler import wire
from scheduler.api.event_text import cut_character
from scheduler.api.lists import PAGE_FRAME_BYTES, PAGE_MAX_BYTES
from scheduler.api.spans import read_between, size_of
from scheduler.errors import Busy, DeadlineExceeded, SchedulerError
from scheduler.interfaces import IScheduler
from scheduler.model import Job, Stream
from scheduler.reading import Object
from scheduler.turns import KeyedTurns, Turns
from scheduler.views import JobPage

#: Seconds that an answer waits for the output of one job, and seconds after which no further job is added to a page.
READ_DEADLINE_SECONDS, PAGE_DEADLINE_SECONDS = 10.0, 10.0

#: Seconds until a read that was refused with ``Busy`` is tried again.
BUSY_RETRY_SECONDS = 0.2

#: Streams that are read at once from one worker.
READS_PER_WORKER = 4

#: Jobs of one page whose output is read at once, and pages that are read at once.
READS_PER_PAGE, MAX_PAGES_READ = 8, 4


@frozen
class Excerpt:
    """The last bytes of a stream; ``offset`` is that of the first of these bytes."""

    data: bytes
    offset: int
    #: The stream has ended, so no byte follows.
    ended: bool

    def last(self, limit: int) -> Excerpt:
        skipped = max(0, len(self.data) - limit)
        return Excerpt(self.data[skipped:], self.offset + skipped, self.ended)

    def members(self, name: str) -> Object:
        """The members for a job's JSON: ``<name>`` (or ``<name>_base64``), ``<name>_offset`` and ``<name>_cut``."""
        start = 0
        if self.offset:  # the first bytes may be the rest of a character
            while start < min(3, len(self.data)) and self.data[start] & 0xC0 == 0x80:
                start += 1
        end = len(self.data) - (0 if self.ended else cut_character(self.data[start:]))
        try:
            content: Object = {name: self.data[start:end].decode("utf-8")}
        except UnicodeDecodeError:
            start = 0
            content = {f"{name}_base64": base64.b64encode(self.data).decode("ascii")}
        offset = self.offset + start
        return {**content, f"{name}_offset": offset, f"{name}_cut": offset > 0}


@frozen
class Excerpts:
    """The excerpts of a job's streams; ``missing`` is the reason if a stream could not be read."""

    found: Mapping[Stream, Excerpt] = field(factory=dict)
    missing: str | None = None

    def members(self, limit: int) -> Object:
        """The members for the job's JSON, with at most ``limit`` bytes of each stream."""
        members: Object = {}
        for stream in Stream:
            name, excerpt = stream.value, self.found.get(stream)
            if excerpt is None:
                members |= {name: None, f"{name}_offset": None, f"{name}_cut": True}
            else:
                members |= excerpt.last(limit).members(name)
        return {**members, "output_unavailable": self.missing}


@define(eq=False, slots=False)
class ExcerptReader:
    """Reads excerpts, within the limits of one server."""

    _scheduler: IScheduler
    _clock: IReactorTime
    #: Makes the JSON of a job.
    _describe: Callable[[Job], Awaitable[Object]]

    def __attrs_post_init__(self) -> None:
        self._reads = KeyedTurns(READS_PER_WORKER)
        self._pages = Turns(MAX_PAGES_READ)

    async def job(self, job: Job, limit: int) -> Object:
        """The job's JSON with at most ``limit`` bytes of each stream."""
        excerpts = await self.read(job, limit)
        return {**await self._describe(job), **excerpts.members(limit)}

    async def page(self, page: JobPage, limit: int) -> bytes:
        """The JSON of a page of jobs, each with its output; it ends early rather than exceed ``PAGE_MAX_BYTES``.

        If ``page`` has a job, at least one is in it.
        """
        return await self._pages.run(self._page, page, limit)

    async def read(self, job: Job, limit: int) -> Excerpts:
        """Read the last bytes of both streams, at most ``limit`` of each."""
        found: dict[Stream, Excerpt] = {}

        async def read_all() -> None:
            for stream in Stream:
                found[stream] = await self._excerpt(job, stream, limit)

        try:
            await Deferred.fromCoroutine(read_all()).addTimeout(READ_DEADLINE_SECONDS, self._clock)
        except DeferredTimeout:
            return Excerpts(found, str(DeadlineExceeded("reading the output", READ_DEADLINE_SECONDS)))
        except SchedulerError as error:
            return Excerpts(found, str(error))
        return Excerpts(found)

    async def _excerpt(self, job: Job, stream: Stream, limit: int) -> Excerpt:
        async def read() -> Excerpt:
            size = (job.stdout_bytes if stream is Stream.STDOUT else job.stderr_bytes) if job.over else None
            if size is None:
                size = await size_of(self._scheduler, job.id, stream)
            start = max(0, size - limit)
            return Excerpt(await read_between(self._scheduler, job.id, stream, start, size), start, job.over)

        while True:
            try:
                return await self._reads.run(job.worker_id or "", read)
            except Busy:
                await deferLater(self._clock, BUSY_RETRY_SECONDS)

    async def _page(self, page: JobPage, limit: int) -> bytes:
        until = self._clock.seconds() + PAGE_DEADLINE_SECONDS
        following = deque(page.jobs)
        reading: deque[tuple[Job, Deferred[Excerpts]]] = deque()
        taken: list[tuple[Job, bytes]] = []
        room = PAGE_MAX_BYTES - PAGE_FRAME_BYTES
        cursor = page.next
        try:
            while following or reading:
                while following and len(reading) < READS_PER_PAGE:
                    job = following.popleft()
                    reading.append((job, Deferred.fromCoroutine(self.read(job, limit))))
                job, excerpts = reading[0]
                read = await excerpts
                shown = self._fitting(await self._describe(job), read, limit)
                reading.popleft()
                if taken and (len(shown) + 1 > room or self._clock.seconds() >= until):
                    cursor = self._scheduler.cursor_after(taken[-1][0])
                    break
                taken.append((job, shown))
                room -= len(shown) + 1
        finally:
            for _, excerpts in reading:
                excerpts.addErrback(lambda _: None)
                excerpts.cancel()
        return b'{"jobs":[%b],"next":%b}\n' % (b",".join(shown for _, shown in taken), wire.dump_value(cursor))

    def _fitting(self, described: Object, excerpts: Excerpts, limit: int) -> bytes:
        """The job's JSON with as much of its output as fits on a page."""
        while True:
            shown = wire.dump_value({**described, **excerpts.members(limit)})
            if len(shown) < PAGE_MAX_BYTES - PAGE_FRAME_BYTES or not limit:
                return shown
            limit //= 2
