"""Values that scheduler and worker send each other: registrations, reports about jobs, and output.

All are frozen. Times are POSIX times (seconds, float, UTC). Absent is ``None``.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from scheduler.model import Disk, JobSpec, JobState, Usage
from scheduler.request_keys import RequestKey
from scheduler.terms import EMPTY, frozen_mapping


@frozen
class JobStatus:
    """A worker's knowledge of a job. ``state`` is RUNNING or final."""

    job_id: str
    state: JobState
    #: ``exit status 3``, ``signal: killed``, or why there is no exit; ``""`` while running. After success: ``""``, or
    #: the fate of processes that the main process left behind.
    reason: str = ""
    started_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    #: Like ``SIGKILL``.
    signal: str | None = None
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    #: How the process tree was emptied: ``exited``, ``terminated`` or ``killed``; ``""`` is not known.
    tree: str = ""
    #: Ids of processes that could not be ended.
    leftover: tuple[int, ...] = ()
    #: Why output was cut; ``""``: every byte is in the spool.
    output_error: str = ""
    #: The number of processes that the main process had left behind and that were ended.
    background_ended: int = 0
    usage: Usage | None = None


def contradiction(status: JobStatus) -> str:
    """Why the facts in a status can't all be true, as a sentence; ``""`` if they are consistent."""
    state, code = status.state, status.exit_code
    ended = code is not None or status.signal is not None
    if not state.final and (ended or status.finished_at is not None):
        return "a job that runs has no end"
    if state is JobState.LOST and ended:
        return "nobody knows how a job that is lost ended"
    if code is not None and status.signal is not None:
        return f"a process does not end both by {status.signal} and with exit code {code}"
    if state is JobState.SUCCEEDED and (code or status.signal is not None):
        return f"a job that ended {f'by {status.signal}' if code is None else f'with exit code {code}'} did not succeed"
    if state is JobState.FAILED and code == 0 and not status.output_error and not status.leftover:
        return "a job that ended with exit code 0, and lost no output, did not fail"
    return ""


@frozen
class Peer:
    """The caller of the scheduler's gRPC server."""

    #: The IP address that the call came from.
    ip: str
    #: The names of workers that the caller's certificate permits, the usual one first. Empty: it permits any, as there
    #: is no certificate that states a name.
    names: tuple[str, ...] = ()


@frozen
class Registration:
    """The data of a worker's registration."""

    address: str
    #: The id that the worker has from an earlier registration; ``""``: assign one.
    worker_id: str = ""
    name: str = ""
    labels: Mapping[str, str] = field(default=EMPTY, converter=frozen_mapping)
    slots: int | None = None
    boot_id: str = ""
    version: str = ""
    features: tuple[str, ...] = ()
    #: The secret of the worker's state folder; ``""`` if it has none.
    folder_id: str = field(default="", repr=False)
    #: The nonce of the worker's process; ``""`` if it has none.
    nonce: str = ""
    #: The highest count of commits that a scheduler has told it; 0: none.
    commit_count: int = 0


@frozen
class Registered:
    """The answer to a registration: ``lease`` in seconds, and ``commit_count`` of the scheduler's store."""

    worker_id: str
    lease: float
    commit_count: int = 0


@frozen
class JobReport:
    """A worker's report of a job. ``spec`` (without stdin and script) and ``key`` are sent only on request."""

    status: JobStatus
    spec: JobSpec | None = None
    created_at: float | None = None
    #: The key of the request that started the job; ``None``: there was none, or the worker does not know it.
    key: RequestKey | None = None


@frozen
class Heartbeat:
    """A worker's sign of life. ``running`` are the ids of all its jobs that have not ended.

    ``leaving``: this process sends no other heartbeat; its running jobs continue without it. ``refusing``: a sentence
    why the worker accepts no job at present, or ``""``. ``sent_at``: the time by the worker's clock. ``disk``: the disk
    with its spools. ``nonce`` and ``commit_count``: as in ``Registration``. ``refused``: parts of the message that
    can't be read, or are too many, with the reason; the key is the id of a job, or ``field`` and a field's name.
    """

    worker_id: str
    boot_id: str
    running: tuple[str, ...] = ()
    ended: tuple[JobReport, ...] = ()
    described: tuple[JobReport, ...] = ()
    leaving: bool = False
    refusing: str = ""
    sent_at: float | None = None
    disk: Disk | None = None
    nonce: str = ""
    commit_count: int = 0
    refused: Mapping[str, str] = field(default=EMPTY, converter=frozen_mapping)

    @property
    def mentioned(self) -> frozenset[str]:
        """The ids of all jobs in the heartbeat."""
        reported = (report.status.job_id for report in (*self.ended, *self.described))
        return frozenset((*self.running, *reported, *self.refused))


@frozen
class HeartbeatAnswer:
    """The answer to a heartbeat.

    ``acknowledged``: ended jobs that are durable now. ``describe``: jobs whose specs are requested. ``register_again``:
    the worker's address or other data may have changed. ``report_all``: a request to report all ended jobs, including
    acknowledged ones. The worker does so after each such answer. So the scheduler repeats the request only until a
    heartbeat has the ``commit_count`` of such an answer.
    """

    lease: float
    acknowledged: tuple[str, ...] = ()
    describe: tuple[str, ...] = ()
    register_again: bool = False
    commit_count: int = 0
    report_all: bool = False


@frozen
class Chunk:
    """A piece of one output stream."""

    data: bytes
    #: The position of the first byte of ``data`` in the stream.
    offset: int
    #: The job has ended, and ``data`` reaches the end of the stream.
    end: bool = False
    #: The length of the stream when it was read.
    size: int = 0
    #: With ``end``: why output of the job may be missing, in this stream or the other; ``""``: nothing is missing.
    cut: str = ""

    @property
    def next_offset(self) -> int:
        """The offset of the next chunk."""
        return self.offset + len(self.data)
