"""Acts under way: how an act reaches the transaction that carries it out.

``UNDER_WAY`` holds the act of the request for which the present code runs. Deferreds of coroutines keep the context in
which they began, so the save of the operation finds the act there, and takes it along into its transaction. Calls to
workers keep the context, too, and other records may be saved when they are answered. So an act goes only with a record
that it is about. If its operation saved none, whoever began the operation records the act.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar

from attrs import evolve

from scheduler.model import Job, JobSpec, Ref, RemovedJob, Worker
from scheduler.security.audit import Act

#: Says whether an act is about a record.
About = Callable[[object], bool]


class ActUnderWay:
    """An act, and what the saves of its operation took of it."""

    def __init__(self, act: Act, about: About, *, of_jobs: bool = False) -> None:
        """``of_jobs``: each job that it is about is the target of an act of its own."""
        self.act = act
        #: The acts that were taken, by their targets.
        self.taken: dict[str, Act] = {}
        self._about = about
        self._of_jobs = of_jobs
        self._closed = False

    def close(self) -> None:
        """Let nothing more be taken: the operation is over."""
        self._closed = True

    def take(self, records: Sequence[object]) -> list[Act]:
        """The acts to be saved with these records, in the same transaction."""
        if self._closed or (self.taken and not self._of_jobs):
            return []
        found = [record for record in records if self._about(record)]
        if self._of_jobs:
            acts = [self.of(job) for job in found if isinstance(job, Job) and job.id not in self.taken]
        else:
            acts = [self.act] if found else []
        self.taken.update((act.target, act) for act in acts)
        return acts

    def give_back(self, acts: Sequence[Act]) -> None:
        """Note that these acts were not saved: nothing came of the change that they belong to."""
        for act in acts:
            self.taken.pop(act.target, None)

    def of(self, job: Job) -> Act:
        """The act, with this job as its target."""
        return evolve(self.act, target=job.id, worker=job.worker_name or "")


UNDER_WAY: ContextVar[ActUnderWay | None] = ContextVar("act_under_way", default=None)


def nothing(_: object) -> bool:
    """For an act that no record shows."""
    return False


def job_with(spec: JobSpec) -> About:
    """For the start of a job with this very spec."""
    return lambda record: isinstance(record, Job) and record.spec is spec


def job(job: Job) -> About:
    """For an act on a job, or on another attempt of it, or on its removal."""

    def about(record: object) -> bool:
        if isinstance(record, Job):
            return record.id == job.id or (record.group_id is not None and record.group_id == job.group_id)
        return record == job.ref or (isinstance(record, RemovedJob) and record.job_id == job.id)

    return about


def stopped_since(time: float) -> About:
    """For a stop of many jobs, asked for at that POSIX time."""
    return lambda record: isinstance(record, Job) and (record.stop_requested_at or 0.0) >= time


def worker(worker: Worker) -> About:
    """For an act on a worker."""
    return lambda record: (record.ref if isinstance(record, Worker) else record) == Ref("worker", worker.id)
