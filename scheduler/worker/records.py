"""Turns the records of a spool into values of the model, and decides the end of a job whose shim is gone.

Functions whose names end in ``_thd`` block on the disk and run in a pool.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from attrs import fields, frozen

from scheduler.completeness import LOST_OUTPUT
from scheduler.messages import JobStatus, RequestKey
from scheduler.model import JobSpec, JobState, Usage
from scheduler.worker.shim import proctree
from scheduler.worker.shim.exits import Exit, Record, left_behind, limit_reached
from scheduler.worker.shim.spool import Identity, Spool, boot_id

#: Reasons of ``lost``.
SHIM_KILLED = "its shim was killed by a signal"
SPOOL_REMOVED = "its spool was removed"
REBOOTED = "rebooted"

#: Fields of a spec that its record has.
_RECORDED_FIELDS = [
    field.name for field in fields(JobSpec) if field.name not in {"stdin", "script", "script_summary", "stored"}
]

#: Fields that a status takes from an exit record.
_STATUS_FIELDS = {field.name for field in fields(JobStatus)} - {"job_id"}

_TEXTS = {"reason", "signal", "tree", "output_error"}

#: The bounds of each number in a status. Times end with the year 9999.
_RANGES: dict[str, tuple[float, float]] = {
    "started_at": (0.0, 253402300799.0),
    "finished_at": (0.0, 253402300799.0),
    "exit_code": (-(2**31), 2**31 - 1),
    "stdout_bytes": (0, 2**63 - 1),
    "stderr_bytes": (0, 2**63 - 1),
    "background_ended": (0, 2**31 - 1),
}

#: Seconds to wait for the end of the processes that a killed shim left.
_STRAYS_WAIT_MAX_SECONDS = 5.0


class CopiedSpool(Exception):
    """The spool is a copy of the one from which its job runs or ran, so it can't tell how the job ended."""


@frozen
class HeldByShim:
    """A shim has the job. Its identity is known a moment after it took the lock."""

    shim: Identity | None
    started_at: float | None


@frozen
class NeverBegun:
    """No shim has taken the job on."""


@frozen
class NotStartable:
    """A shim took the job on, and the machine could not start it. The job did not run, and no shim will begin it."""

    why: str


#: The outcome or state of a job, as its spool shows it.
Seen = JobStatus | HeldByShim | NeverBegun | NotStartable


def spec_record(spec: JobSpec) -> Record:
    """Make the record of a spec, without stdin and script."""
    record = {name: getattr(spec, name) for name in _RECORDED_FIELDS}
    return record | {"env": dict(spec.env), "labels": dict(spec.labels)}


def spec_of(record: Record) -> JobSpec:
    """Read the spec in ``job.json``."""
    return JobSpec(**record["spec"] | {"args": tuple(record["spec"]["args"])})


def key_of(record: Record) -> RequestKey | None:
    """Read the key of the request that the job came from; ``None``: it had none, or an earlier version wrote this."""
    key = record.get("request_key")
    return None if key is None else RequestKey(*key)


def status_of(job_id: str, record: Record) -> JobStatus:
    """Make a status of an exit record. Raises ``ValueError`` for a damaged one, which no message could carry."""
    known: dict[str, Any] = {name: value for name, value in record.items() if name in _STATUS_FIELDS}
    usage = record.get("usage")
    known |= {
        "state": JobState(record["state"]),
        "leftover": tuple(record["leftover"]),
        "usage": None if usage is None else Usage(usage["max_rss"], usage["cpu_seconds"]),
    }
    for name, value in known.items():
        _check(name, value)
        if isinstance(value, str):  # JSON can hold a lone surrogate, and a message can't
            known[name] = value.encode("utf-8", "replace").decode()
    return JobStatus(job_id, **known)


def _check(name: str, value: Any) -> None:
    """Raise ``ValueError`` if the field can't have that value."""
    if name in _TEXTS:
        possible = value is None or isinstance(value, str)
    elif name == "leftover":
        possible = all(isinstance(pid, int) and 0 < pid < 2**31 for pid in value)
    elif name == "usage":
        possible = value is None or (_is_in(value.max_rss, 0, 2**63 - 1) and _is_in(value.cpu_seconds, 0, 1e300))
    else:
        possible = name not in _RANGES or value is None or _is_in(value, *_RANGES[name])
    if not possible:
        raise ValueError(f"{name} is {value!r}")


def _is_in(value: Any, least: float, most: float) -> bool:
    """Whether ``value`` is a number within the limits, and an integer if they are."""
    return isinstance(value, (int, type(most))) and least <= value <= most


def _end_of(job_id: str, record: Record) -> JobStatus | NotStartable:
    shortage = record.get("shortage")
    return NotStartable(shortage) if shortage else status_of(job_id, record)


def judge_thd(
    job_id: str, spool: Spool, wall_time: Callable[[], float], not_begun: str | None = None, own: bool = False
) -> Seen:
    """Decide how the job ended, or which shim has it.

    A job with neither shim nor exit record is lost: this writes the record, while holding the lock. With ``not_begun``,
    a job that was never begun fails for that reason, and a shim that still comes for it will not begin it. Raises
    ``FileNotFoundError`` if the spool was removed, ``CopiedSpool`` for a copy, unless a shim was seen to have it
    (``own``).
    """
    spool.unlock()
    ended = spool.read_exit()
    if ended is not None:
        return _end_of(job_id, ended)
    with spool.locked() as lock:
        begun_by = spool.begun_by()
        if lock is None:
            started = spool.read_start()
            return HeldByShim(begun_by, started["started_at"] if started else None)
        ended = spool.read_exit()
        if ended is None:
            job = spool.read_job()
            if job is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), spool.job_path)
            rebooted = job["boot_id"] != boot_id()
            if not (rebooted or own) and (spool.is_copy(job) or _lives(begun_by)):
                raise CopiedSpool
            if rebooted or begun_by is not None:  # a power cut may have taken the trace of a shim
                ended = _lost_thd(spool, job, wall_time, rebooted)
            elif not_begun is not None:
                spool.sync()  # the process that made it may not have done so
                ended = Exit(JobState.FAILED.value, not_begun, wall_time()).record()
            else:
                return NeverBegun()
            spool.write_exit(ended)
        return _end_of(job_id, ended)


def _lives(shim: Identity | None) -> bool:
    """Whether the shim runs. It then has the lock of its own spool."""
    return shim is not None and any(not each.exiting for each in proctree.still([shim]))


def _lost_thd(spool: Spool, job: Record, wall_time: Callable[[], float], rebooted: bool) -> Record:
    """Make the record of a lost job, once the processes that its shim left are ended."""
    started, shim = spool.read_start(), spool.begun_by()
    since = started["starttime"] if started else shim.starttime if shim else None
    tree: str = ""
    left: list[Identity] = []
    if not rebooted and since is not None and proctree.of_spool(spool.folder, since):
        tree = "killed"
        left = proctree.end(lambda: proctree.of_spool(spool.folder, since), _STRAYS_WAIT_MAX_SECONDS)
    reasons = [REBOOTED if rebooted else SHIM_KILLED]
    if left:
        reasons.append(left_behind([each.pid for each in left]))
    sizes, limit = spool.sizes(), job.get("output_limit")
    return Exit(
        JobState.LOST.value,
        "; ".join(reasons),
        wall_time(),
        *sizes,
        output_error=LOST_OUTPUT if limit is None or sum(sizes) < limit else limit_reached(limit),
        started_at=started["started_at"] if started else None,
        tree=tree,
        leftover=tuple(each.pid for each in left),
        leftover_started=tuple(each.starttime for each in left),
    ).record()
