"""Opens the readers of a job's streams: all or none, and for a submission as early as its worker is called."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from types import TracebackType

from scheduler.api.events import Offsets
from scheduler.errors import SchedulerError
from scheduler.interfaces import IOutputReader, IScheduler
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


class FromTheStart:
    """The output of a job that is being submitted, from its first byte.

    A context manager around the submission. When that fails, or its client leaves, the readers are closed.
    """

    def __init__(self, scheduler: IScheduler, streams: Iterable[Stream]) -> None:
        self._scheduler = scheduler
        self._offsets = dict.fromkeys(streams, 0)
        self._readers: Readers = {}
        self._closed = False

    def starting(self, job: Job) -> None:
        """Open the readers: the worker is being called, and its answer need not be awaited."""
        if not self._closed:
            with contextlib.suppress(SchedulerError):  # ``readers`` raises it if it still applies
                self.readers(job)

    def readers(self, job: Job) -> Readers:
        """A reader for each of the streams; raises the error of the one that can't be opened."""
        self._readers = self._readers or open_all(self._scheduler, job, self._offsets)
        return self._readers

    def __enter__(self) -> FromTheStart:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            self._closed = True
            _close_all(self._readers)


def _close_all(readers: Readers) -> None:
    for reader in readers.values():
        reader.close()
