"""Acknowledged facts are durable: a restarted scheduler knows all that clients and workers were told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scheduler.model import Job
from tests.simulation.clients import Reply
from tests.simulation.rules.rule import Broken, Rule

if TYPE_CHECKING:
    from tests.simulation.facts import Facts
    from tests.simulation.nodes import SchedulerProcess


class Durable(Rule):
    """The content of the store after a restart explains everything that was shown or promised."""

    def __init__(self, facts: Facts, broken: Broken) -> None:
        super().__init__(facts, broken)
        # ids of the jobs whose stop was acknowledged to a client before they had ended
        self._stops: dict[str, None] = {}

    def replied(self, reply: Reply) -> None:
        if reply.name != "stop" or not reply.answered:
            return
        job: Job = reply.value
        if not job.over and job.stop_requested_at is not None:
            self._stops[job.id] = None

    def ends_acknowledged(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            if job_id not in self.facts.world.database.ended and job_id not in self.facts.removals:
                what = f"the end of job {job_id} was acknowledged to its worker, and is not stored"
                self.broken("acknowledged is stored", what, job_id)

    def loaded(self, scheduler: SchedulerProcess) -> None:
        registry = scheduler.parts.ledger.registry
        for job in self.facts.shown.values():
            loaded = registry.jobs.find(job.id)
            if loaded is None and not self._may_be_gone(job):
                self.broken("shown is stored", f"job {job.id} was shown as {job.state.value}, and is gone", job.id)
        for job_id in self._stops:
            loaded = registry.jobs.find(job_id)
            if loaded is None or loaded.over or loaded.stop_requested_at is not None or job_id in self.facts.set_back:
                continue
            if not self._worker_was_told(job_id):
                self.broken("a stop is kept", f"the stop of job {job_id} was acknowledged, and is gone", job_id)

    def _worker_was_told(self, job_id: str) -> bool:
        """The worker keeps the stop, whatever the scheduler knows."""
        spools = [node.folder.spools.get(job_id) for node in self.facts.world.workers.values()]
        return any(spool is not None and spool.stop_asked for spool in spools)

    def _may_be_gone(self, job: Job) -> bool:
        """A client removed the job, its start was never sent, or its worker will report it again."""
        facts = self.facts
        if job.id in facts.removals or job.id in facts.gone or job.id in facts.excused:
            return True
        return not job.state.final and (job.target is None or job.id in facts.set_back)
