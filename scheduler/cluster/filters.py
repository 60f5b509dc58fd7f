"""The filter of a listing of jobs, and the cursor of its next page."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Callable

from scheduler.cluster.indices import count_down
from scheduler.errors import Invalid, NotFound
from scheduler.model import Job, Worker
from scheduler.views import JobFilter


class WorkerNames:
    """The ids and names of workers in jobs, with the number of jobs that have each."""

    def __init__(self) -> None:
        self._counts: Counter[str | None] = Counter()

    def replace(self, old: Job | None, new: Job | None) -> None:
        """A job was added (``old`` is ``None``), changed, or removed (``new`` is ``None``)."""
        before, after = _names_in(old), _names_in(new)
        self._counts.update(after - before)
        for name in before - after:
            count_down(self._counts, name)

    def meant_by(self, which: JobFilter, find: Callable[[str], Worker]) -> Worker | None:
        """The worker that the filter names; ``find`` finds it by id or name.

        ``None``: the filter names no worker, or one that only jobs know. Raises ``NotFound`` if no job knows it either.
        """
        if which.worker is None:
            return None
        try:
            return find(which.worker)
        except NotFound:
            if which.worker not in self._counts:
                raise
            return None


def _names_in(job: Job | None) -> set[str | None]:
    """The id and name of the job's worker, and the worker that it is queued for; ``None`` may be among them."""
    if job is None:
        return set()
    return {job.worker_id, job.worker_name, None if job.target is None else job.target.worker}


def selects(which: JobFilter, worker: Worker | None, job: Job) -> bool:
    """Whether every field of the filter that is set matches the job.

    ``worker`` is the worker that has the id or name ``which.worker`` now; ``None``: no worker has.
    """
    return (
        (which.worker is None or _is_of(worker, which.worker, job))
        and (not which.states or job.state in which.states)
        and all(job.spec.labels.get(key) == value for key, value in which.labels.items())
        and (which.created_by is None or job.created_by == which.created_by)
        and _within(job.created_at, which.created_after, which.created_before)
        and _within(job.finished_at, which.finished_after, which.finished_before)
        and which.orphan in {None, job.orphan}
        and which.group_id in {None, job.group_id}
        and (which.id_prefix is None or job.id.startswith(which.id_prefix))
        and (which.within is None or which.within(job))
    )


def _is_of(worker: Worker | None, name: str, job: Job) -> bool:
    if worker is None:
        return name in _names_in(job)
    if job.worker_id is not None:  # the worker may have had another name when the job was started
        return job.worker_id == worker.id
    return job.target is not None and job.target.worker in {worker.id, worker.name}


def _within(time: float | None, after: float | None, before: float | None) -> bool:
    if after is None and before is None:
        return True
    return time is not None and (after is None or after <= time) and (before is None or time < before)


def cursor_after(job: Job) -> str:
    """The cursor of a listing that goes on after that job."""
    return base64.urlsafe_b64encode(f"{job.created_at!r} {job.id}".encode()).decode()


def place_of(cursor: str) -> tuple[float, str]:
    """The time of creation and the id of the job after which the cursor goes on. Raises ``Invalid`` if it is bad."""
    try:
        created_at, job_id = base64.urlsafe_b64decode(cursor.encode()).decode().split(" ")
        return float(created_at), job_id
    except (binascii.Error, ValueError):
        raise Invalid("cursor", "is not one that a listing gave as its next") from None
