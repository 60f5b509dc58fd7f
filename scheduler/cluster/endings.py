"""Ends of jobs that are known and not yet durable.

Theory of operation. Nobody sees the end of a job before it is durable: a final state
that was seen never changes, not even by a crash. From when an end is known until it is
durable nothing else changes the job.

When the store fails, an end that was decided by the scheduler is void. An end that a worker
reported is true, so it is held: the job stays as it was, with a ``reason`` that says so,
the end is not acknowledged to the worker, and it is shown once the store has taken it.
The next attempt, which would become visible with it, is held with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define, evolve
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.cluster import lifecycle
from scheduler.cluster.registry import Registry
from scheduler.errors import StoreFailed
from scheduler.interfaces import Record
from scheduler.model import Job, Ref

#: The reason of a job whose end is held; ``{}`` says why the store fails.
UNSAVED_END = "it has ended, and its end can't be saved yet: {}"


@define(eq=False)
class Ending:
    """The end of one job, and its next attempt, which becomes visible with it."""

    job: Job
    following: Job | None = None
    #: Why the store did not take it; ``None``: it is being saved.
    problem: str | None = None

    @property
    def held(self) -> bool:
        """Whether the store failed to take the end, which is held until it does."""
        return self.problem is not None

    def jobs(self) -> list[Job]:
        """The job, and its next attempt."""
        return [self.job] if self.following is None else [self.job, self.following]


class Endings:
    """The endings of one ledger, by the ids of the jobs."""

    _log = Logger()

    def __init__(self, registry: Registry, show: Callable[[Job], None]) -> None:
        """``show`` puts a job into the registry, and publishes the change."""
        self._registry = registry
        self._show_job = show
        self._endings: dict[str, Ending] = {}
        # the jobs of those that are held
        self._held: dict[Ref, Job] = {}

    def __contains__(self, job_id: str) -> bool:
        """Whether the end of that job is known, and not yet durable."""
        return job_id in self._endings

    def __bool__(self) -> bool:
        return bool(self._endings)

    def begin(self, ending: Ending) -> None:
        """Keep an end that is being saved from now on."""
        self._endings[ending.job.id] = ending

    def settle(self, ending: Ending, result: object, decided: bool) -> None:
        """Show, forget or hold an end, by the ``result`` of saving it.

        ``decided``: no worker reported it.
        """
        if self._endings.get(ending.job.id) is not ending:
            return  # the job was removed meanwhile
        if not isinstance(result, Failure):
            self._show(ending)
            return
        job, error = self._registry.jobs.find(ending.job.id), result.value
        if decided or job is None or not isinstance(error, StoreFailed):  # the worker reports one not known yet again
            self.forget(ending.job.id)
            return
        self._hold(ending, str(error))
        self._show_job(evolve(job, reason=UNSAVED_END.format(StoreFailed.sentence(str(error)))))

    def caught_up(self, records: Iterable[Record]) -> None:
        """Show the held ends among these records, which the store has taken at last."""
        for record in records:
            ending = self._endings.get(record.id) if isinstance(record, Job) else None
            if ending is not None and ending.held and ending.job is record:
                self._show(ending)

    def find(self, ref: Ref) -> Job | None:
        """The job of that name that is held."""
        return self._held.get(ref)

    def following(self, job_id: str) -> Job | None:
        """The next attempt with that id, if it becomes visible with an end that is kept here."""
        attempts = (ending.following for ending in self._endings.values())
        return next((attempt for attempt in attempts if attempt is not None and attempt.id == job_id), None)

    def failure(self, job_id: str) -> StoreFailed | None:
        """The error for which the end of that job is held; ``None``: it is not held."""
        ending = self._endings.get(job_id)
        return None if ending is None or ending.problem is None else StoreFailed(ending.problem)

    def held(self) -> list[Job]:
        """The jobs whose ends are held, as they ended."""
        return [ending.job for ending in self._endings.values() if ending.held]

    def adopted(self, worker_id: str) -> tuple[int, int]:
        """The number of adopted jobs of that worker, and of all workers, including those whose ends are being saved."""
        find = self._registry.jobs.find
        ending = [each.job for each in self._endings.values() if each.job.is_adopted and find(each.job.id) is None]
        own = sum(job.worker_id == worker_id for job in ending)
        return self._registry.jobs.adopted(worker_id) + own, self._registry.jobs.adopted() + len(ending)

    def jobs(self) -> list[Job]:
        """The jobs that are held, with the next attempts that become visible with their ends."""
        return list(self._held.values())

    def forget(self, job_id: str) -> None:
        """Forget the end of that job: it is durable, or void, or the job is gone."""
        ending = self._endings.pop(job_id, None)
        if ending is not None and ending.held:
            for job in ending.jobs():
                self._held.pop(job.ref, None)

    def _hold(self, ending: Ending, problem: str) -> None:
        ending.problem = problem
        self._held.update({job.ref: job for job in ending.jobs()})

    def _show(self, ending: Ending) -> None:
        self.forget(ending.job.id)
        if ending.following is not None:  # first: whoever sees the end of a job finds its next attempt
            told = self._registry.jobs.find(ending.following.id)  # by its worker, meanwhile
            if told is not None:
                self._show_job(lifecycle.as_attempt(told, ending.following))
            elif ending.following.id not in self._endings:  # else it has ended, and is shown when that is durable
                self._show_job(ending.following)
        self._show_job(ending.job)
        self._log_end(ending.job)

    def _log_end(self, job: Job) -> None:
        facts: dict[str, object] = {"exit_code": job.exit_code, "signal": job.signal, "reason": job.reason}
        if job.started_at is not None and job.finished_at is not None:
            facts["seconds"] = round(job.finished_at - job.started_at, 3)
        self._log.info(
            "job {job_id} on {worker} has ended: {state}",
            job_id=job.id,
            worker=job.worker_name or "no worker",
            state=job.state.value,
            **{name: value for name, value in facts.items() if value is not None},
        )
