"""The seams of the system: where one part meets another, and a fake can stand in.

::

    api            -> IScheduler      <- cluster.service
    rpc (scheduler)-> IMembership     <- cluster.workers.membership
    cluster        -> IWorkerClient   <- rpc.worker_client
    cluster        -> IStore          <- store.*

Those of a worker are in ``scheduler.worker_interfaces``.

All methods are called on the reactor thread unless their name ends in ``_thd``: those run in a pool thread, touch
nothing the reactor owns and return frozen values. Deferreds fail with the exceptions of ``scheduler.errors``; any other
exception is a bug. Deadlines are the provider's: no Deferred here waits for ever unless its docstring says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from scheduler.messages import Chunk, Heartbeat, HeartbeatAnswer, JobStatus, Registered, Registration, RequestKey
from scheduler.model import (
    NO_WAITING,
    IdempotencyKey,
    Job,
    JobSpec,
    JobState,
    QueueTerms,
    Ref,
    Stream,
    Target,
    WaitingFor,
    Worker,
)


@frozen
class JobFilter:
    """Which jobs; every field that is set must match. Times are POSIX times, half open: after <= t < before."""

    #: An id or a name. A name means the worker that has it now, with all of its jobs, and those that are queued for it;
    #: where none has it now, the jobs that were started under it, or are queued for it.
    worker: str | None = None
    states: frozenset[JobState] = frozenset()
    #: ``key`` -> value; all must match.
    labels: dict[str, str] = field(factory=dict)
    created_by: str | None = None
    created_after: float | None = None
    created_before: float | None = None
    finished_after: float | None = None
    finished_before: float | None = None
    orphan: bool | None = None
    group_id: str | None = None
    #: The beginning of ids.
    id_prefix: str | None = None


@frozen
class JobPage:
    """Some jobs, newest first, or none; ``next`` is the cursor of the page after this one, ``None`` after the last."""

    jobs: tuple[Job, ...]
    next: str | None = None


@frozen
class WorkerView:
    """A worker and how many of its jobs have not ended.

    ``reason``: why it can't be reached, since when it is offline, or why it takes no job at present, a sentence;
    ``None``: it can be reached, and takes jobs.
    """

    worker: Worker
    running_jobs: int
    reason: str | None = None


@frozen
class Readiness:
    """``reasons`` says why not, one sentence each; empty means ready."""

    reasons: tuple[str, ...] = ()
    workers_online: int = 0

    @property
    def ready(self) -> bool:
        return not self.reasons


class IOutputReader(Interface):
    """One follower's place in one stream of one job."""

    offset = Attribute("Where the next chunk starts.")

    def read() -> Deferred[Chunk]:
        """The next bytes; waits, without limit, until there are any or the stream ends.

        One call at a time. A chunk with ``end`` is the last, possibly empty; without ``cut`` it promises that every
        byte the job wrote was read. Waits through restarts of the worker; fails with ``Unsupported``, ``NotFound``,
        ``OutputPruned``, ``OutputGone`` (the job is lost with its output, or its worker forgotten), or ``Unavailable``
        when the rest can't be had. Cancelling the Deferred closes the reader.
        """

    def close() -> None:
        """Let go of everything; a pending read is cancelled. May be called twice."""


#: Is told of a job whose start is on its way.
Starting = Callable[[Job], None]


