"""Lists of jobs and workers as JSON: what is listed is looked up and written out as the client reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

from scheduler import wire
from scheduler.api.bodies import PIECE_BYTES
from scheduler.errors import NotFound
from scheduler.fields import Object
from scheduler.interfaces import IScheduler, JobPage
from scheduler.model import Job

#: Bytes of a page of jobs. One job that is larger is a page by itself.
PAGE_MAX_BYTES = 8 * 1024 * 1024

#: What stands around the jobs of a page, in bytes, its cursor included.
PAGE_FRAME_BYTES = 1024


#: Jobs of which the store is asked for the rest at once; fewer where that is more than a piece.
READ_AT_ONCE = 64

#: Gives jobs with what the store alone has of them.
Fill = Callable[[Sequence[Job]], Awaitable[Sequence[Job]]]


async def page_of_jobs(
    scheduler: IScheduler, page: JobPage, fill: Fill, show: Callable[[Job], Object]
) -> AsyncIterator[bytes]:
    """``{"jobs": [...], "next": cursor or null}``; it ends early rather than grow beyond ``PAGE_MAX_BYTES``."""
    room = PAGE_MAX_BYTES - PAGE_FRAME_BYTES
    cursor, last = page.next, None
    yield b'{"jobs":['
    async for job in _filled(page.jobs, fill):
        shown = wire.dump_value(show(job))
        if last is not None:
            if len(shown) + 1 > room:
                cursor = scheduler.cursor_after(last)
                break
            yield b","
        yield shown
        room -= len(shown) + 1
        last = job
    yield b'],"next":%b}\n' % wire.dump_value(cursor)


async def all_jobs(jobs: Iterable[Job], fill: Fill, show: Callable[[Job], Object]) -> AsyncIterator[bytes]:
    """``{"jobs": [...]}``, however many."""
    before = b'{"jobs":['
    async for job in _filled(jobs, fill):
        yield before + wire.dump_value(show(job))
        before = b","
    yield b"]}\n" if before == b"," else before + b"]}\n"


async def _filled(jobs: Iterable[Job], fill: Fill) -> AsyncIterator[Job]:
    """The jobs, in order; what the store alone has of them is read for as many as make a piece."""
    part: list[Job] = []
    size = 0
    for job in jobs:
        if not (part or job.spec.stored):
            yield job
            continue
        part.append(job)
        size += job.spec.stored
        if size >= PIECE_BYTES or len(part) == READ_AT_ONCE:
            for each in await fill(part):
                yield each
            part, size = [], 0
    for each in await fill(part) if part else ():
        yield each


async def all_workers(scheduler: IScheduler) -> AsyncIterator[bytes]:
    """``{"workers": [...]}``, each as it is when it is written."""
    before = b'{"workers":['
    for worker_id in [view.worker.id for view in scheduler.workers()]:
        try:
            view = scheduler.worker(worker_id)
        except NotFound:
            continue  # it was forgotten meanwhile
        yield before + wire.dump_value(wire.worker_json(view))
        before = b","
    yield b"]}\n" if before == b"," else before + b"]}\n"
