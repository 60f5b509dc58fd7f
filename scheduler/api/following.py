"""Opens the readers of a job's streams: all or none, and for a submission as soon as the job is durable."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from scheduler.api.event_text import Offsets
from scheduler.errors import SchedulerError
from scheduler.interfaces import Accepted, IOutputReader, IScheduler
from scheduler.model import Job, Stream

Readers = Mapping[Stream, IOutputReader]


def open_all(scheduler: IScheduler, job: Job, offsets: Offsets) -> Readers:
    """Open a reader for each of these streams; if one fails, close the others and raise its error."""
    readers: dict[Stream, IOutputReader] = {}
    try:
        for stream, offset in offsets.items():
            readers[stream] = scheduler.open_output(job.id, stream, offset)
    except Exception:
        _close_all(readers)
        raise
    return readers


async def open_early(scheduler: IScheduler, accepted: Accepted, offsets: Offsets) -> tuple[Job, Readers]:
    """The job as its request is answered, and the readers, opened before that: none if that was not possible yet.

    If the start fails, or its client leaves, the readers are closed.
    """
    readers: Readers = {}
    with contextlib.suppress(SchedulerError):
        readers = open_all(scheduler, accepted.job, offsets)
    try:
        return await accepted.answered, readers
    except Exception:
        _close_all(readers)
        raise


def _close_all(readers: Readers) -> None:
    for reader in readers.values():
        reader.close()
