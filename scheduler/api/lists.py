"""Lists of jobs and workers as JSON. Entries are looked up and written as the client reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

from scheduler import wire
from scheduler.api.bodies import PIECE_BYTES
from scheduler.errors import NotFound
from scheduler.interfaces import IScheduler
from scheduler.model import Job
from scheduler.reading import Object
from scheduler.views import JobPage, WorkerView

#: Bytes of a page of jobs, at most. A job that is larger is a page by itself.
PAGE_MAX_BYTES = 8 * 1024 * 1024

#: Bytes of a page without its jobs, but with the cursor, at most.
PAGE_FRAME_BYTES = 1024

#: Bytes of a job's JSON without its arguments and variables, roughly.
USUAL_BYTES = 1024

#: Workers in one piece of the body.
WORKERS_AT_ONCE = 100

#: Returns the JSON of jobs.
Show = Callable[[Sequence[Job]], Awaitable[list[Object]]]


async def page_of_jobs(scheduler: IScheduler, page: JobPage, show: Show) -> AsyncIterator[bytes]:
    """Write ``{"jobs": [...], "next": cursor or null}``; ends early rather than exceed ``PAGE_MAX_BYTES``."""
    room = PAGE_MAX_BYTES - PAGE_FRAME_BYTES
    cursor, last = page.next, None
    yield b'{"jobs":['
    for group in _groups(page.jobs):
        shown = [_members(await show(group))]
        room -= len(shown[0]) + 1
        if last is not None:
            if room < 0:
                cursor = scheduler.cursor_after(last)
                break
            yield b","
        yield shown.pop()  # so that no reference is kept here
        last = group[-1]
    yield b'],"next":%b}\n' % wire.dump_value(cursor)


async def all_jobs(jobs: Iterable[Job], show: Show) -> AsyncIterator[bytes]:
    """Write ``{"jobs": [...]}``, with all jobs."""
    yield b'{"jobs":['
    for number, group in enumerate(_groups(jobs)):
        if number:
            yield b","
        yield _members(await show(group))
    yield b"]}\n"


async def all_workers(scheduler: IScheduler, views: Iterable[WorkerView]) -> AsyncIterator[bytes]:
    """Write ``{"workers": [...]}``. Each worker is described at the moment at which it is written."""
    before = b'{"workers":['
    ids = iter([view.worker.id for view in views])
    while part := list(islice(ids, WORKERS_AT_ONCE)):
        if shown := _members(list(map(wire.worker_json, _present(scheduler, part)))):
            yield before + shown
            before = b","
    yield b"]}\n" if before == b"," else before + b"]}\n"


def _present(scheduler: IScheduler, worker_ids: Iterable[str]) -> Iterator[WorkerView]:
    for worker_id in worker_ids:
        with suppress(NotFound):  # it was forgotten meanwhile
            yield scheduler.worker(worker_id)


def _members(values: list[Object]) -> bytes:
    """The members of a JSON array, without its brackets."""
    return wire.dump_value(values)[1:-1]


def _groups(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    """The jobs in order, in groups of about ``PIECE_BYTES``; a large job is a group by itself."""
    group: list[Job] = []
    size = 0
    for job in jobs:
        spec = job.spec
        own = USUAL_BYTES + (spec.stored or sum(map(len, spec.args)) + sum(map(len, spec.env.values())))
        if group and size + own > PIECE_BYTES:
            yield group
            group, size = [], 0
        group.append(job)
        size += own
    if group:
        yield group
