"""The interfaces at which the parts of the scheduler meet. Tests put doubles there.

::

    api              -> IScheduler    <- cluster.service
    rpc (scheduler)  -> IMembership   <- cluster.workers.membership
    cluster          -> IWorkerClient <- rpc.worker_client
    cluster          -> IStore        <- store.*

The interfaces of a worker are in ``scheduler.worker_interfaces``.

Methods are called on the reactor thread. Those with a name that ends in ``_thd`` are the exception: they run in a pool
thread, touch nothing the reactor owns, and return frozen values. A method raises exceptions of ``scheduler.errors``, or
its Deferred fails with them; any other exception is a bug. Providers set the deadlines: no Deferred waits for ever
unless its docstring says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from scheduler.messages import Chunk, Heartbeat, HeartbeatAnswer, JobStatus, Peer, Registered, Registration
from scheduler.model import Job, JobSpec, Ref, RemovedJob, Stream, Submission, Worker
from scheduler.request_keys import RequestKey
from scheduler.security.audit import Act, Anchor, AuditFilter, AuditPage, Entry
from scheduler.security.token import Token
from scheduler.views import JobFilter, JobPage, Readiness, WaitingFor, WorkerView


class IOutputReader(Interface):
    """A follower's position in stdout or stderr of a job."""

    offset = Attribute("The offset of the next chunk, int.")

    def read() -> Deferred[Chunk]:
        """Read the next bytes. Waits without limit until there are any or the stream ends.

        One call at a time. A chunk with ``end`` is the last, and may be empty. If it has no ``cut``, every byte that
        the job wrote was read. A read waits through restarts of the worker. Fails with ``Unsupported``, ``NotFound``,
        ``OutputPruned``, ``OutputGone`` (the job is lost with its output, or its worker was forgotten), or
        ``Unavailable`` if the rest can't be read. Cancelling the Deferred closes the reader.
        """

    def close() -> None:
        """Release all resources and cancel a pending read. May be called twice."""


@frozen
class Accepted:
    """A job that is durable: queued, or starting on its worker, which is being called."""

    job: Job
    #: The job as its request is answered: queued, running or final. Handle its error.
    answered: Deferred[Job]


