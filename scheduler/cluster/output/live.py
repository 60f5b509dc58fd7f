"""The stream that all followers of one output share.

Followers pull: nothing is moved before one of them asks. A ``Live`` has at most one ``StreamJob`` call to the worker,
and a ``Window`` of the last bytes that came by it. ``scheduler.cluster.output.follower`` says when a follower reads
from the window, waits for the stream, or reads by calls of its own.

| state | the stream | left when | for |
| --- | --- | --- | --- |
| IDLE | does not run | a follower begins at the live end, or has read all there is and asks for more | STREAMING |
| STREAMING | runs | the fastest follower is more than half a window behind | HELD_UP |
| | | it is cut, or refused | RETRYING |
| | | the last follower leaves, or the job goes to another worker | IDLE |
| | | its last chunk arrives | ENDED |
| HELD_UP | runs, and its next chunk has to wait | a follower comes near | STREAMING |
| | | ``HELD_UP_MAX_SECONDS`` pass | IDLE |
| | | as from STREAMING | RETRYING, IDLE |
| RETRYING | does not run | a delay passes, or the worker or the job changes | IDLE |
| ENDED | is complete, and the window has its last bytes | never | |

The first stream starts at the offset of the first follower. A follower that finds the live end beyond the window moves
the stream there. The output of a job that has ended is read by calls, not by a stream.

A stream is held up because a window that moved on would make even the fastest follower read everything twice. Slower
followers hold up nobody: they fall out of the window and read by calls. No thread, here or on the worker, waits for a
client for long: a stream that is held up for too long is cancelled, and the window is emptied.

A stream that is cut is begun again at the offset that was reached. A chunk is taken only at the offset that is due. So
each follower gets a prefix of the output, whatever fails.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Protocol

from attrs import Factory, define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.cluster.output.failures import RETRY_MAX_SECONDS, Retries
from scheduler.cluster.output.window import Window
from scheduler.cluster.reach import Reach
from scheduler.errors import Busy, DeadlineExceeded, NotFound, SchedulerError, Unavailable, WorkerFault
from scheduler.interfaces import IOutputStream, IWorkerClient
from scheduler.messages import Chunk
from scheduler.model import Job, JobState, Stream, Worker

#: Seconds a stream may be held up by slow followers.
HELD_UP_MAX_SECONDS = 2.0


class State(Enum):
    """The states of the table above."""

    IDLE = "idle"
    STREAMING = "streaming"
    HELD_UP = "held up"
    RETRYING = "retrying"
    ENDED = "ended"


#: The states in which a stream runs.
_RUNNING = frozenset({State.STREAMING, State.HELD_UP})


class FollowerLike(Protocol):
    """The part of a follower that a ``Live`` uses."""

    offset: int

    def fail(self, error: Exception) -> None: ...


@define(eq=False)
class FollowedJob:
    """A job whose output is followed, as the registry knows it, with its worker."""

    reach: Reach
    _job: Job
    #: The id of the worker that it is filed under; ``None``: it has none yet.
    filed_under: str | None = None
    streams: dict[Stream, Live] = Factory(dict)

    @property
    def job(self) -> Job:
        """The job as it is known now, or was when it was last known."""
        self._job = self.reach.registry.jobs.find(self._job.id) or self._job
        return self._job

    @property
    def worker(self) -> Worker | None:
        return self.reach.registry.workers.find(self._job.worker_id)

    @property
    def void(self) -> bool:
        """Whether there is no such job: its start was given up before anything was sent."""
        return self.reach.registry.jobs.find(self._job.id) is None and not self._job.state.final

    @property
    def end_is_sure(self) -> bool:
        """Whether the end of a stream is that of all that the job wrote, unless it is marked as cut.

        A worker of an earlier version, which reports no features, does not mark it. With such a worker only the end
        of the job tells.
        """
        worker = self.worker
        return self.job.over or (worker is not None and bool(worker.features))


@define(eq=False, slots=False)
class Live:
    """The state machine of the table above. It exists from the first follower of a stream to the last."""

    _log = Logger()

    _clock: IReactorTime
    client: IWorkerClient
    followed: FollowedJob
    stream: Stream
    window: Window
    #: Is called with it when its last follower left; it is not used again.
    _on_empty: Callable[[Live], None]

    def __attrs_post_init__(self) -> None:
        self.state = State.IDLE
        #: In ENDED: why bytes may be missing, as the worker says; ``""``: none are.
        self.cut = ""
        #: Why the worker does not stream this output, so that followers read by calls; ``None``: it may.
        self.refusal: BaseException | None = None
        self.retries = Retries(self._clock, self._retry)
        self._over = self.followed.job.over
        # each follower, and the Deferred that it waits for, if it does
        self._followers: dict[FollowerLike, Deferred[None] | None] = {}
        # the stream that runs, the worker that it comes from, and when it began
        self._running: IOutputStream | None = None
        self._source = ""
        self._began_at = 0.0
        # number of the latest stream; calls that belong to an earlier one are ignored
        self._number = 0
        # in HELD_UP: fires when the next chunk may come, and the timer of the state
        self._held_up: tuple[Deferred[None], IDelayedCall] | None = None

    def job_changed(self) -> None:
        job, void = self.followed.job, self.followed.void
        if job.over and not self._over:
            self._over = True
            self.retries.succeeded()  # from now on followers wait for something else
        if void or job.worker_id != self._source:
            self._let_go()  # the job was not started on that worker
        if void or job.state is not JobState.STARTING:
            self.retries.now()

    def worker_changed(self) -> None:
        if self.retries.pending:
            self.retries.now()

    # -- followers

    def join(self, follower: FollowerLike) -> None:
        self._followers[follower] = None

    def leave(self, follower: FollowerLike) -> None:
        """Remove a follower. When the last one leaves, the stream is cancelled."""
        self._followers.pop(follower, None)
        if not self._followers:
            self._let_go()
            self.retries.cancel()
            self.window.reset(self.window.end)
            self._on_empty(self)

    def fail(self, error: Exception) -> None:
        for follower in list(self._followers):
            follower.fail(error)

    def more(self, follower: FollowerLike) -> Deferred[None]:
        """Fires when bytes came, the stream ended, or it is time to try again."""
        waiting: Deferred[None] = Deferred()
        self._followers[follower] = waiting
        return waiting

    def _wake(self) -> None:
        for follower, waiting in list(self._followers.items()):
            if waiting is not None and self._followers.get(follower) is waiting:
                self._followers[follower] = None
                waiting.callback(None)

    def _retry(self) -> None:
        if self.state is State.RETRYING:
            self._enter(State.IDLE)
        self._wake()

    # -- the stream

    def brings(self, offset: int) -> bool:
        """Whether the next chunk of the stream starts at that offset."""
        return self.state is State.STREAMING and offset == self.window.end and not self._over

    def flows_to(self, offset: int) -> bool:
        """Whether the stream runs, and will soon come to ``offset``, which is not behind it."""
        return self.state in _RUNNING and self.window.end <= offset <= self.window.end + self.window.capacity

    def follow(self, worker: Worker, offset: int) -> None:
        """Begin the stream: where the last one stopped if ``offset``, the live end, is near, else at ``offset``."""
        self._let_go()
        moved = offset > self.window.end + self.window.capacity
        if moved:
            self.window.reset(offset)
        number, job = self._number, self.followed.job
        starting = job.state is JobState.STARTING
        self.refusal = None
        self._source = worker.id
        self._began_at = self._clock.seconds()
        self._enter(State.STREAMING)
        try:
            self._running = self.client.stream_output(
                worker, job.id_on_worker, self.stream, self.window.end, partial(self._deliver, number), starting
            )
        except Exception:
            self._stopped(Failure(), number)
        else:
            self._running.finished.addBoth(self._stopped, number)
        if moved:
            self._wake()  # those who waited where it was

    def came_to(self, offset: int) -> None:
        """Let a stream that is held up go on if a follower at ``offset`` is near enough."""
        if self.state is State.HELD_UP and self._is_near(offset):
            self._enter(State.STREAMING)

    def _is_near(self, offset: int) -> bool:
        return self.window.end - offset <= self.window.capacity // 2

    def _deliver(self, number: int, chunk: Chunk) -> Deferred[None] | None:
        """Take a chunk. The next one has to wait for the Deferred that is returned."""
        if number != self._number:
            return None
        if chunk.offset != self.window.end:
            fault = WorkerFault(self.followed.job.worker_name or "", f"output of {chunk.offset}, not {self.window.end}")
            self._stopped(Failure(fault), number)
            return None
        self.window.append(chunk.data)
        self.retries.succeeded()
        if chunk.end:
            self.cut = chunk.cut
            self._running = None  # ends by itself
            self._let_go(State.ENDED)
        self._wake()
        if number != self._number or self._is_near(max(follower.offset for follower in self._followers)):
            return None
        self._enter(State.HELD_UP)
        go_on: Deferred[None] = Deferred()
        self._held_up = go_on, self._clock.callLater(HELD_UP_MAX_SECONDS, self._held_up_too_long)
        return go_on

    def _held_up_too_long(self) -> None:
        self._let_go()
        self.window.reset(self.window.end)
        self._wake()

    def _stopped(self, result: Failure | None, number: int) -> None:
        if number != self._number:
            return
        self._let_go()
        if self._clock.seconds() - self._began_at > RETRY_MAX_SECONDS:
            self.retries.succeeded()  # it ran for long
        job = self.followed.job
        reason = result or Failure(Unavailable("the output ended without its end"))
        error = reason.value
        assert error is not None
        if not isinstance(error, SchedulerError):
            self._log.failure("streaming output of job {job_id} went wrong", reason, job_id=job.id)
        self._enter(State.RETRYING)
        self.retries.failed(error)
        if isinstance(error, NotFound) and job.state is JobState.STARTING:
            return  # it overtook the start; when that is answered, it is tried again
        if isinstance(error, Busy) or not isinstance(error, Unavailable | DeadlineExceeded):
            self._log.warn("output of job {job_id} is not streamed: {why}", job_id=job.id, why=str(error))
            self.refusal = error
            self._wake()

    def _let_go(self, state: State = State.IDLE) -> None:
        """Cancel the stream, if one runs."""
        if self.state not in _RUNNING:
            return
        running, self._running = self._running, None
        self._number += 1
        self._enter(state)
        if running is not None:
            running.cancel()

    def _enter(self, state: State) -> None:
        self.state = state
        held_up, self._held_up = self._held_up, None
        if held_up is not None:
            go_on, timer = held_up
            if timer.active():
                timer.cancel()
            go_on.callback(None)
