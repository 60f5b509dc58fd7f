"""The server's side of a stream: ``StreamJob`` on a worker, and a raw follow of the HTTP API."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from scheduler.errors import DeadlineExceeded, NotFound, SchedulerError
from scheduler.interfaces import Accepted, IOutputReader
from scheduler.messages import Chunk
from scheduler.model import Job, Stream
from tests.simulation.flows import Flow

if TYPE_CHECKING:
    from tests.simulation.world import World

#: Seconds that a worker waits for the start of a job whose output is requested, once the start arrived.
START_DEADLINE = 10.0
#: Looks at a job whose start may be on the way, and the seconds between two of them.
START_LOOKS, START_RECHECK = 20, 0.1


class OutputCutShort(Exception):
    """The body of an HTTP response ended without its proper end."""


def serve_stream(
    jobs: Any, flow: Flow, job_id: str, stream: Stream, offset: int, size: int, starting: bool, looks: int = START_LOOKS
) -> None:
    """Serve ``StreamJob`` from the jobs of a worker, ``size`` bytes a message: see ``scheduler.rpc.worker_server``."""
    sending = _JobStream(jobs, flow, job_id, stream, offset, size)
    watching: Deferred[Callable[[], None]] = jobs.watch_output(job_id, stream, sending.send)
    give_up = flow.after(START_DEADLINE, watching.cancel)

    def begun(unwatch: Callable[[], None]) -> None:
        give_up.cancel()
        sending.unwatch = unwatch
        flow.on_room, flow.on_gone = sending.send, sending.close
        sending.send()

    def failed(reason: Failure) -> None:
        if give_up.active():
            give_up.cancel()
        error = reason.value
        if isinstance(error, NotFound) and starting and looks:
            again = flow.after(
                START_RECHECK, partial(serve_stream, jobs, flow, job_id, stream, offset, size, starting, looks - 1)
            )
            flow.on_gone = again.cancel
            return
        flow.fail(error if isinstance(error, SchedulerError) else DeadlineExceeded("StreamJob", START_DEADLINE))

    flow.on_gone = watching.cancel
    watching.addCallbacks(begun, failed)


class _JobStream:
    """A stream of a job, which is sent as far as there is room for it."""

    def __init__(self, jobs: Any, flow: Flow, job_id: str, stream: Stream, offset: int, size: int) -> None:
        self.unwatch: Callable[[], None] = _nothing
        self._jobs = jobs
        self._flow = flow
        self._job_id = job_id
        self._stream = stream
        self._offset = offset
        self._size = size

    def send(self) -> None:
        """Send everything that exists now."""
        while self._flow.room:
            try:
                chunk: Chunk = self._jobs.read_output_thd(self._job_id, self._stream, self._offset, self._size)
            except SchedulerError as error:
                self._flow.fail(error)
                self.close()
                return
            if chunk.data or chunk.end:
                self._flow.send(chunk)
                self._offset = chunk.next_offset
            if chunk.end:
                self._flow.finish()
                self.close()
                return
            if not chunk.data:
                return

    def close(self) -> None:
        """Watch no more."""
        self.unwatch()


class RawFollow:
    """A raw follow of the HTTP API (``scheduler.api.streams``). Without an end of the reader, the body has none."""

    def __init__(self, reader: IOutputReader, flow: Flow, leave: Callable[[], None]) -> None:
        """``leave`` is called when it is over."""
        self._reader = reader
        self._leave = leave
        self._flow = flow
        self._reading = False
        self._over = False
        flow.on_room, flow.on_gone = self.pull, self.close
        self.pull()

    def pull(self) -> None:
        """Read, one chunk at a time, while the client takes the chunks."""
        while self._flow.room and not self._reading and not self._over:
            self._reading = True
            self._reader.read().addCallbacks(self._got, self._lost)

    def _got(self, chunk: Chunk) -> None:
        self._reading = False
        if self._over:
            return
        if chunk.data:
            self._flow.send((chunk.offset, chunk.data))
        if not chunk.end:
            self._flow.on_room()
            return
        self.close()
        if chunk.cut:
            self._flow.fail(OutputCutShort(chunk.cut))
        else:
            self._flow.finish()

    def _lost(self, reason: Failure) -> None:
        self._reading = False
        if not self._over:
            self.close()
            error = reason.value
            self._flow.fail(error if isinstance(error, Exception) else OutputCutShort())

    def close(self) -> None:
        """Release the reader."""
        if not self._over:
            self._over = True
            self._leave()
            self._reader.close()


def serve_follow(world: World, service: Any, flow: Flow, job_id: str, stream: Stream, offset: int) -> None:
    """``GET /v1/jobs/{id}/output?follow=1``."""
    try:
        reader = service.open_output(job_id, stream, offset)
    except SchedulerError as error:
        flow.fail(error)
    else:
        RawFollow(reader, flow, attend(world, job_id))


def serve_run(world: World, service: Any, flow: Flow, submit: Callable[[Any], Deferred[Accepted]]) -> None:
    """``POST /v1/jobs?follow=1``: the job is the first message, its stdout from the first byte on is the rest."""
    readers: list[IOutputReader] = []

    def open_output(job: Job) -> None:
        if not readers:
            readers.append(service.open_output(job.id, Stream.STDOUT, 0))

    def accepted(accepted: Accepted) -> Deferred[Job]:
        with contextlib.suppress(SchedulerError):  # it is raised below, if it is still so
            open_output(accepted.job)
        return accepted.answered

    submitting = submit(service).addCallback(accepted)

    def answered(job: Job) -> None:
        flow.send(job)
        try:
            open_output(job)
        except SchedulerError as error:
            flow.fail(error)
        else:
            RawFollow(readers[0], flow, attend(world, job.id))

    def failed(reason: Failure) -> None:
        for reader in readers:
            reader.close()
        error = reason.value
        flow.fail(error if isinstance(error, SchedulerError) else OutputCutShort())
        reason.trap(SchedulerError, CancelledError)

    flow.on_gone = submitting.cancel
    submitting.addCallbacks(answered, failed)
    submitting.addErrback(lambda reason: world.judge.crashed("the HTTP API", reason))


def attend(world: World, job_id: str) -> Callable[[], None]:
    """A client attends a job, for the present process of the scheduler, until the returned function is called."""
    scheduler = world.scheduler
    assert scheduler is not None
    attending = object()
    attended = world.judge.facts.attended
    attended[attending] = (scheduler.process, job_id, world.loop.now)
    return lambda: attended.pop(attending, None) and None


def _nothing() -> None:
    """Called for a stream that watches nothing yet."""
