"""The values that the client returns, frozen and made from the JSON of the API.

They tolerate other versions of the scheduler. A field that this version does not know is in ``data``, the whole JSON
object. A field that the scheduler did not send is ``None``, or empty. Times are datetimes in UTC, with their time zone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

import attrs
from attrs import field, frozen

from scheduler.client.errors import ClientError

Object = Mapping[str, Any]

V = TypeVar("V", bound=attrs.AttrsInstance)

#: States that a job never leaves.
FINAL_STATES = frozenset({"succeeded", "failed", "stopped", "timed_out", "lost"})


def _time(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None


def _mapping(value: Any) -> Object:
    return value if isinstance(value, Mapping) else {}


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else ()


def _known(cls: type[V], data: Object) -> dict[str, Any]:
    """The members of ``data`` that are fields of ``cls``."""
    return {each.name: data[each.name] for each in attrs.fields(cls) if each.name in data}


def _part(cls: type[V], value: Any) -> V | None:
    """A JSON object as a ``cls``; ``None`` if it is no object, or lacks a field that ``cls`` needs."""
    if not isinstance(value, Mapping):
        return value if isinstance(value, cls) else None
    try:
        return cls(**_known(cls, value))
    except TypeError:
        return None


@frozen
class Usage:
    """The resources used by all processes of a job together."""

    #: Bytes of the largest resident set.
    max_rss: int
    #: Seconds of processor time, user and system.
    cpu_seconds: float


@frozen
class WaitingFor:
    """Why a queued job waits."""

    #: A word for programs: ``no-free-slot``, ``draining``, ``unreachable``, ``backoff``, ``no-match``, ``delay``.
    why: str
    #: The reason as a sentence.
    detail: str
    #: The job's place in the queue; 1 is next.
    place: int


@frozen
class Disk:
    """The disk with a worker's spools: bytes and inodes."""

    size: int
    free: int
    inodes: int
    inodes_free: int


def _usage(value: Any) -> Usage | None:
    return _part(Usage, value)


def _waiting_for(value: Any) -> WaitingFor | None:
    return _part(WaitingFor, value)


def _disk(value: Any) -> Disk | None:
    return _part(Disk, value)


@frozen
class Job:
    """A job as the scheduler sent it; ``docs/api.md`` explains each field.

    Times are datetimes, durations are seconds, sizes are bytes.
    """

    id: str
    #: ``queued``, ``starting``, ``running``, ``unknown``, or one of ``FINAL_STATES``.
    state: str
    reason: str | None = None
    worker_id: str | None = None
    worker_name: str | None = None
    command: str | None = None
    args: tuple[str, ...] = field(default=(), converter=_tuple)
    path: str | None = None
    script: Object | None = None
    cwd: str | None = None
    env: Object = field(factory=dict, converter=_mapping)
    labels: Object = field(factory=dict, converter=_mapping)
    created_by: str | None = None
    created_at: datetime | None = field(default=None, converter=_time)
    started_at: datetime | None = field(default=None, converter=_time)
    finished_at: datetime | None = field(default=None, converter=_time)
    #: The exit code of the main process; ``None`` if there is none: a ``signal`` ended it, or it never ran.
    exit_code: int | None = None
    #: The signal that ended the main process, like ``"SIGKILL"``.
    signal: str | None = None
    stop_requested_at: datetime | None = field(default=None, converter=_time)
    remove_requested_at: datetime | None = field(default=None, converter=_time)
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    #: Why not all of the job's output was kept; ``None``: every byte was kept.
    output_error: str | None = None
    leftover: tuple[int, ...] = field(default=(), converter=_tuple)
    background_ended: int | None = None
    usage: Usage | None = field(default=None, converter=_usage)
    waiting_for: WaitingFor | None = field(default=None, converter=_waiting_for)
    timeout: float | None = None
    unattended_timeout: float | None = None
    priority: int | None = None
    queue_timeout: float | None = None
    group_id: str | None = None
    retry_of: str | None = None
    retried_by: str | None = None
    orphan: bool = False
    #: The whole JSON object.
    data: Object = field(factory=dict, repr=False)

    @property
    def final(self) -> bool:
        """Whether the job has ended, and never changes again."""
        return self.state in FINAL_STATES

    @property
    def succeeded(self) -> bool:
        """Whether the job ended with exit code 0."""
        return self.state == "succeeded"

    @classmethod
    def from_json(cls, data: Any) -> Job:
        """The job in an answer's JSON. Raises ``ClientError`` if the JSON is not a job."""
        if not isinstance(data, dict) or not isinstance(data.get("id"), str) or not isinstance(data.get("state"), str):
            raise ClientError(f"the answer is not a job: {str(data)[:200]}")
        return cls(**{**_known(cls, data), "data": data})


