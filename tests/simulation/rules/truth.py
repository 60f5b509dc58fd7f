"""P4: what is shown is true, and an end that was shown never changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from scheduler.model import Job, JobState
from tests.simulation.machine import Run
from tests.simulation.rules.rule import Rule

if TYPE_CHECKING:
    from tests.simulation.nodes import SchedulerProcess

#: What of a final state must never change.
OUTCOME = ("state", "exit_code", "signal", "reason", "finished_at", "stdout_bytes")


class Truth(Rule):
    """The end of a job is as it was."""

    def shown(self, scheduler: SchedulerProcess | None, before: Job | None, job: Job) -> None:
        if before is not None and before.state.final:
            changed = [name for name in OUTCOME if getattr(before, name) != getattr(job, name)]
            if changed:
                then, now = ([getattr(each, name) for name in changed] for each in (before, job))
                self.broken("a final state stays", f"job {job.id}: {changed} was {then}, and is {now}", job.id)
        elif job.state.final:
            for what in self._untrue(job):
                core = job.state is JobState.LOST and job.worker_id in self.facts.core
                self.broken(
                    "core jobs are kept" if core else "P4 true", f"job {job.id} is {job.state.value}: {what}", job.id
                )

    def _untrue(self, job: Job) -> Iterator[str]:
        """What is wrong about an end that is shown."""
        runs = self.facts.runs.get(job.id, [])
        run = self.facts.run_of(job.id)
        if run is not None and run.ended is None and job.state is not JobState.LOST:
            yield "it still runs"
        if job.exit_code is not None and job.exit_code not in {each.code for each in runs}:
            yield f"exit code {job.exit_code}, and it ended with {[each.code for each in runs]}"
        if job.state is JobState.STOPPED and not self.facts.stop_was_asked(job):
            yield "nobody asked for that"
        if job.state is JobState.SUCCEEDED and run is None:
            yield "it never ran"
        if job.state is JobState.LOST and not self._may_be_lost(job, run):
            yield f"nothing destroyed it ({job.reason})"
        coded = job.exit_code is not None or job.signal is not None
        if job.state is JobState.FAILED and run is not None and not coded and not self._is_interrupted(job, run):
            yield f"it ran ({job.reason})"

    def _is_interrupted(self, job: Job, run: Run) -> bool:
        """Whether it was destroyed on a core worker, which has no word for that."""
        return bool(run.destroyed) and job.worker_id in self.facts.core

    def _may_be_lost(self, job: Job, run: Run | None) -> bool:
        if job.id in self.facts.excused or (run is not None and run.destroyed):
            return True
        if self.facts.is_untraceable(job):
            return True
        return job.worker_name in self.facts.forgotten or job.worker_id in self.facts.forgotten
