"""P5: once the faults are over, all sides agree, and nothing is left over."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from scheduler.model import Job, JobState
from scheduler.views import JobFilter
from tests.simulation.nodes import SchedulerProcess
from tests.simulation.rules.rule import Broken, Rule

if TYPE_CHECKING:
    from tests.simulation.facts import Facts

#: Seconds within which a start succeeds, and an end is learned, if nothing fails.
UNDER_WAY = 2.0

#: Seconds within which an end is reported and acknowledged, if nothing fails.
REPORT = 2.0


class Agreement(Rule):
    """Workers are online, ends are acknowledged, and jobs are final or running."""

    def __init__(self, facts: Facts, broken: Broken) -> None:
        super().__init__(facts, broken)
        #: When each job was first shown in its present state, by the loop's clock.
        self._since: dict[str, float] = {}

    def shown(self, scheduler: SchedulerProcess | None, before: Job | None, job: Job) -> None:
        if before is None or before.state is not job.state:
            self._since[job.id] = self.facts.world.loop.now

    def agreed(self) -> None:
        scheduler = self.facts.world.scheduler
        assert scheduler is not None
        for what in (*self._about_workers(scheduler), *self._about_jobs(scheduler)):
            self.broken("P5 agreement", what)
        if scheduler.parts.set_back.settling.is_set_back and self.facts.set_back_at == -math.inf:
            self.broken("set back is true", "the scheduler found that the database was set back, and it was not")

    def _about_workers(self, scheduler: SchedulerProcess) -> Iterator[str]:
        registry = scheduler.parts.ledger.registry
        for node in self.facts.world.workers.values():
            running = node.running
            if running is None or not running.process.alive:
                continue
            presence, entry = registry.presences.of(node.folder.worker_id), registry.workers.find(node.folder.worker_id)
            if not presence.is_online:
                shown = "not known" if entry is None else f"{presence.state.value} at {entry.address}"
                yield f"worker {node.name} ({node.folder.worker_id}) is {shown}"
            reports = [report.status.job_id for report in running.jobs.unacknowledged()]
            reports = [job_id for job_id in reports if not self._has_just_ended(job_id)]
            if reports:
                yield f"worker {node.name} reports {reports}, and nobody acknowledges"

    def _has_just_ended(self, job_id: str) -> bool:
        run = self.facts.run_of(job_id)
        return run is not None and run.ended is not None and run.ended > self.facts.world.loop.now - REPORT

    def _about_jobs(self, scheduler: SchedulerProcess) -> Iterator[str]:
        registry = scheduler.parts.ledger.registry
        since = self.facts.world.loop.now - UNDER_WAY
        for job in registry.jobs.listing.matching(JobFilter()):
            runs = [run for run in self.facts.runs.get(job.id, []) if run.ended is None or run.ended > since]
            lately = self._since.get(job.id, since) > since
            starting = job.state is JobState.STARTING and not lately
            awaited = scheduler.calls.core_starts.is_open(job.id)
            if (starting or job.state is JobState.UNKNOWN) and not awaited:
                yield f"job {job.id} is {job.state.value}: {job.reason}"
            # A core worker that answered the start late, just now, has not been polled for the job yet.
            just_answered = lately and job.worker_id in self.facts.core
            if job.state is JobState.RUNNING and not (runs or just_answered or self._has_just_ended(job.id)):
                yield f"job {job.id} is running, and does not run"
        for job_id, each in self.facts.runs.items():
            shown = registry.jobs.find(job_id)
            known = shown or (self.facts.shown.get(job_id) if job_id in self.facts.removals else None)
            if known is not None and self.facts.is_given_up(known):
                continue
            if shown is None and job_id in self.facts.erased:
                continue  # a core worker has it, and can't be asked for it
            if each[-1].ended is None and (shown is None or (shown.over and not shown.orphan)):
                yield f"job {job_id} runs, and is {shown and shown.state.value}"
