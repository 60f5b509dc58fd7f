"""One follower's place in one stream of one job.

It is served from its tail's window, or waits there for bytes to come by the
stream, or pulls; ``scheduler.cluster.output.live`` tells when. Here is decided what a
failure means to a follower. While the job has not ended it is worth waiting for
its worker, without limit. The output of one that has ended is there or is not:
a reader that got nothing yet fails at once, one under way after ``FAILING_MAX_SECONDS``.
The last chunk says ``cut`` where it is known, to the worker or here, that bytes
are missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.cluster.output.bounds import gone, judged, length, nothing, without_record, without_worker
from scheduler.cluster.output.live import Tail
from scheduler.errors import (
    Busy,
    DeadlineExceeded,
    NotFound,
    SchedulerError,
    Unavailable,
    WorkerFault,
)
from scheduler.interfaces import IOutputReader
from scheduler.messages import Chunk
from scheduler.model import Job, JobState, Worker, WorkerState

#: Bytes handed out, or asked for, at once.
READ_MAX_BYTES = 1024 * 1024

#: Seconds without a byte after which a reader under way gives up on the worker of a job that has ended, and any
#: reader on one that answers with faults.
FAILING_MAX_SECONDS, FAULTS_MAX_SECONDS = 30.0, 5.0


@implementer(IOutputReader)
class Reader:
    """Joins ``tail`` and leaves it when it is over."""

    _log = Logger()

    def __init__(self, tail: Tail, offset: int) -> None:
        self.offset = offset
        #: Why it is over; ``None`` while it is not.
        self.error: Exception | None = None
        self._tail = tail
        # nothing was read yet
        self._fresh = True
        # the next bytes come by the stream, as far as is known; else they must be pulled
        self._live = tail.window.start <= offset <= tail.window.end
        self._waiting: Deferred[Chunk] | None = None
        self._pulling: Deferred[Chunk] | None = None
        tail.join(self)
        if offset == tail.window.end and not tail.ended and not tail.job.over:
            self._demand()  # so that a refusal is known before the first read

    def read(self) -> Deferred[Chunk]:
        if self.error is not None:
            return fail(self.error)
        assert self._waiting is None, "one read at a time"
        waiting: Deferred[Chunk] = Deferred(lambda _: self.close())
        self._waiting = waiting
        self.advance()
        return waiting

    def close(self) -> None:
        self.fail(CancelledError())

    def fail(self, error: Exception) -> None:
        """It is over: a read that waits fails, and so do all that come later."""
        if self.error is not None:
            return
        self.error = error
        waiting, self._waiting = self._waiting, None
        pulling, self._pulling = self._pulling, None
        self._tail.leave(self)
        if pulling is not None:
            pulling.cancel()
        if waiting is not None:
            waiting.errback(error)

    def advance(self) -> None:
        """Serve the read that waits, if one does, or see to it that it can be served."""
        if self._waiting is None or self._pulling is not None:
            return
        tail = self._tail
        data = tail.window.read(self.offset, READ_MAX_BYTES)
        size = tail.window.end if tail.ended else length(tail.job, tail.stream)
        if data:
            self._live = True
            end = tail.ended and tail.end_is_sure and self.offset + len(data) == size
            self._give(Chunk(data, self.offset, end, tail.window.end, tail.cut if end else ""))
        elif size is not None and self.offset >= size:
            if tail.end_is_sure:
                self._give_or_fail(nothing, self.offset, size, cut=tail.cut)
        else:
            self._demand()

    def unfollow(self, reason: Failure) -> None:
        """The stream can't be had: pull. ``Busy`` is told to one who has got nothing yet, to try again later."""
        if not self._live:
            return
        self._live = False
        if self._fresh and isinstance(reason.value, Busy):
            self.fail(reason.value)

    def _demand(self) -> None:
        """Have the next bytes come, by the stream or by a pull, or wait until something changes."""
        tail = self._tail
        if self.offset < tail.window.start:
            self._live = False
        if tail.reaches(self.offset) and (self._live or self.offset == tail.window.end):
            tail.came_to(self.offset)
            return
        if tail.held:
            return
        job, worker = tail.job, tail.worker
        if tail.void:
            self.fail(NotFound("job", job.id))
        elif job.state is JobState.QUEUED:
            pass  # nothing is to be had before that changes
        elif worker is None and job.state is JobState.LOST:
            self.fail(gone(job))
        elif worker is None:
            self._hold(without_worker(job))
        elif worker.state is not WorkerState.ONLINE:
            self._hold(tail.reach.error(worker))
        elif self._live and not job.over:
            tail.follow(worker, self.offset)
        else:
            self._pull(worker, job)

    def _hold(self, error: SchedulerError) -> None:
        """Wait for another try, or fail with ``error`` if there were enough."""
        if self._tail.failing_for(error) >= self._patience(error):
            self.fail(error)
        else:
            self._tail.hold(error)

    def _patience(self, error: SchedulerError) -> float:
        if isinstance(error, WorkerFault):
            return FAULTS_MAX_SECONDS
        if not self._tail.job.over:
            return math.inf
        return 0.0 if self._fresh else FAILING_MAX_SECONDS

    def _pull(self, worker: Worker, job: Job) -> None:
        pulling = self._tail.client.read_output(
            worker, job.id_on_worker, self._tail.stream, self.offset, READ_MAX_BYTES
        )
        self._pulling = pulling
        pulling.addCallbacks(self._pulled, self._pull_failed, callbackArgs=(worker,), errbackArgs=(job,))

    def _pulled(self, chunk: Chunk, worker: Worker) -> None:
        self._pulling = None
        if self.error is not None:
            return
        if chunk.offset != self.offset:
            self._hold(WorkerFault(worker.name, f"output of {chunk.offset}, not {self.offset}"))
        elif chunk.data or (chunk.end and self._tail.end_is_sure):
            self._live = chunk.next_offset >= chunk.size
            self._tail.progressed()
            self._give(chunk if self._tail.end_is_sure else evolve(chunk, end=False, cut=""))
        elif self._tail.job.over:
            self._hold(Unavailable(f"the output of job {self._tail.job.id!r} has not come to its end"))
        else:
            self._live = True
            self.advance()

    def _pull_failed(self, reason: Failure, asked: Job) -> None:
        """``asked`` is the job as it was when its worker was asked."""
        self._pulling = None
        if self.error is not None:
            return
        error, job = reason.value, self._tail.job
        assert isinstance(error, Exception)
        if isinstance(error, NotFound) and job.over and not asked.over:
            self.advance()  # that may be from before the job began
        elif isinstance(error, NotFound) and job.over:
            self._give_or_fail(without_record, job, self.offset)
        elif isinstance(error, Busy) and self._fresh:
            self.fail(error)
        elif isinstance(error, NotFound | Unavailable | DeadlineExceeded | WorkerFault):
            self._hold(error)
        else:
            if not isinstance(error, SchedulerError):
                self._log.failure("reading output of job {job_id} went wrong", reason, job_id=job.id)
            self.fail(error)

    def _give_or_fail(self, find: Callable[..., Chunk], *args: Any, **named: Any) -> None:
        try:
            chunk = find(*args, **named)
        except SchedulerError as error:
            self.fail(error)
        else:
            self._give(chunk)

    def _give(self, chunk: Chunk) -> None:
        waiting, self._waiting = self._waiting, None
        assert waiting is not None
        self._fresh = False
        self.offset = chunk.next_offset
        chunk = judged(chunk, self._tail.job, self._tail.stream)
        if chunk.end:
            self.close()
        else:
            self._tail.came_to(self.offset)
        waiting.callback(chunk)
