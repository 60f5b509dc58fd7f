"""The values everything else is about: workers, jobs, and what may become of a job.

All are frozen; a change makes a new value (``attrs.evolve``). Times are POSIX times (seconds, float, UTC) by the wall
clock, for people to read; nothing is ever decided by comparing them. Absent is ``None``.
"""

from __future__ import annotations

import enum
import re
import signal
from collections.abc import Mapping
from itertools import compress
from types import MappingProxyType
from typing import Protocol

from attrs import evolve, field, frozen

from scheduler.terms import EMPTY, NO_WAITING, QueueTerms, Target, frozen_mapping

#: What an id from outside must match before it becomes the name of anything.
ID_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")

#: Seconds between TERM and KILL when a job does not say.
DEFAULT_STOP_GRACE_SECONDS = 10.0

#: Seconds the rest of a job's process tree may continue after its main process ended, when the job does not say.
DEFAULT_LINGER_SECONDS = 5.0

#: What may ask a job to end, before KILL; the first is the default.
STOP_SIGNALS = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2")

#: Whom that signal goes to: the whole process tree, or the main process alone; the first is the default.
STOP_MODES = ("tree", "main")

#: What may be sent to a running job, and to whom: the main process alone, or the whole process tree.
SIGNAL_NAMES = tuple(number.name for number in signal.Signals if not number.name.startswith("SIGRT"))
SIGNAL_TARGETS = ("main", "tree")

#: Characters of arguments and variables of an ended job that stay in memory; where there are more the store has them.
SPEC_KEPT_MAX_CHARACTERS = 4096

#: Processes that are named at most of those of a job that could not be ended.
MAX_LEFTOVER = 100

#: What a worker of this version can do that one of an earlier version can't; it says so when it registers.
FEATURES = ("linger", "stop_signal", "stop_mode", "umask")


def is_id(text: str) -> bool:
    """Whether ``text`` may be the id of a worker or a job."""
    return ID_PATTERN.fullmatch(text) is not None


@frozen
class Ref:
    """The name of a durable record, which is its ``ref``; ``kind`` is ``"job"``, ``"worker"`` or ``"key"``."""

    kind: str
    id: str


class Stream(enum.Enum):
    """One of a job's two output streams."""

    STDOUT = "stdout"
    STDERR = "stderr"


class JobState(enum.Enum):
    """Where a job is in its life."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    TIMED_OUT = "timed_out"
    UNKNOWN = "unknown"
    LOST = "lost"

    @property
    def final(self) -> bool:
        """Whether it never changes again."""
        return self in FINAL


FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED, JobState.TIMED_OUT, JobState.LOST})

#: From each state, the states a job may go to.
TRANSITIONS: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        # beyond starting: the store was set back, and its worker tells
        JobState.QUEUED: FINAL | {JobState.STARTING, JobState.RUNNING},
        # back to queued: a start that never left is none
        JobState.STARTING: FINAL | {JobState.QUEUED, JobState.RUNNING, JobState.UNKNOWN},
        JobState.RUNNING: FINAL | {JobState.UNKNOWN},
        JobState.UNKNOWN: FINAL | {JobState.STARTING, JobState.RUNNING},
        **{state: frozenset() for state in FINAL},
    }
)


def error_text(state: JobState, reason: str | None) -> str:
    """Why a job that has ended did not succeed; ``""`` for one that did, or has not ended, and for no other."""
    return (reason or state.value) if state.final and state is not JobState.SUCCEEDED else ""


class WorkerState(enum.Enum):
    """Whether both directions between scheduler and worker work now."""

    ONLINE = "online"
    UNREACHABLE = "unreachable"
    #: It deregistered.
    OFFLINE = "offline"


@frozen
class ScriptSummary:
    """What is shown of a job's ``script``; ``size`` in bytes."""

    size: int
    first_line: str


