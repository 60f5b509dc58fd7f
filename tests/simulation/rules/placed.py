"""The placement of jobs: slots, priority, age, and drained workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.model import Job, JobState, Worker
from tests.simulation.machine import EPOCH
from tests.simulation.rules.rule import Rule

if TYPE_CHECKING:
    from tests.simulation.nodes import SchedulerProcess

#: Seconds for which a job must have waited before a job placed ahead of it counts as a violation.
UNSAVED_MAX_SECONDS = 0.1


class Placed(Rule):
    """A job by selector starts only with a slot and in its turn, and a drained worker stays drained."""

    def worker_shown(self, scheduler: SchedulerProcess, worker: Worker) -> None:
        if worker.id in self.facts.drained and not worker.draining:
            self.broken("a drain stays", f"worker {worker.name} was drained, and is not any more")

    def shown(self, scheduler: SchedulerProcess | None, before: Job | None, job: Job) -> None:
        if scheduler is None or job.state is not JobState.STARTING or not _by_selector(job):
            return
        if before is not None and before.state is JobState.STARTING and before.worker_id == job.worker_id:
            return
        registry = scheduler.parts.ledger.registry
        worker = registry.workers.find(job.worker_id)
        if worker is None:
            return
        placed = [each.id for each in registry.jobs.unfinished(worker.id) if _by_selector(each)]
        if worker.slots is not None and len(placed) > worker.slots:
            self.broken("slots", f"worker {worker.name} has {worker.slots} slots, and the jobs {placed}", job.id)
        for other in registry.jobs.unfinished(None):
            if self._goes_before(other, job):
                where = f"job {job.id} is placed on {worker.name} before job {other.id}"
                self.broken("priority, then age", where, job.id)

    def _goes_before(self, other: Job, job: Job) -> bool:
        """Whether the other job waits for the same workers, and comes first."""
        assert job.target is not None
        if other.state is not JobState.QUEUED or other.target is None or other.target.selector != job.target.selector:
            return False
        if self.facts.may_be_stopped(other):  # its end may be in progress
            return False
        now = self.facts.world.loop.now
        due, mine = self._due(other), self.facts.queued.get(job.id, now)
        if job.id not in self.facts.queued and due > job.created_at - EPOCH:
            return False  # the worker was chosen earlier, and the start was being saved since
        made = other.created_at - EPOCH  # the other job may have been starting for a while before it was queued
        if (
            now < due + UNSAVED_MAX_SECONDS
            or now >= min(due, made + due - self.facts.queued[other.id]) + other.terms.queue_timeout
        ):
            return False
        if self.facts.world.scheduler_machine.wall_time() >= other.created_at + other.terms.queue_timeout:
            return False  # its end is not saved yet
        return (-other.terms.priority, due) < (-job.terms.priority, mine)

    def _due(self, job: Job) -> float:
        """When the job began to wait for a worker, by the loop's clock."""
        delay = job.terms.retry.delay if job.terms.retry is not None and job.retry_of is not None else 0.0
        return self.facts.queued[job.id] + delay


def _by_selector(job: Job) -> bool:
    return job.target is not None and job.target.selector is not None
