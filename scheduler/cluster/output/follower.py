"""A follower: a reader with its own position in stdout or stderr of a job.

A read returns the next bytes from the window of the ``StreamJob`` call that all followers share (``live``), if they are
there. Otherwise it returns the end of the output, or calls the worker for the bytes. If neither is possible now, it
waits for the shared call, and tries again. ``scheduler.cluster.output.failures`` says which failures end a follower.
The last chunk is marked as ``cut`` if the worker or the scheduler knows that bytes are missing.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.cluster.output.bounds import gone, judged, length, no_record, nothing, without_worker
from scheduler.cluster.output.failures import gives_up
from scheduler.cluster.output.live import Live, State
from scheduler.errors import Busy, NotFound, SchedulerError, Unavailable, WorkerFault
from scheduler.interfaces import IOutputReader
from scheduler.messages import Chunk
from scheduler.model import Job, JobState, Worker

#: Bytes handed out, or asked for, at once.
READ_MAX_BYTES = 1024 * 1024


@implementer(IOutputReader)
class Follower:
    """A reader of one stream. It joins ``live``, and leaves it at its end."""

    _log = Logger()

    def __init__(self, live: Live, offset: int) -> None:
        self.offset = offset
        #: The error that ended this follower; ``None``: it goes on.
        self.error: Exception | None = None
        self._live = live
        self._followed = live.followed
        # nothing was read yet
        self._fresh = True
        # as far as is known there are no bytes beyond the offset yet: the stream brings the next ones
        self._caught_up = live.window.start <= offset <= live.window.end
        self._reading = False
        # the Deferred that a read waits for
        self._awaited: Deferred[Any] | None = None
        live.join(self)
        if (
            offset == live.window.end
            and live.state is not State.ENDED
            and not self._followed.job.over
            and live.refusal is None
        ):
            try:
                self._source()  # begins the stream, so that a refusal is known before the first read
            except SchedulerError as error:
                self.fail(error)

    def read(self) -> Deferred[Chunk]:
        if self.error is not None:
            return fail(self.error)
        assert not self._reading, "one read at a time"
        self._reading = True
        if not self._live.brings(self.offset):
            return self._serve()
        # The usual case takes no coroutine: there may be thousands of followers.
        self._awaited = self._live.more(self)
        return self._awaited.addCallbacks(self._woken, self._end)

    def close(self) -> None:
        self.fail(CancelledError())

    def fail(self, error: Exception) -> None:
        """End the follower: a read that waits fails with that error, and so do all later reads."""
        if self.error is not None:
            return
        self.error = error
        self._live.leave(self)
        if self._awaited is not None:
            self._awaited.cancel()

    def _woken(self, _: None) -> Chunk | Deferred[Chunk]:
        chunk = self._from_window()
        return self._serve() if chunk is None else self._give(chunk)

    def _serve(self) -> Deferred[Chunk]:
        return Deferred.fromCoroutine(self._next()).addCallbacks(self._give, self._end)

    async def _next(self) -> Chunk:
        """Read from the window, else the end, else by a call, else wait and look again."""
        live = self._live
        while self.error is None:
            chunk = self._from_window()
            if chunk is not None:
                return chunk
            size = live.window.end if live.state is State.ENDED else length(self._followed.job, live.stream)
            worker = None
            if size is None or self.offset < size:
                worker = self._source()
            elif self._followed.end_is_sure:
                return nothing(self.offset, size, cut=live.cut)
            if worker is None:
                self._awaited = live.more(self)
                await self._awaited
            elif (chunk := await self._pull(worker)) is not None:
                return chunk
        raise self.error

    def _from_window(self) -> Chunk | None:
        live = self._live
        data = live.window.read(self.offset, READ_MAX_BYTES)
        if not data:
            return None
        self._caught_up = True
        end = live.state is State.ENDED and self.offset + len(data) == live.window.end and self._followed.end_is_sure
        return Chunk(data, self.offset, end, live.window.end, live.cut if end else "")

    def _give(self, chunk: Chunk) -> Chunk:
        self._reading = self._fresh = False
        self.offset = chunk.next_offset
        if not chunk.end:
            self._live.came_to(self.offset)
            return chunk
        self.close()
        return judged(chunk, self._followed.job, self._live.stream)

    def _end(self, reason: Failure) -> Failure:
        self._reading = False
        assert isinstance(reason.value, Exception)
        self.fail(reason.value)
        assert self.error is not None
        return Failure(self.error.with_traceback(None))  # the frames of a traceback would keep this follower

    def _source(self) -> Worker | None:
        """The worker to call for the next bytes now; ``None``: wait. Begins the shared stream if it is to bring them.

        Raises the error that ends this follower.
        """
        live = self._live
        if self._fresh and isinstance(live.refusal, Busy):
            raise live.refusal
        if self.offset < live.window.start:
            self._caught_up = False
        by_stream = self._caught_up and live.refusal is None
        if live.flows_to(self.offset) and (by_stream or self.offset == live.window.end):
            live.came_to(self.offset)
            return None
        if live.retries.pending:
            return None
        job, worker = self._followed.job, self._followed.worker
        if self._followed.void:
            raise NotFound("job", job.id)
        if job.state is JobState.QUEUED:
            return None  # a change of the job comes first
        if worker is None and job.state is JobState.LOST:
            raise gone(job)
        if worker is None:
            self._failed(without_worker(job))
        elif not self._followed.reach.registry.presences.of(worker.id).is_online:
            self._failed(self._followed.reach.error(worker))
        elif by_stream and not job.over:
            live.follow(worker, self.offset)
            return self._source()  # it may have been refused
        else:
            return worker
        return None

    async def _pull(self, worker: Worker) -> Chunk | None:
        """Read by a call to the worker; ``None``: the call brought nothing."""
        live, job = self._live, self._followed.job
        self._awaited = live.client.read_output(worker, job.id_on_worker, live.stream, self.offset, READ_MAX_BYTES)
        try:
            chunk: Chunk = await self._awaited
        except Exception as error:
            self._pull_failed(error, job)
            return None
        if chunk.offset != self.offset:
            self._failed(WorkerFault(worker.name, f"output of {chunk.offset}, not {self.offset}"))
            return None
        has_news = chunk.data or (chunk.end and self._followed.end_is_sure)
        if not has_news and self._followed.job.over:
            self._failed(Unavailable(f"the output of job {job.id!r} has not come to its end"))
            return None
        self._caught_up = not chunk.data or chunk.next_offset >= chunk.size
        if self._caught_up:
            live.refusal = None  # the stream is tried again
        if not has_news:
            return None
        live.retries.succeeded()
        return chunk if self._followed.end_is_sure else evolve(chunk, end=False, cut="")

    def _pull_failed(self, error: Exception, asked: Job) -> None:
        """Handle the failure of a call; ``asked`` is the job as it was when its worker was asked."""
        job = self._followed.job
        if isinstance(error, NotFound) and job.over:
            if asked.over:
                raise no_record(job)
            return  # the worker may have answered before the job began
        if not isinstance(error, SchedulerError | CancelledError):
            self._log.failure("reading output of job {job_id} went wrong", job_id=job.id)
        self._failed(error)

    def _failed(self, error: Exception) -> None:
        """Raise ``error`` if it ends this follower, else schedule a retry."""
        retries = self._live.retries
        if gives_up(error, self._followed.job.over, self._fresh, retries.failing_for(error)):
            raise error
        retries.failed(error)
