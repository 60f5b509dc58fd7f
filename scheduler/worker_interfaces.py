"""The seams of a worker: where one part of it meets another, and a fake can stand in.

::

    rpc    -> IJobRunner       <- worker.runner
    worker -> ISchedulerClient <- rpc.scheduler_client
    worker -> IJobs            <- worker.jobs
    worker -> IHeldId          <- worker.held_id
    worker -> ICommitCount     <- worker.commit_count
    rpc    -> IIdentity        <- worker.identity

What ``scheduler.interfaces`` says of threads, errors and deadlines holds here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from scheduler.messages import (
    Chunk,
    Heartbeat,
    HeartbeatAnswer,
    JobReport,
    JobStatus,
    Registered,
    Registration,
    RequestKey,
)
from scheduler.model import JobSpec, Stream


class IJobRunner(Interface):
    """All that the scheduler can ask of a worker."""

    def start(
        job_id: str, spec: JobSpec, created_at: float | None, key: RequestKey | None = None
    ) -> Deferred[JobStatus]:
        """Start once; the same id again is answered with its status now. ``job_id`` ``""``: choose one.

        ``created_at`` and ``key`` are kept for the record.

        What may not or can't run is a status FAILED with the reason. ``Invalid`` for an id
        that is none; ``Conflict`` for one that was used up before, or sealed; ``ShuttingDown``;
        ``Unavailable`` when no spool can be used, and then nothing was started.
        """

    def stop(job_id: str, wait: bool) -> Deferred[JobStatus]:
        """Of an ended job its status. With ``wait`` fires at its end, without limit. ``NotFound``.

        The processes that are left of an ended job are looked for again, and killed again where that is permitted;
        ``leftover`` of the answer has those that are there now, whatever ``query`` goes on to say.
        """

    def signal(job_id: str, signal: str, to: str) -> Deferred[None]:
        """Send a signal, once, to the main process of a job that runs, or to its whole tree.

        ``signal`` is one of ``SIGNAL_NAMES``, ``to`` one of ``SIGNAL_TARGETS``. ``NotFound``; ``JobNotRunning``, also
        where those that are meant have just ended; ``Conflict``: some processes could not be sent it, and the message
        says which; ``Unavailable``: nothing was sent.
        """

    def remove(job_id: str) -> Deferred[None]:
        """Remove an ended job with its output, acknowledged or not; its id stays used, so no start of it runs.

        One that is not there is removed already. ``JobNotEnded``; ``Unavailable``: it is still there.
        """

    def query(job_id: str) -> JobStatus:
        """Of a job whose start was answered; ``NotFound``. It may be called in any thread."""

    def seal(job_id: str) -> Deferred[JobStatus]:
        """Its status; or ``NotFound``, and then, durably, it is never started.

        Of a job whose start is under way the status once that is over. ``Unavailable``: the disk does not take it.
        """

    def read_output_thd(job_id: str, stream: Stream, offset: int, size: int) -> Chunk:
        """What the spool holds now, at most ``size`` bytes; 0: the length alone.

        With the end comes ``cut``, if the job's output was not kept whole.
        ``NotFound``, ``OffsetBeyondEnd``, ``OutputPruned``.
        """

    def watch_output(job_id: str, stream: Stream, notify: Callable[[], None]) -> Deferred[Callable[[], None]]:
        """Call ``notify`` whenever the stream may have grown or ended; answers a function that ends that.

        Of a job whose start is under way it fires once that is over, and fails as it does. ``NotFound``.
        ``notify`` is called on the reactor thread and must not block.
        """


class ISchedulerClient(Interface):
    """A worker's calls to its scheduler. Every method may fail with ``Unreachable`` and ``DeadlineExceeded``."""

    def register(registration: Registration) -> Deferred[Registered]:
        """``Invalid``, ``Refused``, ``Conflict``."""

    def deregister(worker_id: str, nonce: str) -> Deferred[None]:
        """``NotFound``."""

    def heartbeat(heartbeat: Heartbeat) -> Deferred[HeartbeatAnswer]:
        """``NotFound`` means register again."""

    def hang_up() -> None:
        """Close the connection: a call under way fails with ``Unreachable``, and the next one makes another."""

    def on_cut(notify: Callable[[], None]) -> None:
        """Call ``notify``, on the reactor thread, when a connection that was there is gone, as its other end ended it.

        It may be called while a call is under way, which fails then. Nothing is said of a connection that this side
        closed, nor where no answer comes on one that is there.
        """


class IIdentity(Interface):
    """Which worker, and which process of it, this is."""

    folder_id = Attribute("Secret of the state folder, str.")
    nonce = Attribute("Of this process, str.")
    worker_id = Attribute('As the scheduler said last, str; ``""``: it has not yet. The link sets it.')

    def check_thd(worker_id: str, nonce: str, scheduler: str) -> None:
        """A call came that is meant for the worker and the process of these names, each ``""`` where it does not say.

        ``Misdirected``: they are not this one's. ``scheduler`` is the nonce of the process that calls, or ``""``.
        """

    def on_new_scheduler(notify: Callable[[], None]) -> None:
        """Call ``notify``, on the reactor thread, after the first call of each process of the scheduler."""


class IHeldId(Interface):
    """Where a worker keeps the id that its scheduler gave it."""

    def read() -> str:
        """The id that the process before this one was given; ``""``: there is none, or it can't be read."""

    def write(worker_id: str) -> None:
        """Keep it for the next process. Where that fails, it is logged, and the next process asks for a new id."""


class ICommitCount(Interface):
    """Where a worker keeps the highest count of commits that a scheduler has told it."""

    def read() -> int:
        """As it was written last, by this process or the one before it; 0: there is none, or it can't be read."""

    def write(count: int) -> None:
        """Keep it for the next process, a moment later. Where that fails, it is logged."""


class IJobs(Interface):
    """What a worker's membership needs to know of its jobs."""

    def running() -> tuple[str, ...]:
        """Ids of all jobs that were begun and have not ended. A start that is not over may still come to nothing."""

    def is_starting() -> bool:
        """Whether any start is not over."""

    def unacknowledged() -> tuple[JobReport, ...]:
        """Ended jobs the scheduler has not acknowledged, oldest first, without specs."""

    def describe(job_ids: Iterable[str]) -> Deferred[tuple[JobReport, ...]]:
        """In that order, with specs, but for stdin and script; ids not known are left out. It may read the disk."""

    def acknowledge(job_ids: Iterable[str]) -> None:
        """The scheduler keeps these now."""

    def report_again() -> None:
        """From now on all ended jobs that are here are ``unacknowledged``, those too that were acknowledged before.

        Each is to be acknowledged once more. The next process does not know of it: it has to be asked again.
        """

    def expect_acknowledgements(expected: bool) -> None:
        """Whether the scheduler ever acknowledges an end. If not, ended jobs are removed all the same."""

    def on_end(notify: Callable[[], None]) -> None:
        """Call ``notify`` after each end of a job, and when ``refusing`` has changed."""

    def refusing() -> str:
        """Why no job is started at present, a sentence; ``""``: jobs are started."""
