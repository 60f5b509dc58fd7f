"""Backoff: a worker is in backoff only because of the result of a call to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.cluster.jobs.backoff import BACKOFF_MAX_SECONDS
from scheduler.model import Job, JobState, Worker
from tests.simulation.rules.rule import Broken, Rule

if TYPE_CHECKING:
    from tests.simulation.facts import Facts
    from tests.simulation.nodes import SchedulerProcess


class Backoff(Rule):
    """If a job goes back into the queue while its worker is in backoff, a start failed on that worker."""

    def __init__(self, facts: Facts, broken: Broken) -> None:
        super().__init__(facts, broken)
        #: Worker id -> when the last start of a job failed there, by the loop's clock.
        self._failed: dict[str, float] = {}

    def start_failed(self, worker: Worker) -> None:
        self._failed[worker.id] = self.facts.world.loop.now

    def shown(self, scheduler: SchedulerProcess | None, before: Job | None, job: Job) -> None:
        if scheduler is None or before is None or before.state is not JobState.STARTING or before.worker_id is None:
            return
        if job.state is not JobState.QUEUED or not scheduler.parts.backoff.active(before.worker_id):
            return
        failed = self._failed.get(before.worker_id)
        if failed is None or self.facts.world.loop.now - failed > BACKOFF_MAX_SECONDS:
            what = f"worker {before.worker_name} is in backoff, and no start failed there; job {job.id}: {job.reason}"
            self.broken("backoff has a cause", what, job.id)
