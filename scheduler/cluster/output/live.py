"""What all followers of one stream of one job share.

Theory of operation. Readers pull: nothing is moved before somebody asks for it.

A ``Tail`` has one ``StreamJob`` to the worker and a ``Window`` of the last bytes
that came by it. A reader inside the window is served from it. One behind it
pulls by ``ReadOutput``, one call in flight, until it is back in; one that finds
the live end beyond the window moves the stream there. The first reader's stream
starts at that reader's own offset, which is the fastest way to it. The output
of a job that has ended is pulled.

The stream is held up while even the fastest reader is more than half a window
behind: a window that slid on would only make it read everything twice. Slower
ones hold nobody up: they fall out of the window and pull. Yet no thread, here
or on the worker, waits for a client: a stream held up for ``HELD_UP_MAX_SECONDS`` is let
go, and the window with it, and the readers pull when they ask again.

A job whose start is on its way may be asked for already; its worker has that
wait for the start, or does not know the job yet.

A stream or a call that fails is tried again where it stopped, after a while
that grows, or at once when the worker changed, or the job did and is not about
to be started: ``hold`` and ``wake``. What is delivered is taken only at the
very offset it must have; so, whatever fails, what a reader gets is a prefix of
the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.cluster.output.window import Window
from scheduler.cluster.reach import Reach
from scheduler.errors import Busy, DeadlineExceeded, NotFound, SchedulerError, Unavailable, WorkerFault
from scheduler.interfaces import IOutputStream, IWorkerClient
from scheduler.messages import Chunk
from scheduler.model import Job, JobState, Stream, Worker

#: Seconds a stream may be held up by slow readers.
HELD_UP_MAX_SECONDS = 2.0

#: Seconds before what failed is tried again: the first time, and the most it grows to.
RETRY_FIRST_SECONDS, RETRY_MAX_SECONDS = 0.1, 5.0


class Follower(Protocol):
    """What a tail knows of a reader."""

    offset: int

    def advance(self) -> None:
        """Something changed: bytes came, or what failed may be tried again."""

    def unfollow(self, reason: Failure) -> None:
        """The stream can't be had, so it is no way to the next bytes."""

    def fail(self, error: Exception) -> None:
        """It is over."""


