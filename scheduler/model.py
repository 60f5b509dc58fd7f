"""The values of the domain: workers, jobs, and the states of a job.

All are frozen; a change makes a new value (``attrs.evolve``). Times are POSIX times (seconds, float, UTC) by the wall
clock. They are for people to read, and no decision compares them. Absent is ``None``.
"""

from __future__ import annotations

import enum
import signal
from collections.abc import Mapping
from functools import cached_property
from itertools import compress
from types import MappingProxyType
from typing import Protocol

from attrs import evolve, field, frozen

from scheduler.request_keys import RequestKey
from scheduler.terms import EMPTY, NO_WAITING, QueueTerms, Target, frozen_mapping

#: Default of ``JobSpec.stop_grace``: seconds between TERM and KILL.
DEFAULT_STOP_GRACE_SECONDS = 10.0

#: Default of ``JobSpec.linger``: seconds for which the rest of a job's process tree may outlive its main process.
DEFAULT_LINGER_SECONDS = 5.0

#: Signals that a stop may send before KILL; the first is the default.
STOP_SIGNALS = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2")

#: Receivers of the signal of a stop: the whole process tree, or the main process alone; the first is the default.
STOP_MODES = ("tree", "main")

#: Signals that may be sent to a running job, and their receivers: its main process, or its whole process tree.
SIGNAL_NAMES = tuple(number.name for number in signal.Signals if not number.name.startswith("SIGRT"))
SIGNAL_TARGETS = ("main", "tree")

#: Characters of an ended job's arguments and variables that stay in memory. If there are more, only the store has them.
SPEC_KEPT_MAX_CHARACTERS = 4096

#: Processes listed of those that could not be ended.
MAX_LEFTOVER = 100

#: Abilities of workers of this version that earlier versions lack. A worker lists its features when it registers.
FEATURES = ("linger", "stop_signal", "stop_mode", "umask")


@frozen
class Ref:
    """The key of a durable record (its ``ref``); ``kind`` is ``"job"``, ``"worker"``, ``"removed"`` or ``"token"``."""

    kind: str
    id: str


class Stream(enum.Enum):
    """An output stream of a job."""

    STDOUT = "stdout"
    STDERR = "stderr"


class JobState(enum.Enum):
    """The states of a job. A new state also touches ``FINAL``, ``TRANSITIONS`` and ``scheduler.cluster.lifecycle``.

    ``docs/architecture.md`` lists the other places.
    """

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    TIMED_OUT = "timed_out"
    UNKNOWN = "unknown"
    LOST = "lost"

    @cached_property
    def final(self) -> bool:
        """Whether a job in this state never changes again."""
        return self in FINAL


FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED, JobState.TIMED_OUT, JobState.LOST})

#: For each state, the states that may follow it.
TRANSITIONS: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        # the states beyond STARTING are reported by the worker after the store was set back
        JobState.QUEUED: FINAL | {JobState.STARTING, JobState.RUNNING},
        # back to QUEUED, because a start that was never sent does not count
        JobState.STARTING: FINAL | {JobState.QUEUED, JobState.RUNNING, JobState.UNKNOWN},
        JobState.RUNNING: FINAL | {JobState.UNKNOWN},
        JobState.UNKNOWN: FINAL | {JobState.STARTING, JobState.RUNNING},
        **{state: frozenset() for state in FINAL},
    }
)


def error_text(state: JobState, reason: str | None) -> str:
    """Why an ended job did not succeed; ``""`` for a job that has not ended or did succeed."""
    return (reason or state.value) if state.final and state is not JobState.SUCCEEDED else ""


class WorkerState(enum.Enum):
    """Whether scheduler and worker can reach each other."""

    ONLINE = "online"
    UNREACHABLE = "unreachable"
    #: The worker deregistered.
    OFFLINE = "offline"


@frozen
class ScriptSummary:
    """The shown part of a job's ``script``; ``size`` in bytes."""

    size: int
    first_line: str


