"""Turns the records of a spool into values of the model, and values into records."""

from __future__ import annotations

from typing import Any

from attrs import fields, frozen

from scheduler.messages import JobStatus
from scheduler.model import JobSpec, JobState, Usage
from scheduler.request_keys import RequestKey
from scheduler.worker.shim.exits import Record
from scheduler.worker.shim.spool import ProcessId

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


class CopiedSpool(Exception):
    """The spool is a copy of the one from which its job runs or ran, so it can't tell how the job ended."""


@frozen
class HeldByShim:
    """A shim has the job. Its identity is known a moment after it took the lock."""

    shim: ProcessId | None
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
    if key is None:
        return None
    text, fingerprint = key
    return RequestKey(text, fingerprint, record.get("request_principal"))


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