class IScheduler(Interface):
    """All that the HTTP API can ask.

    Clients attend a job, with all its attempts, by a reader of ``open_output`` until it is closed or over, and by a
    ``wait`` or ``wait_for_attempts`` of more than 0 s until it fires: see ``scheduler.cluster.jobs.attendance``.
    """

    def submit(
        spec: JobSpec,
        target: Target,
        terms: QueueTerms = NO_WAITING,
        key: RequestKey | None = None,
        starting: Starting | None = None,
    ) -> Deferred[Job]:
        """Start a job; fires once its worker has answered, with a job that is running or already final.

        ``starting`` is called with the job when its start leaves for the worker: from then on its output may be asked
        for, and comes all the sooner. It is not called of a job that is queued first, nor of one that was there before.

        Where no worker can take it now, and ``terms`` let it wait, it fires once the job is ``queued``.

        Errors: ``NotFound`` (worker), ``Conflict`` (no worker matches; draining), ``NoFreeSlot``, ``Unreachable`` and
        ``Unavailable`` (the worker can't be reached, or lacks what it takes to start a job now: nothing was started, no
        job exists), ``QueueFull``, ``StartUnanswered`` (the job exists, unknown), ``Unsupported`` (the named worker
        can't do all that the spec asks for), ``Busy``, ``StoreFailed``, ``ShuttingDown``. Cancelling undoes nothing:
        the job goes on.

        A request with a ``key`` is carried out once. Sent again it is answered as the first time: with the job as it
        was then, or, where the answer was never given, as it is now; with ``StartUnanswered`` while that is what there
        is to say; with ``JobRemoved`` where a client removed the job since. ``KeyReused`` when the fingerprint is
        another, ``KeyInUse`` while the first is under way. One that made no job leaves no key. ``KeyUnsettled``: the
        store was set back, and after a few seconds it is still not known whether the key was used.
        """

    def replays(key: RequestKey) -> bool:
        """Whether ``submit`` would answer such a request as it was answered before."""

    def job(job_id: str) -> Job:
        """The job as it is known now; ``NotFound``."""

    def waiting_for(job: Job) -> WaitingFor | None:
        """Why it is queued, and its place; ``None`` when it is not queued now, whatever ``job`` says. Cheap."""

    def jobs(which: JobFilter, limit: int, cursor: str | None) -> JobPage:
        """Matching jobs, newest first, at most ``limit``; ``Invalid`` for a cursor not made here.

        A bounded number of jobs is looked at: a page with ``next`` may have fewer, or none.
        ``NotFound`` where neither a worker nor a job has the id or name ``which.worker``.
        """

    def with_specs(jobs: Sequence[Job]) -> Deferred[tuple[Job, ...]]:
        """These jobs, each with the part of its spec that memory does not hold (``JobSpec.stored``); ``StoreFailed``.

        One whose part is lost (the store was set back) or that was removed is as it was given.
        """

    def cursor_after(job: Job) -> str:
        """The cursor of a listing that goes on after that job, one that ``jobs`` gave."""

    def watch(job_id: str, notify: Callable[[Job], None]) -> Callable[[], None]:
        """Call ``notify`` with the job after each change of it; ``NotFound``.

        The function that is returned ends this, and may be called twice. ``notify`` is called on the reactor thread,
        in a turn after the change, and must not block.
        """

    def wait(job_id: str, seconds: float) -> Deferred[Job]:
        """The job once it is final, or as it is after ``seconds``. No RPC. ``NotFound`` at once."""

    def wait_for_attempts(job_id: str, seconds: float) -> Deferred[Job]:
        """Its ``last_attempt`` once that is final and no other follows, or as it is after ``seconds``. ``NotFound``."""

    def query(worker: str, job_id: str) -> Deferred[Job]:
        """The job, asked of its worker if it has not ended; simultaneous queries share one call.

        ``worker`` is an id or a name; ``NotFound`` also when the job is another worker's.
        ``Unreachable`` if the worker can't be reached. An end that can't be saved is not shown.
        """

    def last_attempt(job_id: str) -> Job:
        """The last job that followed it by ``retry``, as it is known now; itself where none did. ``NotFound``."""

    def stop(job_id: str, worker: str | None = None) -> Deferred[Job]:
        """Stop a job and wait for its verified end, at most ``stop_grace`` and a margin, and at most a minute.

        No further attempt follows it, and one that did already is stopped: what is said of an end here is about its
        ``last_attempt``. A job that is ``over`` is answered as it is, one that was queued is ``stopped`` at once. One
        that is not ``over`` is answered where the stop is recorded, and its worker can't be told now (it will be, when
        it is back), or was told and may take longer than a minute.

        ``worker`` (id or name), if given, must be the job's, else ``NotFound``. ``DeadlineExceeded`` when the end did
        not come in time; ``WorkerFault``, ``Unsupported``; ``StoreFailed`` when the stop could be neither delivered nor
        recorded, or the job has ended and that could not be saved in time. ``LeftRunning`` when processes of the job,
        or of an attempt that followed it, could not be ended: its worker is asked again each time, and where it can't
        be asked they count as left.
        """

    def stop_matching(which: JobFilter) -> Deferred[tuple[Job, ...]]:
        """Stop every matching job that is not ``over``, like ``stop``; fires, within a minute, with all as they are.

        Of a matching job that another attempt followed, that is the one which is stopped. ``NotFound`` as of ``jobs``.
        """

    def signal(job_id: str, signal: str, to: str) -> Deferred[None]:
        """Have a signal sent to the main process of a job that runs, or to its whole tree; at most once.

        ``signal`` is one of ``SIGNAL_NAMES``, ``to`` one of ``SIGNAL_TARGETS``. ``NotFound``; ``JobNotRunning``;
        ``Conflict``: some processes could not be sent it; ``Unreachable``, ``Unavailable`` and ``Busy``: nothing was
        sent; ``DeadlineExceeded``: it may have been; ``Unsupported``, ``WorkerFault``.
        """

    def remove(job_id: str) -> Deferred[bool]:
        """Remove a job that is ``over``, with its output: whether that is done; if not, it will be.

        It is done later where its worker can't be told now, or can't remove it yet: the job has ``remove_requested_at``
        then, whatever is restarted, until its worker was told. The output of a job whose worker is none that is known
        stays there until that removes it itself.

        Its id is never used again. A request with the idempotency key that it came from is answered with
        ``JobRemoved``, as long as the job would have been kept. Who reads its output fails with ``NotFound``.

        ``NotFound``; ``JobNotEnded``; ``StoreFailed``: nothing was removed, or the job has ended and that can't be
        saved yet; ``WorkerFault``: it is tried again.
        """

    def workers() -> tuple[WorkerView, ...]:
        """All known workers, by name."""

    def worker(name: str) -> WorkerView:
        """By id or name; ``NotFound``."""

    def drain(name: str) -> Deferred[WorkerView]:
        """No new jobs for it; ``NotFound``."""

    def resume(name: str) -> Deferred[WorkerView]:
        """Undo ``drain``; ``NotFound``."""

    def forget(name: str) -> Deferred[None]:
        """Drop a worker; its unfinished jobs are ``lost``, those queued for it have ``failed``.

        ``Conflict`` while it is online; ``NotFound``.
        """

    def open_output(job_id: str, stream: Stream, offset: int) -> IOutputReader:
        """Follow a stream from ``offset`` on; ``NotFound``, ``Unsupported``, ``Busy``."""

    def read_output(job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        """At most ``size`` bytes of what is there now, perhaps fewer; ``size`` 0 asks for the length alone.

        A job that was not begun yet, or never began, has none. ``OffsetBeyondEnd``, ``OutputPruned``, ``OutputGone``,
        ``NotFound``, ``Unsupported``, ``Unreachable``, ``Busy``, ``DeadlineExceeded``.
        """

    def readiness() -> Readiness:
        """Whether new work can be taken."""


class IMembership(Interface):
    """All that a worker can ask of the scheduler."""

    def register(registration: Registration, peer: str) -> Deferred[Registered]:
        """``peer`` is the IP address the call came from.

        Errors: ``Invalid`` (address, id, labels...), ``Refused`` (address not allowed),
        ``Conflict`` (another live worker has that name), ``ShuttingDown``.
        """

    def deregister(worker_id: str, nonce: str) -> Deferred[None]:
        """It is listed as offline; a core worker as long as it has unfinished jobs, and no longer.

        ``NotFound`` when it is not known, or another process of it has registered since.
        """

    def heartbeat(heartbeat: Heartbeat, peer: str) -> Deferred[HeartbeatAnswer]:
        """Fires once all that is acknowledged is committed; ``peer`` as above. ``NotFound`` means register again."""


class IOutputStream(Interface):
    """A server stream under way."""

    finished = Attribute(
        "Deferred[None]: fires after the last chunk was delivered (one with ``end``), "
        "or fails with what cut it: Unreachable, DeadlineExceeded, Unsupported, NotFound, Busy, WorkerFault."
    )

    def cancel() -> None:
        """Nothing is delivered afterwards. May be called twice."""


#: Takes a chunk of a stream; a Deferred that it returns holds the stream up until it fires.
Deliver = Callable[[Chunk], Deferred[None] | None]


class IWorkerClient(Interface):
    """Calls to workers. Channels are lazy, one for each worker id, replaced when its address changes.

    Each call is meant for the process that registered, where that has told a nonce. Every method may fail with
    ``Misdirected``: another process was reached, and did nothing; and with ``Unreachable``, ``DeadlineExceeded``,
    ``Busy``, ``Unsupported`` and ``WorkerFault``.
    """

    def probe(worker: Worker) -> Deferred[None]:
        """Whether a call to it succeeds: any answer of the process that registered counts."""

    def answers(worker: Worker) -> Deferred[bool | None]:
        """Whether the process that registered answers now, within 2 s, on a new connection; ``Busy``.

        ``None``: nobody answers there, not even another process.
        """

    def start_job(
        worker: Worker,
        job: Job,
        sent: Callable[[], None] | None = None,
        key: RequestKey | None = None,
        late: Callable[[Deferred[JobStatus]], None] | None = None,
    ) -> Deferred[JobStatus]:
        """``JobStatus.job_id`` is the worker's id for it, ours or not. ``sent`` is called once the start is on its way.

        ``key`` is that of the request that the job came from; the worker keeps it with the job.

        ``late`` is called before ``DeadlineExceeded``, where the answer of a core worker is listened for all the same,
        for 5 minutes at most: with what fires with that, or with the error that ends the listening.

        ``Unreachable(sent=False)`` or ``Busy``: the start never left. Any of ``Unreachable(sent=True)``,
        ``DeadlineExceeded`` and ``AnswerUnreadable``: it may have arrived. ``Conflict``: the id was used up before, or
        sealed. ``NotAWorker``: a program answers there that can start no job.
        """

    def stop_job(worker: Worker, job_id: str) -> Deferred[JobStatus | None]:
        """Ask for the stop, not wait for the end. ``NotFound``.

        How the job is now; of one that has ended, ``leftover`` are those of its processes that still run. ``None``:
        a core worker does not say.
        """

    def signal_job(worker: Worker, job_id: str, signal: str, to: str) -> Deferred[None]:
        """Sent at most once. ``Unreachable``: it was not sent; ``DeadlineExceeded``: it may have arrived.

        ``NotFound``, ``JobNotRunning``, ``Conflict``, ``Unavailable``, as of ``IJobRunner.signal``.
        """

    def remove_job(worker: Worker, job_id: str) -> Deferred[None]:
        """Remove an ended job with its output; one that is not there is removed already.

        ``JobNotEnded``; ``Unavailable``: it is still there.
        """

    def query_job(worker: Worker, job_id: str, seal: bool = False) -> Deferred[JobStatus]:
        """``NotFound``; with ``seal``, a start of it that arrives later is then refused. ``NotAWorker``.

        Of a core worker, only ``state``, ``reason``, ``exit_code`` and ``signal`` are known.
        """

    def read_output(worker: Worker, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        """At most ``size`` bytes; 0 asks for the length alone. ``NotFound``, ``OffsetBeyondEnd``, ``OutputPruned``."""

    def stream_output(worker: Worker, job_id: str, stream: Stream, offset: int, deliver: Deliver) -> IOutputStream:
        """Call ``deliver`` on the reactor thread with each chunk from ``offset`` on, until the end.

        The next chunk is not taken off the wire before ``deliver`` returned and, where it returned a Deferred, before
        that fired: so a receiver holds the stream up. It never does for longer than a few seconds, and the provider may
        cut a stream held up for longer than a call's deadline. ``Busy`` at once (raised) when all streams are in use.
        """

    def forget(worker_id: str) -> None:
        """Close its channel, if there is one."""


#: A ``Ref`` among records says that the record of that name is removed.
Record = Job | Worker | IdempotencyKey | Ref


@frozen
class Loaded:
    """All that a store holds: equal where the records are, whatever the count of commits."""

    jobs: tuple[Job, ...] = ()
    workers: tuple[Worker, ...] = ()
    keys: tuple[IdempotencyKey, ...] = ()
    commit_count: int = field(default=0, eq=False)
    #: Commits after that one, and before the present timeline (``scheduler.commits``), are of a past that this store
    #: does not have; ``None``: it was never set back.
    set_back_to: int | None = field(default=None, eq=False)


class IStore(Interface):
    """The durable copy of the registry.

    It counts its commits, so that whoever was told a count finds out when the store was set back: by a restored backup,
    or a standby that was behind. Until ``count_commits`` the count stands still.
    """

    commit_count = Attribute("Of the last commit that is known of, int; 0 before ``load``.")

    def load() -> Deferred[Loaded]:
        """Everything saved so far, jobs and the answers of keys ``trimmed``; ``StoreFailed``."""

    def save(records: Iterable[Record]) -> Deferred[None]:
        """Fires once all of them are durable, in the order of calls.

        ``StoreFailed``: some may be all the same, where the answer to a commit was lost. The spec of
        a job is kept as first saved; that of a key's answer as the spec of its job, which is there.
        """

    def read_specs(job_ids: Collection[str]) -> Deferred[Mapping[str, JobSpec]]:
        """Those of these jobs that it has whole, without ``stdin`` and ``script``; ``StoreFailed``."""

    def count_commits(above: int = 0, set_back_to: int | None = None) -> Deferred[None]:
        """Count commits from now on, of which this is the first; ``StoreFailed``.

        With ``set_back_to``, which is kept, the next one begins a timeline whose counts are all higher than ``above``,
        which is less than ``COMMIT_COUNT_MAX``. Fires once that is durable.
        """

    def restore_from(everything: Callable[[], Loaded]) -> None:
        """``everything`` says what the store has to hold, less what is being saved; it is called during use.

        Where the count of a store in use is lower than it was, it is made to hold that, and nothing else, before
        anything that is being saved is answered.
        """

    def verify() -> Deferred[None]:
        """Find out whether the store was set back, though nothing is being saved; ``StoreFailed``."""