@frozen
class JobSpec:
    """What to run, and how. Exactly one of ``command`` and ``script`` is given.

    The job runs as ``command [path] args...``; an empty ``path`` is none.
    """

    command: str = ""
    args: tuple[str, ...] = ()
    path: str = ""
    env: Mapping[str, str] = field(default=EMPTY, converter=frozen_mapping)
    #: ``""``: an empty folder of the job's own.
    cwd: str = ""
    #: ``None``: /dev/null.
    stdin: bytes | None = None
    #: Run by its ``#!`` line.
    script: bytes | None = None
    #: Seconds until the job is stopped as ``timed_out``.
    timeout: float | None = None
    #: Seconds between TERM and KILL.
    stop_grace: float = DEFAULT_STOP_GRACE_SECONDS
    labels: Mapping[str, str] = field(default=EMPTY, converter=frozen_mapping)
    #: Write stderr into the stdout stream, in order.
    merge_stderr: bool = False
    #: Bytes of stdout and stderr together at which the job is ended as ``failed``.
    output_limit: int | None = None
    #: Seconds the rest of the process tree may continue after the main process ended, while its output is open.
    linger: float = DEFAULT_LINGER_SECONDS
    #: One of ``STOP_SIGNALS``.
    stop_signal: str = STOP_SIGNALS[0]
    #: One of ``STOP_MODES``.
    stop_mode: str = STOP_MODES[0]
    #: ``None``: that of the worker.
    umask: int | None = None
    #: Of ``script``, and kept when that is not; ``None`` too where only the worker knew the script.
    script_summary: ScriptSummary | None = None
    #: Characters of ``args`` and ``env`` that the store alone has; 0: they are here.
    stored: int = field(default=0, eq=False)

    @property
    def features(self) -> frozenset[str]:
        """Those of ``FEATURES`` that a worker must have to run this as it says."""
        signal_needed, mode_needed = self.stop_signal != STOP_SIGNALS[0], self.stop_mode != STOP_MODES[0]
        needed = (self.linger != DEFAULT_LINGER_SECONDS, signal_needed, mode_needed, self.umask is not None)
        return frozenset(compress(FEATURES, needed))

    @property
    def fits_core(self) -> bool:
        """Whether ``command`` and ``path`` say all that a worker has to know."""
        return self == JobSpec(command=self.command, path=self.path, labels=self.labels)

    def without_input(self) -> JobSpec:
        """All but ``stdin`` and ``script``, which can be large and are needed to run it alone."""
        return self if self.stdin is None and self.script is None else evolve(self, stdin=None, script=None)

    def trimmed(self) -> JobSpec:
        """The same, and where ``args`` and ``env`` are large without these: what is kept in memory of an ended job."""
        spec, size = self.without_input(), sum(len(each) + 1 for each in (*self.args, *self.env, *self.env.values()))
        return spec if size <= SPEC_KEPT_MAX_CHARACTERS else evolve(spec, args=(), env=EMPTY, stored=size)


@frozen
class Usage:
    """What the processes of a job took: all that its shim saw end."""

    #: Of the largest process, in bytes.
    max_rss: int
    #: User and system time of all of them together.
    cpu_seconds: float


@frozen
class Disk:
    """A file system: its size and what a process without privileges may still use of it, in bytes and in inodes."""

    size: int
    free: int
    #: 0: it has no limit of them.
    inodes: int = 0
    inodes_free: int = 0


@frozen
class Job:
    """A job as the scheduler knows it."""

    id: str
    spec: JobSpec
    state: JobState
    created_at: float
    worker_id: str | None = None
    worker_name: str | None = None
    #: The id the worker chose, where it is not ours.
    remote_id: str | None = None
    reason: str | None = None
    created_by: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    signal: str | None = None
    stop_requested_at: float | None = None
    #: Why it is to be stopped, where no client asked for that.
    stop_reason: str | None = None
    #: Since when the state is ``unknown``; ``None`` in any other state.
    unknown_since: float | None = None
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    #: Why output was cut; ``None``: every byte was kept, as far as is known.
    output_error: str | None = None
    #: Ids of processes that could not be ended, as seen at the end; 100 at most.
    leftover: tuple[int, ...] = ()
    #: How many processes were ended that the main process had left behind.
    background_ended: int = 0
    usage: Usage | None = None
    #: When a client asked for it to be removed, which its worker could not be told yet.
    remove_requested_at: float | None = None
    #: All attempts of a job with ``retry`` have the same.
    group_id: str | None = None
    #: The job that this one is the next attempt of, and the next attempt of this one.
    retry_of: str | None = None
    retried_by: str | None = None
    #: Where it was to run; ``None`` of one first heard of from its worker.
    target: Target | None = None
    terms: QueueTerms = NO_WAITING
    #: Somebody was told that it will be started, so it must be, once.
    promised: bool = False
    #: It is final here, ``lost``, and yet its worker turned out to run it: it can be stopped, and followed.
    orphan: bool = False

    @property
    def ref(self) -> Ref:
        """Its name among all records."""
        return Ref("job", self.id)

    @property
    def over(self) -> bool:
        """Whether it is final, and nothing of it is known to run."""
        return self.state.final and not self.orphan

    @property
    def is_adopted(self) -> bool:
        """Whether it was first heard of from its worker."""
        return self.target is None

    @property
    def id_on_worker(self) -> str:
        """The id its worker knows it by."""
        return self.remote_id or self.id

    def trimmed(self) -> Job:
        """Without what was needed to run it, if it has ended; a next attempt is a job of its own."""
        spec = self.spec.trimmed() if self.state.final else self.spec
        return self if spec is self.spec else evolve(self, spec=spec)