class Tail:
    """One for each (job, stream) that is followed, from its first follower to its last."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        client: IWorkerClient,
        reach: Reach,
        job: Job,
        stream: Stream,
        window: Window,
        on_empty: Callable[[Tail], None],
    ) -> None:
        """``on_empty`` is called with it when its last follower left; it is not used again."""
        self.client = client
        self.stream = stream
        self.window = window
        #: The window reaches to the end of the stream; and why something may be missing all the same, if it may.
        self.ended = False
        self.cut = ""
        self._clock = clock
        self.reach = reach
        self._job = job
        self._final = job.over
        self._on_empty = on_empty
        self._followers: dict[Follower, None] = {}

        self._running: IOutputStream | None = None
        # id of the worker that it comes from
        self._source = ""
        self._started_at = 0.0
        # what belongs to a stream that was let go is told by the number of its start
        self._starts = 0
        self._held_up: Deferred[None] | None = None
        self._patience: IDelayedCall | None = None

        self._retry: IDelayedCall | None = None
        self._delay = RETRY_FIRST_SECONDS
        # when the first error of each kind came, since there was progress
        self._failing: dict[type, float] = {}

    # -- the job and its worker

    @property
    def job(self) -> Job:
        """As it is known now, or was when it was last known."""
        self._job = self.reach.registry.find_job(self._job.id) or self._job
        return self._job

    @property
    def void(self) -> bool:
        """The job never came to be: it is known no more, and had no end."""
        return self.reach.registry.find_job(self._job.id) is None and not self._job.state.final

    @property
    def worker(self) -> Worker | None:
        """The job's, if it is among those known."""
        return self.reach.registry.find_worker(self._job.worker_id)

    @property
    def end_is_sure(self) -> bool:
        """Whether an end of the stream is one of all that the job wrote, where nothing else is said of it.

        A worker of an earlier version, which reports no features, does not say that output was cut; the
        job's end, when it reports that, does.
        """
        worker = self.worker
        return self.job.over or (worker is not None and bool(worker.features))

    def job_changed(self) -> None:
        """Look at the job again."""
        if self.job.over and not self._final:
            self._final = True
            self.progressed()  # what is waited for is another thing now
        if self._running is not None and self.job.worker_id != self._source:
            self._let_go()  # its start came to nothing there, and goes to another
        if self.void or self.job.state is JobState.QUEUED:
            self._let_go()  # its start never left for the worker that is asked
        elif self.job.state is JobState.STARTING:
            return  # its start is about to leave
        self.wake()

    # -- followers

    def join(self, follower: Follower) -> None:
        """Until it leaves."""
        self._followers[follower] = None

    def leave(self, follower: Follower) -> None:
        """The last one turns off the light."""
        self._followers.pop(follower, None)
        if not self._followers:
            self._let_go()
            self._stop_waiting()
            self._on_empty(self)

    def fail(self, error: Exception) -> None:
        """It is over, for all."""
        for follower in list(self._followers):
            follower.fail(error)

    # -- trying again

    @property
    def held(self) -> bool:
        """Something failed, and it is not time yet to try again."""
        return self._retry is not None

    def failing_for(self, error: BaseException) -> float:
        """Seconds since the first error of that kind that nothing came after."""
        now = self._clock.seconds()
        return now - self._failing.get(type(error), now)

    def hold(self, error: BaseException) -> None:
        """This failed: nothing is tried before a while has passed or something changed."""
        self._failing.setdefault(type(error), self._clock.seconds())
        if self._retry is None:
            self._retry = self._clock.callLater(self._delay, self.wake)
            self._delay = min(2 * self._delay, RETRY_MAX_SECONDS)

    def wake(self) -> None:
        """Try again now."""
        self._stop_waiting()
        self._advance()

    def progressed(self) -> None:
        """The worker gave something: what fails next is the first failure."""
        self._failing.clear()
        self._delay = RETRY_FIRST_SECONDS

    def _stop_waiting(self) -> None:
        retry, self._retry = self._retry, None
        if retry is not None and retry.active():
            retry.cancel()

    def _advance(self) -> None:
        for follower in list(self._followers):
            follower.advance()

    # -- the stream

    def reaches(self, offset: int) -> bool:
        """Whether the stream runs, and will soon come to an offset that is not behind it."""
        return self._running is not None and self.window.end <= offset <= self.window.end + self.window.capacity

    def follow(self, worker: Worker, offset: int) -> None:
        """Have the stream run to ``offset``, the live end, from where it is if that is near, else from there."""
        self._let_go()
        moved = offset > self.window.end + self.window.capacity
        if moved:
            self.window.reset(offset)
        start = self._starts
        self._source = worker.id
        self._started_at = self._clock.seconds()
        try:
            self._running = self.client.stream_output(
                worker, self._job.id_on_worker, self.stream, self.window.end, partial(self._deliver, start)
            )
        except Exception:
            self._stopped(Failure(), start)
        else:
            self._running.finished.addBoth(self._stopped, start)
        if moved:
            self._advance()  # those who waited where it was

    def came_to(self, offset: int) -> None:
        """A follower came so far: if the stream is held up for want of that, it goes on."""
        if self.window.end - offset <= self._slack:
            self._go_on()

    @property
    def _slack(self) -> int:
        return self.window.capacity // 2

    def _deliver(self, start: int, chunk: Chunk) -> Deferred[None] | None:
        if start != self._starts:
            return None
        if chunk.offset != self.window.end:
            fault = WorkerFault(self._job.worker_name or "", f"output of {chunk.offset}, not {self.window.end}")
            self._stopped(Failure(fault), start)
            return None
        self.window.append(chunk.data)
        self.progressed()
        if chunk.end:
            self.ended, self.cut = True, chunk.cut
            self._forget_stream()  # it ends by itself
        self._advance()
        return self._pressure() if start == self._starts else None

    def _pressure(self) -> Deferred[None] | None:
        """What the next chunk must wait for: any reader near enough to want it soon."""
        fastest = max(follower.offset for follower in self._followers)
        if self.window.end - fastest <= self._slack:
            return None
        if self._held_up is None:
            self._held_up = Deferred()
            self._patience = self._clock.callLater(HELD_UP_MAX_SECONDS, self._park)
        return self._held_up

    def _go_on(self) -> None:
        held_up, self._held_up = self._held_up, None
        if held_up is not None:
            assert self._patience is not None
            if self._patience.active():
                self._patience.cancel()
            held_up.callback(None)

    def _park(self) -> None:
        self._let_go()
        self.window.reset(self.window.end)
        self._advance()

    def _stopped(self, result: Failure | None, start: int) -> None:
        if start != self._starts:
            return
        self._let_go()
        if self._clock.seconds() - self._started_at > RETRY_MAX_SECONDS:
            self.progressed()  # it was fine
        reason = result or Failure(Unavailable("the output ended without its end"))
        if not reason.check(SchedulerError):
            self._log.failure("streaming output of job {job_id} went wrong", reason, job_id=self._job.id)
        assert reason.value is not None
        self.hold(reason.value)
        if reason.check(NotFound) and self.job.state is JobState.STARTING:
            return  # this was faster than the start; it is tried again when that is answered
        if reason.check(Busy) or not reason.check(Unavailable, DeadlineExceeded):
            self._log.warn("output of job {job_id} is not streamed: {why}", job_id=self._job.id, why=str(reason.value))
            for follower in list(self._followers):
                follower.unfollow(reason)

    def _let_go(self) -> None:
        """Cancel the stream, if one runs."""
        running = self._running
        self._forget_stream()
        if running is not None:
            running.cancel()

    def _forget_stream(self) -> None:
        self._running = None
        self._starts += 1
        self._go_on()
