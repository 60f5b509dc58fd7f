"""The interfaces at which the parts of a worker meet. Tests put doubles there.

::

    rpc    -> IJobRunner       <- worker.jobs
    worker -> ISchedulerClient <- rpc.scheduler_client
    worker -> IJobs            <- worker.jobs
    worker -> IHeldId          <- worker.held_id
    worker -> ICommitCount     <- worker.commit_count
    rpc    -> IIdentity        <- worker.identity

The rules of ``scheduler.interfaces`` about threads, errors and deadlines hold here, too.
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
    """The requests of the scheduler to a worker."""

    def start(
        job_id: str, spec: JobSpec, created_at: float | None, key: RequestKey | None = None
    ) -> Deferred[JobStatus]:
        """Start a job once. A repeated id gets the job's present status. ``job_id`` ``""``: choose an id.

        ``created_at`` and ``key`` are kept for the record.

        A job that may not or can't run gets the status FAILED with the reason. ``Invalid``: an invalid id.
        ``Conflict``: the id was used up before, or sealed. ``ShuttingDown``. ``Unavailable``: no spool can be used, and
        nothing was started.
        """

    def stop(job_id: str, wait: bool) -> Deferred[JobStatus]:
        """Stop a job; its present status. With ``wait``, fires at its end, without a limit. ``NotFound``.

        The remaining processes of an ended job are looked for again, and killed again if that is permitted.
        ``leftover`` in this answer has the present ones, unlike in ``query``.
        """

    def signal(job_id: str, signal: str, to: str) -> Deferred[None]:
        """Send a signal, once, to the main process of a running job, or to its whole tree.

        ``signal`` is one of ``SIGNAL_NAMES``, ``to`` one of ``SIGNAL_TARGETS``. ``NotFound``. ``JobNotRunning``: also
        if the target has just ended. ``Conflict``: some processes, named in the message, could not be signalled.
        ``Unavailable``: nothing was sent.
        """

    def remove(job_id: str) -> Deferred[None]:
        """Remove an ended job with its output, acknowledged or not. Its id stays used, so no start of it runs.

        An unknown job counts as removed. ``JobNotEnded``; ``Unavailable``: it is still there.
        """

    def query(job_id: str) -> JobStatus:
        """The status of a job whose start was answered; ``NotFound``. May be called in any thread."""

    def seal(job_id: str) -> Deferred[JobStatus]:
        """The status of a job; or ``NotFound``, and then it is never started, which is durable.

        For a job whose start is in progress, fires once that is over. ``Unavailable``: the disk can't record the seal.
        """

    def read_output_thd(job_id: str, stream: Stream, offset: int, size: int) -> Chunk:
        """At most ``size`` bytes of the spool's present output; 0: only its length.

        The end has ``cut`` if the job's output was not kept completely. ``NotFound``, ``OffsetBeyondEnd``,
        ``OutputPruned``.
        """

    def watch_output(job_id: str, stream: Stream, notify: Callable[[], None]) -> Deferred[Callable[[], None]]:
        """Call ``notify`` whenever the stream may have grown or ended. Fires with a function that ends this.

        For a job whose start is in progress, fires once that is over, or fails like the start. ``NotFound``. ``notify``
        is called on the reactor thread and must not block.
        """


class ISchedulerClient(Interface):
    """A worker's calls to its scheduler. Every method may fail with ``Unreachable`` and ``DeadlineExceeded``."""

    def register(registration: Registration) -> Deferred[Registered]:
        """Register this worker. ``Invalid``, ``Refused``, ``Conflict``."""

    def deregister(worker_id: str, nonce: str) -> Deferred[None]:
        """Deregister this worker. ``NotFound``."""

    def heartbeat(heartbeat: Heartbeat) -> Deferred[HeartbeatAnswer]:
        """Send a heartbeat. ``NotFound`` means register again."""

    def hang_up() -> None:
        """Close the connection: a call under way fails with ``Unreachable``, and the next one makes another."""

    def on_cut(notify: Callable[[], None]) -> None:
        """Call ``notify`` on the reactor thread when the other end has ended an existing connection.

        It may be called during a call, which then fails. A connection that this side closed is not reported, nor one
        that exists without answers.
        """


class IIdentity(Interface):
    """The identity of this worker and of its process."""

    folder_id = Attribute("The secret of the state folder, str.")
    nonce = Attribute("The nonce of this process, str.")
    worker_id = Attribute('The id given by the scheduler, str; ``""``: none yet. The link sets it.')

    def check_thd(worker_id: str, nonce: str, scheduler: str) -> None:
        """Check a call that is meant for this worker id and nonce, each ``""`` if not given.

        ``Misdirected``: they are not this process's. ``scheduler`` is the nonce of the calling process, or ``""``.
        """

    def on_new_scheduler(notify: Callable[[], None]) -> None:
        """Call ``notify``, on the reactor thread, after the first call of each process of the scheduler."""


class IHeldId(Interface):
    """Keeps the id that the scheduler gave to this worker."""

    def read() -> str:
        """The id given to the previous process; ``""`` if there is none, or it can't be read."""

    def write(worker_id: str) -> None:
        """Keep the id for the next process. A failure is logged, and the next process then asks for a new id."""


class ICommitCount(Interface):
    """Keeps the highest count of commits that a scheduler has told this worker."""

    def read() -> int:
        """The last written count, of this process or the previous one; 0 if there is none, or it can't be read."""

    def write(count: int) -> None:
        """Keep the count for the next process, a moment later. A failure is logged."""


class IJobs(Interface):
    """The jobs of a worker, as its link to the scheduler sees them."""

    def running() -> tuple[str, ...]:
        """Ids of all jobs that were begun and have not ended. A start in progress may still fail."""

    def is_starting() -> bool:
        """Whether any start is in progress."""

    def unacknowledged() -> tuple[JobReport, ...]:
        """Ended jobs the scheduler has not acknowledged, oldest first, without specs."""

    def describe(job_ids: Iterable[str]) -> Deferred[tuple[JobReport, ...]]:
        """Reports of these jobs, in that order, with specs except stdin and script. Unknown ids are left out. May read
        the disk.
        """

    def acknowledge(job_ids: Iterable[str]) -> None:
        """These ended jobs are durable at the scheduler."""

    def report_again() -> None:
        """From now on all ended jobs here are ``unacknowledged``, even those acknowledged before.

        Each must be acknowledged once more. The next process does not know about this, so it must be asked again.
        """

    def expect_acknowledgements(expected: bool) -> None:
        """Set whether the scheduler ever acknowledges an end. If not, ended jobs are removed all the same."""

    def on_end(notify: Callable[[], None]) -> None:
        """Call ``notify`` after each end of a job, and when ``refusing`` has changed."""

    def refusing() -> str:
        """A sentence why no job is started at present; ``""`` if jobs are started."""
