"""Stops: a requested stop is carried out unless the job has ended, and no attempt follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scheduler.model import Job, Worker
from tests.simulation.rules.rule import Broken, Rule

if TYPE_CHECKING:
    from tests.simulation.facts import Facts
    from tests.simulation.nodes import SchedulerProcess

#: Seconds within which a worker is told of a stop and has ended the job, if nothing fails.
PROMPTLY = 20.0


class Stops(Rule):
    """A job with a stop on record ends, and so does its chain."""

    def __init__(self, facts: Facts, broken: Broken) -> None:
        super().__init__(facts, broken)
        #: Job id -> when the stop was first seen on record, by the loop's clock.
        self._asked: dict[str, float] = {}
        #: Job id -> the worker that reported its end, and when the scheduler received the report.
        self._reported: dict[str, tuple[str, float]] = {}

    def shown(self, scheduler: SchedulerProcess | None, before: Job | None, job: Job) -> None:
        if job.stop_requested_at is not None:
            self._asked.setdefault(job.id, self.facts.world.loop.now)
            return
        self._asked.pop(job.id, None)  # a stop that was not answered is not kept
        if job.retry_of is None or self.facts.is_untold(job.retry_of):
            return
        if before is None and job.retry_of in self._asked:
            what = f"job {job.retry_of} is to be stopped, and job {job.id} follows"
            self.broken("a stop ends the chain", what, job.id)

    def ends_reported(self, worker_id: str, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            self._reported[job_id] = worker_id, self.facts.world.loop.now

    def stopping(self, worker: Worker, job_id: str) -> None:
        scheduler = self.facts.world.scheduler
        assert scheduler is not None
        if self._reported.get(job_id) == (worker.id, self.facts.world.loop.now):
            what = f"a stop of job {job_id} is sent to worker {worker.name}, which just said that it has ended"
            self.broken("no stop after the end", what, job_id)
        elif job_id in scheduler.parts.ledger.endings:
            what = f"a stop of job {job_id} is sent to worker {worker.name} while the end of the job is being saved"
            self.broken("no stop after the end", what, job_id)

    def agreed(self) -> None:
        scheduler = self.facts.world.scheduler
        assert scheduler is not None
        for job_id, since in self._asked.items():
            job = scheduler.parts.ledger.registry.jobs.find(job_id)
            if job is not None and not job.over and self.facts.world.loop.now - since > PROMPTLY:
                self.broken("a stop is carried out", f"job {job_id} is to be stopped, and is {job.state.value}", job_id)
