"""Values with which clients look at jobs and workers: a filter, a page of a list, a worker's view, and readiness."""

from __future__ import annotations

from attrs import field, frozen

from scheduler.model import Job, JobState, Worker


@frozen
class JobFilter:
    """Which jobs; every field that is set must match. Times are POSIX times, half open: after <= t < before."""

    #: An id or a name. A name means the worker that has it now, with all of its jobs, and those that are queued for it;
    #: where none has it now, the jobs that were started under it, or are queued for it.
    worker: str | None = None
    states: frozenset[JobState] = frozenset()
    #: ``key`` -> value; all must match.
    labels: dict[str, str] = field(factory=dict)
    created_by: str | None = None
    created_after: float | None = None
    created_before: float | None = None
    finished_after: float | None = None
    finished_before: float | None = None
    orphan: bool | None = None
    group_id: str | None = None
    #: The beginning of ids.
    id_prefix: str | None = None


@frozen
class JobPage:
    """Some jobs, newest first, or none; ``next`` is the cursor of the page after this one, ``None`` after the last."""

    jobs: tuple[Job, ...]
    next: str | None = None


@frozen
class WorkerView:
    """A worker and how many of its jobs have not ended.

    ``reason``: why it can't be reached, since when it is offline, or why it takes no job at present, a sentence;
    ``None``: it can be reached, and takes jobs.
    """

    worker: Worker
    running_jobs: int
    reason: str | None = None


@frozen
class Readiness:
    """``reasons`` says why not, one sentence each; empty means ready."""

    reasons: tuple[str, ...] = ()
    workers_online: int = 0

    @property
    def ready(self) -> bool:
        return not self.reasons


@frozen
class WaitingFor:
    """Why a job is queued: a word of ``scheduler.cluster.jobs.outlook`` for programs, and a sentence."""

    why: str
    detail: str
    #: 1, and how many go before it of those that wait for one of its workers.
    place: int
