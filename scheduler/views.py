"""Values with which clients look at jobs and workers: filters, pages, views of workers, readiness."""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen

from scheduler.model import Job, JobState, Presence, Worker


@frozen
class JobFilter:
    """Selects jobs. Every field that is set must match. Time ranges are half open: after <= t < before (POSIX)."""

    #: A worker's id or name. A name selects the jobs of the worker that has it now, and jobs that are queued for this
    #: worker. If no worker has the name, it selects jobs that were started under it, or are queued for it.
    worker: str | None = None
    states: frozenset[JobState] = frozenset()
    #: Key -> value; all must match.
    labels: dict[str, str] = field(factory=dict)
    created_by: str | None = None
    created_after: float | None = None
    created_before: float | None = None
    finished_after: float | None = None
    finished_before: float | None = None
    orphan: bool | None = None
    group_id: str | None = None
    #: A prefix of the job's id.
    id_prefix: str | None = None
    #: Whether a job is within the reach of the client; ``None``: every job is.
    within: Callable[[Job], bool] | None = None


@frozen
class JobPage:
    """A page of jobs, newest first; ``next`` is the cursor of the next page, ``None`` after the last."""

    jobs: tuple[Job, ...]
    next: str | None = None


@frozen
class WorkerView:
    """A worker, its presence, and the number of its jobs that have not ended.

    ``reason``: a sentence why it can't be reached, is offline or accepts no job at present; ``None`` if it does.
    """

    worker: Worker
    presence: Presence
    running_jobs: int
    reason: str | None = None


@frozen
class Readiness:
    """Whether the scheduler can take new work. ``reasons`` are sentences why it can't; empty means ready.

    ``notes`` are sentences about what will go wrong if nothing is done.
    """

    reasons: tuple[str, ...] = ()
    workers_online: int = 0
    notes: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        return not self.reasons


@frozen
class WaitingFor:
    """Why a job is queued: ``why`` is a constant of ``scheduler.cluster.jobs.outlook``, ``detail`` a sentence."""

    why: str
    detail: str
    #: The job's place among those that wait for one of its workers; the first is 1.
    place: int
