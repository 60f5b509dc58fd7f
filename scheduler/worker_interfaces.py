"""The seams of a worker: interfaces between its parts, and the places where a fake can stand in.

::

    rpc    -> IJobRunner       <- worker.runner
    worker -> ISchedulerClient <- rpc.scheduler_client
    worker -> IJobs            <- worker.jobs
    worker -> IHeldId          <- worker.own_ids
    worker -> ICommitCount     <- worker.commit_count
    rpc    -> IOwnIds          <- worker.own_ids

The rules of ``scheduler.interfaces`` for threads, errors and deadlines hold here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from scheduler.messages import Chunk, Heartbeat, HeartbeatAnswer, JobReport, JobStatus, Registered, Registration
from scheduler.model import JobSpec, Stream
from scheduler.request_keys import RequestKey


class IJobRunner(Interface):
    """The scheduler's requests to a worker. Raises ``NotFound`` for an unknown job, unless a method says otherwise."""

    def start(
        job_id: str, spec: JobSpec, created_at: float | None, key: RequestKey | None = None
    ) -> Deferred[JobStatus]:
        """Start a job once. A repeated start is answered with the job's status. ``job_id`` ``""``: choose an id.

        ``created_at`` and ``key`` are kept for later reports.

        A job that may not or can't run is answered with the state FAILED and the reason. ``Invalid``: the id is
        malformed. ``Conflict``: it was used up before, or sealed. ``Unavailable``: the machine can't start the job now,
        and nothing was started. ``ShuttingDown``: the worker stops.
        """

    def stop(job_id: str, wait: bool) -> Deferred[JobStatus]:
        """Stop a job; fires with its status. With ``wait`` fires at its end, without a time limit.

        Processes that are left of an ended job are looked for again, and killed again where that is permitted.
        ``leftover`` of the answer has those that are still there; the answers of ``query`` stay as they are.
        """

    def signal(job_id: str, signal: str, to: str) -> Deferred[None]:
        """Send a signal, once, to the main process of a running job, or to its whole tree.

        ``signal`` is one of ``SIGNAL_NAMES``, ``to`` one of ``SIGNAL_TARGETS``. ``NotFound``: there is no such job.
        ``JobNotRunning``: the job, or the processes in question, have ended. ``Conflict``: some processes could not be
        sent the signal, and the message names them. ``Unavailable``: nothing was sent.
        """

    def remove(job_id: str) -> Deferred[None]:
        """Remove an ended job with its output, acknowledged or not. Its id stays used: no later start runs it.

        A job that is not there counts as removed. ``JobNotEnded``: it runs; ``Unavailable``: it could not be removed.
        """

    def query(job_id: str) -> JobStatus:
        """The status of a job whose start was answered, or ``NotFound``. May be called in any thread."""

    def seal(job_id: str) -> Deferred[JobStatus]:
        """The status of a job, or ``NotFound``, after which no start under its id is ever accepted (durably).

        If a start of the job is under way, this waits until it is over. ``Unavailable``: the disk does not take the id.
        """

    def read_output_thd(job_id: str, stream: Stream, offset: int, size: int) -> Chunk:
        """Read at most ``size`` bytes from byte ``offset`` of the spool on; 0: the length alone.

        At the end of the stream, ``cut`` tells whether output is missing. Raises ``NotFound``, ``OffsetBeyondEnd`` or
        ``OutputPruned``.
        """

    def watch_output(job_id: str, stream: Stream, notify: Callable[[], None]) -> Deferred[Callable[[], None]]:
        """Call ``notify`` whenever the stream may have grown or ended. Fires with a function that ends this.

        If a start of the job is under way, this fires once it is over, and fails if it fails. Fails with ``NotFound``
        if there is no such job. ``notify`` is called on the reactor thread and must not block.
        """


class ISchedulerClient(Interface):
    """A worker's calls to its scheduler. Every call may fail with ``Unreachable`` and ``DeadlineExceeded``."""

    def register(registration: Registration) -> Deferred[Registered]:
        """Register this worker. Fails with ``Invalid``, ``Refused`` or ``Conflict`` if it is not accepted."""

    def deregister(worker_id: str, nonce: str) -> Deferred[None]:
        """Deregister this worker. Fails with ``NotFound`` if the scheduler does not know this process of it."""

    def heartbeat(heartbeat: Heartbeat) -> Deferred[HeartbeatAnswer]:
        """Send a heartbeat. Fails with ``NotFound`` if the worker must register again."""

    def hang_up() -> None:
        """Close the connection: a call under way fails with ``Unreachable``, and the next call makes another."""

    def on_cut(notify: Callable[[], None]) -> None:
        """Call ``notify``, on the reactor thread, when the other end has closed an established connection.

        A call that is under way at that moment fails. ``notify`` is not called for a connection that this side closed,
        nor for a connection over which no answer comes.
        """


class IOwnIds(Interface):
    """The ids of this worker and this process: folder id, nonce, worker id. Checks that calls are meant for them."""

    folder_id = Attribute("Secret of the state folder, str.")
    nonce = Attribute("Nonce of this process, str.")
    worker_id = Attribute('The id that the scheduler gave last, str; ``""``: none yet. The link sets it.')

    def check_thd(worker_id: str, nonce: str, scheduler: str) -> None:
        """Check a call that is meant for this worker id and nonce; each is ``""`` if the call does not name it.

        Raises ``Misdirected`` if they are other ones than here. ``scheduler`` is the nonce of the caller, or ``""``.
        """

    def on_new_scheduler(notify: Callable[[], None]) -> None:
        """Call ``notify``, on the reactor thread, after the first call from each new process of the scheduler."""


class IHeldId(Interface):
    """Keeps the id that the scheduler gave this worker."""

    def read() -> str:
        """Read the id that the previous process was given; ``""``: there is none, or it can't be read."""

    def write(worker_id: str) -> None:
        """Keep the id for the next process. A failure is logged, and the next process asks for a new id."""


class ICommitCount(Interface):
    """Keeps the highest count of commits that a scheduler has told this worker."""

    def read() -> int:
        """Read the count that this process or the previous one wrote last; 0: there is none, or it can't be read."""

    def write(count: int) -> None:
        """Keep the count for the next process, a moment later. A failure is logged."""


class IJobs(Interface):
    """A worker's jobs, as its link to the scheduler needs them."""

    def running() -> tuple[str, ...]:
        """The ids of all jobs that were begun and have not ended, without starts that are under way."""

    def is_starting() -> bool:
        """Whether any start is under way."""

    def unacknowledged() -> tuple[JobReport, ...]:
        """Reports of the ended jobs that the scheduler has not acknowledged, oldest first, without specs."""

    def describe(job_ids: Iterable[str]) -> Deferred[tuple[JobReport, ...]]:
        """Fire with reports of these jobs, in that order. Their specs have no stdin and script. May read the disk.

        Unknown ids are left out.
        """

    def acknowledge(job_ids: Iterable[str]) -> None:
        """Note that the scheduler keeps the ends of these jobs."""

    def report_again() -> None:
        """Make all ended jobs that are here ``unacknowledged``, including those that were acknowledged before.

        This is not stored: the next process of the worker must be told again.
        """

    def expect_acknowledgements(expected: bool) -> None:
        """Note whether the scheduler ever acknowledges an end. If it does not, ended jobs are removed all the same."""

    def on_end(notify: Callable[[], None]) -> None:
        """Call ``notify`` after each end of a job, and when ``refusing`` has changed."""

    def refusing() -> str:
        """Why no job is started at present, a sentence; ``""``: jobs are started."""