@frozen
class JobSpec:
    """The command of a job and how to run it. Exactly one of ``command`` and ``script`` is given.

    The job runs as ``command [path] args...``. An empty ``path`` is left out.
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
    #: Seconds for which the rest of the process tree may outlive the main process while the job's output is open.
    linger: float = DEFAULT_LINGER_SECONDS
    #: One of ``STOP_SIGNALS``.
    stop_signal: str = STOP_SIGNALS[0]
    #: One of ``STOP_MODES``.
    stop_mode: str = STOP_MODES[0]
    #: ``None``: the worker's umask.
    umask: int | None = None
    #: A summary of ``script``, which remains when the script is dropped; ``None`` if only the worker has the script.
    script_summary: ScriptSummary | None = None
    #: The number of characters of ``args`` and ``env`` if only the store has these; 0 if this value has them.
    stored: int = field(default=0, eq=False)

    @property
    def features(self) -> frozenset[str]:
        """The subset of ``FEATURES`` that a worker needs to run this job."""
        signal_needed, mode_needed = self.stop_signal != STOP_SIGNALS[0], self.stop_mode != STOP_MODES[0]
        needed = (self.linger != DEFAULT_LINGER_SECONDS, signal_needed, mode_needed, self.umask is not None)
        return frozenset(compress(FEATURES, needed))

    @property
    def fits_core(self) -> bool:
        """Whether the core protocol can express the spec: ``command`` and ``path`` alone."""
        return self == JobSpec(command=self.command, path=self.path, labels=self.labels)

    def without_input(self) -> JobSpec:
        """The spec without ``stdin`` and ``script``, which can be large and are needed only to run the job."""
        return self if self.stdin is None and self.script is None else evolve(self, stdin=None, script=None)

    def trimmed(self) -> JobSpec:
        """The part kept in memory once the job has ended: without input, and without ``args`` and ``env`` if large."""
        spec, size = self.without_input(), sum(len(each) + 1 for each in (*self.args, *self.env, *self.env.values()))
        return spec if size <= SPEC_KEPT_MAX_CHARACTERS else evolve(spec, args=(), env=EMPTY, stored=size)


@frozen
class Usage:
    """Resources used by a job: by all processes whose end its shim saw."""

    #: The maximum resident set of the largest process, in bytes.
    max_rss: int
    #: User and system time of all processes together.
    cpu_seconds: float


@frozen
class Disk:
    """A file system: its size, and the part that an unprivileged process may still use, in bytes and in inodes."""

    size: int
    free: int
    #: 0: the number of inodes is not limited.
    inodes: int = 0
    inodes_free: int = 0


@frozen
class Submission:
    """A job that a client wants run. ``key``: the request is carried out once, however often it is sent."""

    spec: JobSpec
    target: Target
    terms: QueueTerms = NO_WAITING
    key: RequestKey | None = None
    created_by: str | None = None


@frozen
class Job:
    """The scheduler's record of a job."""

    id: str
    spec: JobSpec
    state: JobState
    created_at: float
    worker_id: str | None = None
    worker_name: str | None = None
    #: The id that the worker chose; ``None`` if it uses the scheduler's.
    remote_id: str | None = None
    reason: str | None = None
    #: The principal that submitted it, like ``token:ci``; ``worker:NAME`` if the scheduler first heard of it from its
    #: worker. ``None``: an earlier version made the job.
    created_by: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    signal: str | None = None
    stop_requested_at: float | None = None
    #: Why the scheduler stops the job, if no client asked for the stop.
    stop_reason: str | None = None
    #: When the state became ``unknown``; ``None`` in any other state.
    unknown_since: float | None = None
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    #: Why output was cut; ``None``: as far as known, every byte was kept.
    output_error: str | None = None
    #: Ids of processes that could not be ended, at most ``MAX_LEFTOVER``.
    leftover: tuple[int, ...] = ()
    #: The number of processes that the main process had left behind and that were ended.
    background_ended: int = 0
    usage: Usage | None = None
    #: When a client asked to remove the job, if its worker could not be told yet.
    remove_requested_at: float | None = None
    #: The group's id, which all attempts of a job with ``retry`` share.
    group_id: str | None = None
    #: The job that this one retries, and the job that retries this one.
    retry_of: str | None = None
    retried_by: str | None = None
    #: The requested worker; ``None`` if the scheduler first heard of the job from its worker.
    target: Target | None = None
    terms: QueueTerms = NO_WAITING
    #: The key of the request that it came from. The next attempt of a job has none.
    key: RequestKey | None = None
    #: A client was answered that the job is queued. It must be started exactly once.
    promised: bool = False
    #: The job is ``lost`` here, but its worker came back and still runs it. It can be stopped and followed.
    orphan: bool = False

    @property
    def ref(self) -> Ref:
        """The reference to this record."""
        return Ref("job", self.id)

    @property
    def over(self) -> bool:
        """Whether the job is final, and none of its processes is known to run."""
        return self.state.final and not self.orphan

    @property
    def is_adopted(self) -> bool:
        """Whether the scheduler first heard of the job from its worker."""
        return self.target is None

    @property
    def id_on_worker(self) -> str:
        """The id under which the job's worker knows it."""
        return self.remote_id or self.id

    def trimmed(self) -> Job:
        """The job without the parts that only a run needs, if it has ended. A retry has a spec of its own."""
        spec = self.spec.trimmed() if self.state.final else self.spec
        return self if spec is self.spec else evolve(self, spec=spec)


