"""Values that scheduler and worker send each other: who a worker is, what became of its jobs, what they wrote.

All are frozen. Times are POSIX times (seconds, float, UTC). Absent is ``None``.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from scheduler.model import Disk, JobSpec, JobState, Usage
from scheduler.terms import EMPTY, frozen_mapping


@frozen
class JobStatus:
    """What a worker knows of a job. ``state`` is RUNNING or final."""

    job_id: str
    state: JobState
    #: ``exit status 3``, ``signal: killed``, or why there is no exit; ``""`` while running. After success: ``""``, or
    #: what became of processes that the main process left behind.
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
    #: How many processes were ended that the main process had left behind.
    background_ended: int = 0
    usage: Usage | None = None


def contradiction(status: JobStatus) -> str:
    """What in a status can't be true together, a sentence; ``""``: nothing."""
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
class Registration:
    """What a worker says of itself when it registers."""

    address: str
    #: Held from before; ``""``: assign one.
    worker_id: str = ""
    name: str = ""
    labels: Mapping[str, str] = field(default=EMPTY, converter=frozen_mapping)
    slots: int | None = None
    boot_id: str = ""
    version: str = ""
    features: tuple[str, ...] = ()
    #: Secret of its state folder; ``""``: it has none.
    folder_id: str = field(default="", repr=False)
    #: Of its process; ``""``: it has none.
    nonce: str = ""
    #: The highest that a scheduler has told it; 0: none has.
    commit_count: int = 0


@frozen
class Registered:
    """The answer to a registration; ``lease`` in seconds, ``commit_count`` of the scheduler's store so far."""

    worker_id: str
    lease: float
    commit_count: int = 0


#: Characters of what a client may call a request.
REQUEST_KEY_MAX_CHARACTERS = 255


def is_request_key(text: str) -> bool:
    """Whether a client may call a request so."""
    return 1 <= len(text) <= REQUEST_KEY_MAX_CHARACTERS and text.isascii() and text.isprintable()


@frozen
class RequestKey:
    """What a client called its request, and the SHA-256 of what it asked for, in hexadecimal."""

    key: str
    fingerprint: str


@frozen
class JobReport:
    """A job as its worker reports it; ``spec`` (without stdin and script) and ``key`` only when asked for."""

    status: JobStatus
    spec: JobSpec | None = None
    created_at: float | None = None
    #: Of the request that it came from; ``None``: that had none, or the worker does not know.
    key: RequestKey | None = None


@frozen
class Heartbeat:
    """A worker's sign of life. ``running`` are the ids of all its jobs that have not ended.

    ``leaving``: it is the last of this process; what runs, runs on without it.
    ``refusing``: why the worker takes no job at present, a sentence; ``""``: it takes jobs.
    ``sent_at``: by the worker's clock. ``disk``: the one its spools are on. ``nonce`` and ``commit_count`` are as in a
    ``Registration``. ``refused``: what it told beside that and could not be read, or was too much: the reasons, by id
    of a job, or ``field`` and the name of that.
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
        """Ids of all jobs that it tells of."""
        reported = (report.status.job_id for report in (*self.ended, *self.described))
        return frozenset((*self.running, *reported, *self.refused))


@frozen
class HeartbeatAnswer:
    """``acknowledged``: ended jobs that are kept now. ``describe``: jobs whose specs are wanted.

    ``register_again``: what the worker said of itself, or its address, may have changed. ``report_all``: it is to
    report all ended jobs that it has, acknowledged or not. It does so after each answer that asks for it, so the
    scheduler asks no more once a heartbeat has the ``commit_count`` that it told with such an answer.
    """

    lease: float
    acknowledged: tuple[str, ...] = ()
    describe: tuple[str, ...] = ()
    register_again: bool = False
    commit_count: int = 0
    report_all: bool = False


@frozen
class Chunk:
    """Some bytes of one stream."""

    data: bytes
    #: Of the first byte of ``data`` in the stream.
    offset: int
    #: The job has ended and ``data`` reaches the end of the stream.
    end: bool = False
    #: Length of the stream when this was read.
    size: int = 0
    #: With ``end``: why something that the job wrote may be missing, in this stream or the other; ``""``: nothing is.
    cut: str = ""

    @property
    def next_offset(self) -> int:
        """Where to go on."""
        return self.offset + len(self.data)
