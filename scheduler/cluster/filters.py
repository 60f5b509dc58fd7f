"""Which jobs a listing shows, and where the next page of it begins."""

from __future__ import annotations

import base64
import binascii

from scheduler.errors import Invalid
from scheduler.interfaces import JobFilter
from scheduler.model import Job


def selects(which: JobFilter, job: Job) -> bool:
    """Whether every field of the filter that is set matches the job."""
    return (
        (which.worker is None or which.worker in {job.worker_id, job.worker_name})
        and (not which.states or job.state in which.states)
        and all(job.spec.labels.get(key) == value for key, value in which.labels.items())
        and (which.created_by is None or job.created_by == which.created_by)
        and _within(job.created_at, which.created_after, which.created_before)
        and _within(job.finished_at, which.finished_after, which.finished_before)
        and which.orphan in {None, job.orphan}
        and which.group_id in {None, job.group_id}
        and (which.id_prefix is None or job.id.startswith(which.id_prefix))
    )


def _within(time: float | None, after: float | None, before: float | None) -> bool:
    if after is None and before is None:
        return True
    return time is not None and (after is None or after <= time) and (before is None or time < before)


def cursor_after(job: Job) -> str:
    """The cursor of a listing that goes on after that job."""
    return base64.urlsafe_b64encode(f"{job.created_at!r} {job.id}".encode()).decode()


def place_of(cursor: str) -> tuple[float, str]:
    """Time of creation and id of the job that a cursor was made after; ``Invalid``."""
    try:
        created_at, job_id = base64.urlsafe_b64decode(cursor.encode()).decode().split(" ")
        return float(created_at), job_id
    except (binascii.Error, ValueError):
        raise Invalid("cursor", "is not one that a listing gave as its next") from None