class IScheduler(Interface):
    """The requests of the HTTP API. A method that names a job or a worker raises ``NotFound`` if there is none.

    A client attends a job, with all its attempts, while it has a reader of ``open_output`` that is neither closed nor
    at its end, or a pending ``wait`` or ``wait_for_attempts`` of more than 0 s: see
    ``scheduler.cluster.jobs.attendance``.
    """

    def submit(wanted: Submission) -> Deferred[Accepted]:
        """Start a job. Fires once it is durable; its output may be requested from then on.

        ``Accepted.answered`` fires once its worker has answered, with a job that is running or already final. If no
        worker can take the job and its terms let it wait, it fires with the job ``queued``.

        Errors of either: ``NotFound`` (worker), ``Conflict`` (no worker matches; draining), ``NoFreeSlot``,
        ``Unreachable`` and ``Unavailable`` (the worker can't be reached, or lacks a resource: nothing was started, no
        job exists), ``QueueFull``, ``StartUnanswered`` (the job exists, unknown), ``Unsupported`` (the named worker
        can't do everything in the spec), ``Busy``, ``StoreFailed``, ``ShuttingDown``. Cancelling has no effect on the
        job.

        A request with a key is carried out once. If it is sent again, it gets the job as it is now. It gets
        ``StartUnanswered`` while no answer to the job's start is known, and ``JobRemoved`` if a client removed the job.
        ``KeyReused``: the fingerprint differs. ``KeyInUse``: the first request is in progress. ``KeyUnsettled``: the
        store was set back, and after a few seconds it is still not known whether the key was used. A request that made
        no job leaves no key.
        """

    def replays(key: RequestKey) -> bool:
        """Whether ``submit`` would answer with the job of an earlier request with this key."""

    def job(job_id: str) -> Job:
        """The present state of the job."""

    def waiting_for(job: Job) -> WaitingFor | None:
        """Why the job is queued, and its place in the queue; ``None`` if it is not queued now, even if ``job`` is."""

    def jobs(which: JobFilter, limit: int, cursor: str | None) -> JobPage:
        """Matching jobs, newest first, at most ``limit``. Raises ``Invalid`` for a cursor that no list has given out.

        Only a bounded number of jobs is looked at, so a page with ``next`` may have fewer jobs, or none. Raises
        ``NotFound`` if neither a worker nor a job has the id or name ``which.worker``.
        """

    def with_specs(jobs: Sequence[Job]) -> Deferred[tuple[Job, ...]]:
        """These jobs, with the parts of their specs that only the store has (``JobSpec.stored``).

        A job that was removed, or whose part is lost because the store was set back, is returned unchanged. Fails with
        ``StoreFailed`` if the store can't be read.
        """

    def cursor_after(job: Job) -> str:
        """The cursor of the part of a list that comes after ``job``, which must come from ``jobs``."""

    def watch(job_id: str, notify: Callable[[Job], None]) -> Callable[[], None]:
        """Call ``notify`` with the job after each of its changes.

        Call the returned function to end this; it may be called twice. ``notify`` is called on the reactor thread, in a
        turn after the change. It must not block.
        """

    def wait(job_id: str, seconds: float) -> Deferred[Job]:
        """Wait until the job is final, at most ``seconds``. Fires with the job as it is then. Makes no RPC."""

    def wait_for_attempts(job_id: str, seconds: float) -> Deferred[Job]:
        """Wait like ``wait`` for the job's ``last_attempt``, until that is final and will not be retried."""

    def query(worker: str, job_id: str) -> Deferred[Job]:
        """Query the job from its worker if it has not ended. Simultaneous queries share one call.

        ``worker`` is an id or a name. Fails with ``NotFound`` also if the job belongs to another worker, with
        ``Unreachable`` if the worker can't be reached. An end that can't be saved is not shown.
        """

    def last_attempt(job_id: str) -> Job:
        """The last attempt of the job's retries, in its present state; the job itself if it was not retried."""

    def stop(job_id: str, worker: str | None = None) -> Deferred[Job]:
        """Stop a job and wait for its verified end: at most ``stop_grace`` and a margin, and at most a minute.

        The job is not retried any more. If it already was, its ``last_attempt`` is stopped in its place. A job that is
        ``over`` is returned as it is; a queued job is ``stopped`` at once. A job that is not ``over`` is returned if
        the stop is recorded, and its worker can't be told before it is back, or needs more than a minute.

        ``worker`` (id or name), if given, must be the job's, else ``NotFound``. ``DeadlineExceeded``: the end did not
        come in time. ``WorkerFault``, ``Unsupported``: the worker's answer. ``StoreFailed``: the stop could be neither
        delivered nor recorded, or the job has ended and this could not be saved in time. ``LeftRunning``: processes of
        the job, or of one of its attempts, could not be ended. The worker is asked for them again at each stop; if it
        can't be asked, they still count as left.
        """

    def stop_matching(which: JobFilter) -> Deferred[tuple[Job, ...]]:
        """Stop every matching job that is not ``over``, like ``stop``.

        Fires within a minute, with the present state of each. If a matching job was retried, its last attempt is
        stopped. Raises ``NotFound`` as ``jobs`` does.
        """

    def signal(job_id: str, signal: str, to: str) -> Deferred[None]:
        """Send a signal, at most once, to the main process of a running job or to its whole process tree.

        ``signal`` is one of ``SIGNAL_NAMES``, ``to`` one of ``SIGNAL_TARGETS``. ``JobNotRunning``: the job does not
        run. ``Conflict``: some processes could not be signalled. ``Unreachable``, ``Unavailable`` and ``Busy``: nothing
        was sent. ``DeadlineExceeded``: the signal may have been sent. ``Unsupported``, ``WorkerFault``: the worker's
        answer.
        """

    def remove(job_id: str) -> Deferred[bool]:
        """Remove a job that is ``over``, with its output. Fires with whether this is done; otherwise it will be done.

        It is done later if its worker can't be told now, or can't remove the output yet. Until then the job has
        ``remove_requested_at``, which survives restarts. If the job's worker is not known any more, the output stays on
        its machine until retention there removes it.

        The id is never used again. A repeated request with the job's idempotency key fails with ``JobRemoved`` for as
        long as the job would have been kept. Readers of its output fail with ``NotFound``.

        ``JobNotEnded``: the job is not ``over``. ``StoreFailed``: nothing was removed, or the job has ended and this
        can't be saved yet. ``WorkerFault``: the worker failed, and the removal is tried again.
        """

    def workers() -> tuple[WorkerView, ...]:
        """All known workers, by name."""

    def worker(name: str) -> WorkerView:
        """The worker with this id or name."""

    def drain(name: str) -> Deferred[WorkerView]:
        """Place no new jobs on a worker."""

    def resume(name: str) -> Deferred[WorkerView]:
        """Undo ``drain``."""

    def forget(name: str) -> Deferred[None]:
        """Drop a worker. Its unfinished jobs become ``lost``; jobs queued for it become ``failed``.

        Fails with ``Conflict`` while the worker is online.
        """

    def open_output(job_id: str, stream: Stream, offset: int) -> IOutputReader:
        """Follow a stream from ``offset`` (bytes) on. ``Unsupported``: the worker has no output; ``Busy``: no room."""

    def read_output(job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        """Read at most ``size`` bytes of the present output, perhaps fewer; with ``size`` 0, only its length.

        A job that has not begun, or never began, has no output. Fails with ``OffsetBeyondEnd``, ``OutputPruned``,
        ``OutputGone``, ``NotFound``, ``Unsupported``, ``Unreachable``, ``Busy`` or ``DeadlineExceeded``.
        """

    def readiness() -> Readiness:
        """Whether the scheduler can take new work, or why not."""


class IMembership(Interface):
    """The requests of workers."""

    def register(registration: Registration, peer: Peer) -> Deferred[Registered]:
        """Register a worker. Without a name it gets the one in its certificate, if there is one.

        Errors: ``Invalid`` (address, id, labels...), ``Refused`` (the address is not allowed; the certificate of
        ``peer`` does not permit the name, or the entry of another name would be taken over), ``Conflict`` (another
        online worker has the name), ``ShuttingDown``.
        """

    def deregister(worker_id: str, nonce: str, peer: Peer) -> Deferred[None]:
        """List a worker as offline. A core worker is listed only until its unfinished jobs have ended.

        Fails with ``NotFound`` if the worker is not known, or if another process of it has registered since; with
        ``Refused`` if the certificate of ``peer`` does not permit the worker's name.
        """

    def heartbeat(heartbeat: Heartbeat, peer: Peer) -> Deferred[HeartbeatAnswer]:
        """Take a heartbeat. Fires once all that is acknowledged is committed.

        Fails with ``NotFound`` if the worker must register again, with ``Refused`` as ``deregister``.
        """


class IOutputStream(Interface):
    """A call of ``StreamJob`` in progress."""

    finished = Attribute(
        "Deferred[None]: fires after the last chunk was delivered (one with ``end``), "
        "or fails with the error that cut it: Unreachable, DeadlineExceeded, Unsupported, NotFound, Busy, WorkerFault."
    )

    def cancel() -> None:
        """End the call; no more chunks are delivered. May be called twice."""


#: Receives a chunk of a stream. If it returns a Deferred, the next chunk waits until that fires.
Deliver = Callable[[Chunk], Deferred[None] | None]


class IWorkerClient(Interface):
    """Calls to workers. Channels are lazy, one for each worker id, replaced when its address changes.

    If the nonce of the process that registered is known, a call is meant for that process alone. Every method may fail
    with ``Misdirected`` (another process was reached, and did nothing), ``Unreachable``, ``DeadlineExceeded``,
    ``Busy``, ``Unsupported`` and ``WorkerFault``; with ``NotFound`` if the worker does not know the job.
    """

    def probe(worker: Worker) -> Deferred[None]:
        """Check that calls reach the worker. Any answer of the process that registered is a success."""

    def answers(worker: Worker) -> Deferred[bool | None]:
        """Whether the process that registered answers within 2 s on a new connection; ``Busy``: the server has no room.

        ``None``: no process answers there, not even another one.
        """

    def start_job(
        worker: Worker, job: Job, late: Callable[[Deferred[JobStatus]], None] | None = None
    ) -> Deferred[JobStatus]:
        """Start a job. ``JobStatus.job_id`` is the worker's id for it, ours or not.

        ``late`` may be called before ``DeadlineExceeded`` if the worker is a core worker. Its argument is a Deferred
        for the late answer, which is awaited for at most 5 minutes.

        ``Unreachable(sent=False)`` or ``Busy``: the start was not sent. ``Unreachable(sent=True)``,
        ``DeadlineExceeded`` and ``AnswerUnreadable``: it may have arrived. ``Conflict``: the id was used before, or is
        sealed. ``NotAWorker``: the program that answers there can't start jobs.
        """

    def stop_job(worker: Worker, job_id: str) -> Deferred[JobStatus | None]:
        """Ask for a stop, without waiting for the end.

        Fires with the present status. ``leftover`` of an ended job lists its processes that still run. ``None``: the
        worker is a core worker, which gives no status.
        """

    def signal_job(worker: Worker, job_id: str, signal: str, to: str) -> Deferred[None]:
        """Send a signal at most once. ``Unreachable``: it was not sent; ``DeadlineExceeded``: it may have arrived.

        Other errors are those of ``IJobRunner.signal``.
        """

    def remove_job(worker: Worker, job_id: str) -> Deferred[None]:
        """Remove an ended job with its output. A job that the worker does not have counts as removed.

        Fails with ``JobNotEnded`` if the job still runs, with ``Unavailable`` if it could not be removed.
        """

    def query_job(worker: Worker, job_id: str, seal: bool = False) -> Deferred[JobStatus]:
        """Query the status of a job. With ``seal``, the worker refuses a later start of a job that it does not know.

        A core worker reports only ``state``, ``reason``, ``exit_code`` and ``signal``. ``NotAWorker``: the program that
        answers there has no ``QueryJob``.
        """

    def read_output(worker: Worker, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        """Read at most ``size`` bytes, 0: only the length. Fails also with ``OffsetBeyondEnd``, ``OutputPruned``."""

    def stream_output(
        worker: Worker, job_id: str, stream: Stream, offset: int, deliver: Deliver, starting: bool = False
    ) -> IOutputStream:
        """Call ``deliver`` on the reactor thread with each chunk from ``offset`` on, until the end.

        ``starting``: the start of the job is on the way, and the worker waits for it, up to 2 s.

        The next chunk is received only after ``deliver`` has returned and its Deferred, if any, has fired. So a slow
        receiver delays the stream, by a few seconds at most. The provider may cut a stream that is delayed for longer
        than a call's deadline. Raises ``Busy`` at once if all streams are in use.
        """

    def forget(worker_id: str) -> None:
        """Close the worker's channel, if there is one."""


#: A record to save, or the ``Ref`` of one to remove.
Record = Job | Worker | RemovedJob | Token | Ref


@frozen
class Loaded:
    """Everything in a store. Two values are equal if their records are, whatever their counts."""

    jobs: tuple[Job, ...] = ()
    workers: tuple[Worker, ...] = ()
    removed: tuple[RemovedJob, ...] = ()
    tokens: tuple[Token, ...] = field(default=(), kw_only=True)
    commit_count: int = field(default=0, eq=False)
    #: The count to which the store was set back. Commits with a higher count, from before the present timeline
    #: (``scheduler.commits``), are not in this store. ``None``: it was never set back.
    set_back_to: int | None = field(default=None, eq=False)
    #: The last entry of the audit.
    audit_head: Anchor = field(default=Anchor(), eq=False)


class IStore(Interface):
    """The durable copy of the registry.

    It counts its commits. Workers are told the count and report the highest one they know. So the scheduler notices
    when the store was set back, by a restored backup or a standby that was behind. The count does not change until
    ``count_commits``.
    """

    commit_count = Attribute("The count of the last known commit, int; 0 before ``load``.")

    def load() -> Deferred[Loaded]:
        """Everything saved so far; ended jobs are ``trimmed``. ``StoreFailed``."""

    def save(records: Iterable[Record | Act]) -> Deferred[None]:
        """Save records, in the order of calls. Fires once all of them are durable.

        An ``Act`` among them becomes an entry of the audit, in the transaction of the others. Entries are never changed
        nor removed. An act that is saved again after ``StoreFailed`` becomes no second entry.

        ``StoreFailed``: some may be durable all the same, if the answer to a commit was lost. A job keeps the spec with
        which it was first saved.
        """

    def read_specs(job_ids: Collection[str]) -> Deferred[Mapping[str, JobSpec]]:
        """Read the specs of these jobs, without ``stdin`` and ``script``. A spec that lost its parts is left out."""

    def count_commits(above: int = 0, set_back_to: int | None = None) -> Deferred[None]:
        """Count commits from now on, beginning with the commit that this call makes.

        With ``set_back_to``, which is stored, begin a timeline whose counts are all higher than ``above``, which is
        less than ``COMMIT_COUNT_MAX``. Fires once that is durable. Fails with ``StoreFailed`` if the store does.
        """

    def read_audit(which: AuditFilter, limit: int, before: int | None = None) -> Deferred[AuditPage]:
        """Read matching entries of the audit, newest first, at most ``limit``, all numbered below ``before``.

        Only a bounded number of entries is looked at, so a page with ``before`` may have fewer, or none. A page has no
        ``before`` once all entries that were looked at are older than ``which.since``. Fails with ``StoreFailed``.
        """

    def on_entries(heard: Callable[[Sequence[Entry]], None]) -> None:
        """Have ``heard`` called with the new entries of each commit, before its saves are answered."""

    def restore_from(everything: Callable[[], Loaded]) -> None:
        """Set the function that returns all records that the store must hold, except those being saved.

        It is called during use. If the count of a store in use is lower than it was, the store is made to hold exactly
        these records, before any pending save is answered. The audit keeps its entries.
        """

    def verify() -> Deferred[None]:
        """Find out whether the store was set back, even if nothing is being saved. Fails like ``save``."""