class Needs(Protocol):
    """What a job needs a worker to be able to do: a ``JobSpec``, or what placement keeps of one."""

    @property
    def fits_core(self) -> bool:
        """Whether the core protocol can say all that a worker has to know."""

    @property
    def features(self) -> frozenset[str]:
        """Those of ``FEATURES`` that the worker must have."""


@frozen
class Worker:
    """A worker as the scheduler knows it."""

    id: str
    name: str
    #: ``host:port`` of its gRPC server, as dialled.
    address: str
    labels: Mapping[str, str] = field(default=EMPTY, converter=frozen_mapping)
    #: Jobs that placement puts on it at once; ``None``: a core worker, without a limit.
    slots: int | None = None
    state: WorkerState = WorkerState.UNREACHABLE
    draining: bool = False
    last_seen: float | None = None
    #: Of its machine; ``""``: it speaks only the core protocol and sends no heartbeats.
    boot_id: str = ""
    version: str | None = None
    #: Those of ``FEATURES`` that it has.
    features: frozenset[str] = frozenset()
    #: The id that is made from its folder id; ``""``: it has told none.
    folder: str = ""
    #: Of the process that registered; ``""``: it has told none.
    nonce: str = ""
    #: When it deregistered, POSIX time; ``None``: it did not.
    deregistered_at: float | None = None
    #: Why it says that it takes no job at present, a sentence; ``None``: it says no such thing. Never stored.
    refusing: str | None = None
    #: The one its spools are on. Never stored.
    disk: Disk | None = None
    #: Seconds by which its clock is ahead of the scheduler's, as its last heartbeat arrived. Never stored.
    clock_difference: float | None = None

    @property
    def ref(self) -> Ref:
        """Its name among all records."""
        return Ref("worker", self.id)

    @property
    def is_core(self) -> bool:
        """Whether it speaks only the core protocol."""
        return not self.boot_id

    @property
    def sends_heartbeats(self) -> bool:
        """Whether it reports its jobs, and that it is alive, by itself. Without, it has to be asked."""
        return not self.is_core

    @property
    def seals(self) -> bool:
        """Whether a query can seal an id that it has no record of: a start under that id then fails, however late."""
        return not self.is_core

    @property
    def has_output(self) -> bool:
        """Whether it keeps the output of its jobs for others to read."""
        return not self.is_core

    def takes(self, needed: Needs) -> bool:
        """Whether it can do all that a job needs; ``placement.lacking`` says what it can't."""
        return (needed.fits_core or not self.is_core) and needed.features <= self.features


@frozen
class IdempotencyKey:
    """What a client called a request of its own, and the job that came of it.

    It is kept as long as the job would be, also where a client removed that.
    """

    key: str
    #: SHA-256 of the request, in hexadecimal.
    fingerprint: str
    job_id: str
    #: The job as the first answer showed it; ``None``: none was given yet.
    answer: Job | None = None
    #: When a client removed the job.
    removed_at: float | None = None

    @property
    def ref(self) -> Ref:
        """Its name among all records."""
        return Ref("key", self.key)

    def trimmed(self) -> IdempotencyKey:
        """Its answer without what was needed to run the job."""
        return (
            self if self.answer is None else evolve(self, answer=evolve(self.answer, spec=self.answer.spec.trimmed()))
        )