@frozen
class Worker:
    """A worker as the scheduler sent it; ``docs/api.md`` explains each field."""

    id: str
    name: str
    #: ``online``, ``unreachable`` or ``offline``.
    state: str
    reason: str | None = None
    address: str | None = None
    labels: Object = field(factory=dict, converter=_mapping)
    #: ``None``: a core worker, without a limit.
    slots: int | None = None
    draining: bool = False
    last_seen: datetime | None = field(default=None, converter=_time)
    running_jobs: int = 0
    version: str | None = None
    features: tuple[str, ...] = field(default=(), converter=_tuple)
    disk: Disk | None = field(default=None, converter=_disk)
    #: The worker's clock minus the scheduler's, in seconds.
    clock_difference: float | None = None
    #: The whole JSON object.
    data: Object = field(factory=dict, repr=False)

    @classmethod
    def from_json(cls, data: Any) -> Worker:
        """The worker in an answer's JSON. Raises ``ClientError`` if the JSON is not a worker."""
        needed = ("id", "name", "state")
        if not isinstance(data, dict) or not all(isinstance(data.get(name), str) for name in needed):
            raise ClientError(f"the answer is not a worker: {str(data)[:200]}")
        return cls(**{**_known(cls, data), "data": data})


@frozen
class Token:
    """A token as the scheduler sent it; ``docs/api.md`` explains each field."""

    id: str
    name: str
    #: ``read``, ``run`` or ``admin``.
    scope: str
    #: Labels that a worker must have to be within the token's reach.
    workers: Object = field(factory=dict, converter=_mapping)
    created_at: datetime | None = field(default=None, converter=_time)
    created_by: str | None = None
    #: ``None``: never.
    expires_at: datetime | None = field(default=None, converter=_time)
    expired: bool = False
    #: To the minute.
    last_used_at: datetime | None = field(default=None, converter=_time)
    #: The token itself, only in the answer that made it.
    token: str | None = field(default=None, repr=False)
    #: The whole JSON object.
    data: Object = field(factory=dict, repr=False)

    @classmethod
    def from_json(cls, data: Any) -> Token:
        """The token in an answer's JSON. Raises ``ClientError`` if the JSON is not a token."""
        needed = ("id", "name", "scope")
        if not isinstance(data, dict) or not all(isinstance(data.get(name), str) for name in needed):
            raise ClientError("the answer is not a token")
        return cls(**{**_known(cls, data), "data": data})


@frozen
class Version:
    """The scheduler's version."""

    version: str
    #: The version of the API: ``"v1"``.
    api: str


@frozen
class Readiness:
    """Whether the scheduler can take work or, if not, why."""

    ready: bool
    workers_online: int = 0
    reasons: tuple[str, ...] = ()


@frozen
class Result:
    """The result of ``run``: all output of the job, and the job at its end.

    If the job was retried, everything is about its last attempt.
    """

    job: Job
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)

    @property
    def exit_code(self) -> int | None:
        """The exit code of the main process, 0 to 255.

        ``None`` if there is none: a signal ended the process (``job.signal``, like ``"SIGKILL"``), it could not be
        started, or the code is not known (``job.state`` is ``"lost"``). A shell's 128+n is not used.
        """
        return self.job.exit_code

    @property
    def succeeded(self) -> bool:
        """Whether the job ended with exit code 0, by itself."""
        return self.job.succeeded

    @property
    def output_error(self) -> str | None:
        """Why ``stdout`` and ``stderr`` are not everything that the job wrote; ``None`` if they are."""
        return self.job.output_error


@frozen
class Output:
    """An event: some bytes of one stream of a job."""

    #: ``"stdout"`` or ``"stderr"``.
    stream: str
    #: The position of the first byte of ``data`` in the stream.
    offset: int
    data: bytes


@frozen
class Changed:
    """An event: the job's state or reason has changed. It is also the first event of every job."""

    job: Job


@frozen
class Ended:
    """An event: the job has ended, and all of its output was delivered. Nothing follows."""

    job: Job


Event = Output | Changed | Ended