class Needs(Protocol):
    """A job's requirements on a worker. Provided by ``JobSpec``, and by ``cluster.requirement.Requirement``."""

    @property
    def fits_core(self) -> bool:
        """Whether the core protocol can express the job."""

    @property
    def features(self) -> frozenset[str]:
        """The subset of ``FEATURES`` that the worker needs."""


@frozen
class Presence:
    """The momentary status of a worker, with the disk of its spools. Never stored."""

    state: WorkerState = WorkerState.UNREACHABLE
    #: Why the worker is not online, in words that end a sentence.
    reason: str = ""
    last_seen: float | None = None
    #: A sentence why it accepts no job at present; ``None`` if it does.
    refusing: str | None = None
    disk: Disk | None = None
    #: Seconds by which its clock was ahead of the scheduler's at its last heartbeat.
    clock_difference: float | None = None

    @property
    def is_online(self) -> bool:
        return self.state is WorkerState.ONLINE


@frozen
class Worker:
    """The scheduler's record of a worker: the durable facts. ``Presence`` says what is true for the moment."""

    id: str
    name: str
    #: ``host:port`` of its gRPC server, as dialled.
    address: str
    labels: Mapping[str, str] = field(default=EMPTY, converter=frozen_mapping)
    #: Jobs that placement may put on it at once; ``None``: a core worker, without a limit.
    slots: int | None = None
    draining: bool = False
    #: The boot id of its machine; ``""``: a core worker, which sends no heartbeats.
    boot_id: str = ""
    version: str | None = None
    #: The subset of ``FEATURES`` that the worker has.
    features: frozenset[str] = frozenset()
    #: An id derived from its folder id; ``""``: unknown.
    folder: str = ""
    #: The nonce of the process that registered; ``""``: unknown.
    nonce: str = ""
    #: When it deregistered (POSIX time); ``None`` if it did not.
    deregistered_at: float | None = None

    @property
    def ref(self) -> Ref:
        """The reference to this record."""
        return Ref("worker", self.id)

    @property
    def is_offline(self) -> bool:
        """Whether it deregistered, and has not registered again."""
        return self.deregistered_at is not None

    @property
    def is_core(self) -> bool:
        """Whether the worker speaks only the core protocol."""
        return not self.boot_id

    @property
    def sends_heartbeats(self) -> bool:
        """Whether the worker reports its jobs by heartbeats. If not, the scheduler must poll it."""
        return not self.is_core

    @property
    def seals(self) -> bool:
        """Whether a query can seal the id of a job that the worker does not know: a later start under it then fails."""
        return not self.is_core

    @property
    def has_output(self) -> bool:
        """Whether the worker keeps the output of its jobs for reading."""
        return not self.is_core

    def takes(self, needed: Needs) -> bool:
        """Whether the worker can do everything that the job needs; ``placement.lacking`` names what is missing."""
        return (needed.fits_core or not self.is_core) and needed.features <= self.features


@frozen
class RemovedJob:
    """The rest of a job that a client removed. It is kept as long as the job would be kept."""

    job_id: str
    #: When it was removed.
    removed_at: float
    key: RequestKey | None = None

    @property
    def ref(self) -> Ref:
        """The reference to this record."""
        return Ref("removed", self.job_id)
