"""Jobs that run only while a client attends them: the clients of each, and the stop of a job that nobody attends.

Theory of operation. A job with ``unattended_timeout`` is stopped when no client has followed its output or waited for
its end for that long. A client counts from when it opens an output or begins to wait until it closes the output or
stops waiting, at the latest when its connection is lost. Requests that are answered at once (a snapshot of the output,
``wait=0``) do not count.

A job and its later attempts share one timeout. A client that attends any of them attends the current attempt, and a new
attempt does not begin the timeout anew. The timeout begins when the job is first seen, which is after its commit, and
whenever the last client leaves. There is a timer only while it passes. If it ends while a start is under way, it begins
again with the answer to that start, because the client that submitted the job may be waiting for this answer. After a
restart of the scheduler the timeout begins anew, also for jobs that were submitted before. It also begins anew if its
timer fires too late: then the process or its machine was suspended, and requests of clients still wait in sockets.

This is the only owner of that state. A job without ``unattended_timeout`` has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from attrs import define
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.cluster.changes import Change, JobChanged
from scheduler.cluster.jobs.stops import Stops
from scheduler.cluster.registry import Registry
from scheduler.errors import SchedulerError
from scheduler.interfaces import IOutputReader
from scheduler.messages import Chunk
from scheduler.model import Job, JobState

T = TypeVar("T")

#: Seconds until a stop that could not even be recorded is tried again.
STOP_RETRY_INTERVAL_SECONDS = 5.0

#: Seconds by which a timer is late at most while this process runs.
TIMER_LATE_MAX_SECONDS = 1.0

#: Is called when a client attends a job no more; a second call does nothing.
Leave = Callable[[], None]


def reason(timeout: float) -> str:
    """The reason of a stop after no client attended the job for ``timeout`` seconds."""
    return f"stopped: no client followed it or waited for it for {timeout:g} s"


@define(eq=False)
class _Attended:
    """A job with its attempts, of which one has not ended."""

    #: The ids of the first attempt, and of the one that has not ended.
    first: str
    job_id: str
    timeout: float
    #: How many clients attend it.
    clients: int = 0
    #: While no client does, and the service runs.
    timer: IDelayedCall | None = None
    stopping: bool = False


class Attendance(Service):
    """Stops unattended jobs; there is one for each scheduler. ``clock`` runs the timers."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, registry: Registry, stops: Stops) -> None:
        self._clock = clock
        self._registry = registry
        self._stops = stops
        # by the id of the first attempt
        self._attended: dict[str, _Attended] = {}

    def startService(self) -> None:
        super().startService()
        for worker_id in (None, *self._registry.jobs.busy()):
            for job in self._registry.jobs.unfinished(worker_id):
                self._follow(job)
        for attended in self._attended.values():
            self._wait(attended)

    def stopService(self) -> None:
        """Stop no job any more, even if a shutdown disconnects its clients."""
        super().stopService()
        for attended in self._attended.values():
            self._stop_waiting(attended)

    @property
    def idle(self) -> bool:
        """Whether no job is known that needs a client."""
        return not self._attended

    def hear(self, change: Change) -> None:
        if isinstance(change, JobChanged):
            self._follow(change.last, is_gone=change.after is None)

    def _follow(self, job: Job, is_gone: bool = False) -> None:
        timeout = job.terms.unattended_timeout
        if timeout is None:
            return
        first = job.group_id or job.id
        attended = self._attended.get(first)
        if job.over or is_gone:
            if attended is not None and attended.job_id == job.id:  # else another attempt has followed
                self._stop_waiting(attended)
                del self._attended[first]
        elif attended is None:
            self._wait(self._attended.setdefault(first, _Attended(first, job.id, timeout)))
        else:
            attended.job_id = job.id
            if job.state is not JobState.STARTING:
                self._wait(attended)  # its time may have passed while it was starting

    # -- clients

    def attend(self, job_id: str) -> Leave:
        """Count a client that attends the job and all its attempts, until the returned function is called."""
        job = self._registry.jobs.find(job_id)
        if job is None or job.terms.unattended_timeout is None:
            return _nothing
        self._follow(self._registry.jobs.last_attempt(job_id))  # of one that was not heard of yet
        attended = self._attended.get(job.group_id or job.id)
        if attended is None:
            return _nothing
        attended.clients += 1
        self._stop_waiting(attended)
        left = False

        def leave() -> None:
            nonlocal left
            if not left:
                left = True
                attended.clients -= 1
                self._wait(attended)

        return leave

    def while_waiting(self, job_id: str, end: Deferred[T]) -> Deferred[T]:
        """Return ``end``, for which a client waits; the job is attended until it fires."""
        if end.called:
            return end
        leave = self.attend(job_id)

        def over(result: T) -> T:
            leave()
            return result

        return end.addBoth(over)

    def while_reading(self, job_id: str, reader: IOutputReader) -> IOutputReader:
        """A reader that passes everything on to ``reader``; the job is attended until the reader is over."""
        leave = self.attend(job_id)
        return reader if leave is _nothing else _AttendingReader(reader, leave)

    # -- the time

    def _wait(self, attended: _Attended, seconds: float | None = None) -> None:
        """Start the timer, if no client attends the job, for ``seconds`` or the job's timeout."""
        known = self._attended.get(attended.first) is attended
        if self.running and known and not attended.clients and attended.timer is None:
            wait = attended.timeout if seconds is None else seconds
            attended.timer = self._clock.callLater(wait, self._expire, attended, self._clock.seconds() + wait)

    @staticmethod
    def _stop_waiting(attended: _Attended) -> None:
        if attended.timer is not None:
            attended.timer.cancel()
            attended.timer = None

    def _expire(self, attended: _Attended, due: float) -> None:
        attended.timer = None
        if self._clock.seconds() - due > TIMER_LATE_MAX_SECONDS:
            self._wait(attended)
            return
        job = self._registry.jobs.get(attended.job_id)
        if job.state is JobState.STARTING:
            return  # the client that submitted it may wait for the answer, and follow it then
        if attended.stopping or job.stop_requested_at is not None:
            return  # that is kept, and carried out as soon as possible
        why = reason(attended.timeout)
        self._log.info("job {job_id} is {why}", job_id=job.id, why=why)
        attended.stopping = True
        Deferred.fromCoroutine(self._stops.stop(job, why=why)).addBoth(self._stopped, attended)

    def _stopped(self, result: Job | Failure, attended: _Attended) -> None:
        attended.stopping = False
        if not isinstance(result, Failure):
            return
        if result.check(SchedulerError) is None:
            self._log.failure("stopping job {job_id} went wrong", result, job_id=attended.job_id)
        else:
            self._log.warn("stopping job {job_id}: {why}", job_id=attended.job_id, why=result.getErrorMessage())
        self._wait(attended, STOP_RETRY_INTERVAL_SECONDS)


@implementer(IOutputReader)
@define(eq=False)
class _AttendingReader:
    """Passes everything on, and calls ``leave`` when it is over."""

    _reader: IOutputReader
    _leave: Leave

    @property
    def offset(self) -> int:
        return int(self._reader.offset)

    def read(self) -> Deferred[Chunk]:
        return self._reader.read().addBoth(self._read)

    def close(self) -> None:
        self._reader.close()
        self._leave()

    def _read(self, result: Chunk | Failure) -> Chunk | Failure:
        if isinstance(result, Failure) or result.end:
            self._leave()
        return result


def _nothing() -> None:
    """Do nothing, for a job that nobody has to attend."""
