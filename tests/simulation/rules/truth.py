"""P4: the shown state is true, and a shown end never changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from scheduler.model import Job, JobState
from tests.simulation.machine import Run
from tests.simulation.rules.rule import Rule

if TYPE_CHECKING:
    from tests.simulation.nodes import SchedulerProcess

#: The fields of a final state, which must never change.
OUTCOME = (
    *("state", "exit_code", "signal", "reason", "started_at", "finished_at"),
    *("stdout_bytes", "stderr_bytes", "output_error", "background_ended", "usage"),
)


class Truth(Rule):
    """The end of a job stays the same, its exit code is true, and only a destroyed job is ``lost``."""

    def shown(self, scheduler: SchedulerProcess | None, before: Job | None, job: Job) -> None:
        if before is not None and before.state.final:
            returned = job.orphan and job.id in self.facts.removals  # no record of it was left when it was lost
            names = ("state", "reason") if returned else OUTCOME
            changed = [name for name in names if getattr(before, name) != getattr(job, name)]
            if changed:
                then, now = ([_plain(getattr(each, name)) for name in changed] for each in (before, job))
                self.broken("a final state stays", f"job {job.id}: {changed} was {then}, and is {now}", job.id)
        elif job.state.final and not self.facts.is_unheard(job.id) and not self._was_evicted(job):
            for rule, what in self._untrue(job):
                self.broken(rule, f"job {job.id} is {job.state.value}: {what}", job.id)

    def _untrue(self, job: Job) -> Iterator[tuple[str, str]]:
        """Each error in the shown end of a job, with the rule that it breaks."""
        run = self.facts.run_of(job.id)
        if run is not None and run.ended is None and job.state is not JobState.LOST:
            yield "P4 true", "it still runs"
        if job.state is JobState.LOST:
            if not self._may_be_lost(job, run):
                if job.worker_id in self.facts.core:
                    yield "core jobs are kept", f"nothing destroyed it ({job.reason})"
                else:
                    yield "lost only if destroyed", f"nothing destroyed it ({job.reason})"
            return
        yield from (("the code it had", what) for what in self._of_code(job))
        if job.state is JobState.STOPPED and not self.facts.stop_is_explained(job):
            yield "P4 true", "nobody asked for that"
        if job.state is not JobState.SUCCEEDED and not job.reason:
            yield "P4 true", "it says no reason"

    def _of_code(self, job: Job) -> Iterator[str]:
        """Each difference between the shown and the real end of the command."""
        runs = self.facts.runs.get(job.id, [])
        ends = [(run.code, run.signal) for run in runs if run.ended is not None and not run.destroyed]
        told = (job.exit_code, job.signal)
        if told == (None, None):
            if job.state is JobState.SUCCEEDED:
                yield "it says no exit code"
            elif ends and job.id not in self.facts.excused:
                yield f"it says no exit code ({job.reason}), and it ended with {ends}"
        elif told not in ends:
            yield f"it says {told}, and it ended with {ends}"
        elif job.state is JobState.SUCCEEDED and job.exit_code != 0:
            yield f"its exit code is {job.exit_code}"
        elif job.state is JobState.FAILED and job.exit_code == 0:
            yield "its exit code is 0"

    def _may_be_lost(self, job: Job, run: Run | None) -> bool:
        """Whether something destroyed the job, and the reason of the end says so."""
        if job.id in self.facts.excused:
            return True
        if self.facts.is_untraceable(job):
            return True
        if job.worker_id in self.facts.core and run is not None and (run.destroyed or self._was_dropped(job)):
            return True  # a core worker can't report the fate of the job
        if job.reason == "forgotten":
            return job.worker_name in self.facts.forgotten or job.worker_id in self.facts.forgotten
        if job.reason == "rebooted":
            return self._rebooted_before_it_began(job) if run is None else run.destroyed == "rebooted"
        return run is not None and run.destroyed not in {"", "rebooted"}

    def _was_evicted(self, job: Job) -> bool:
        """The database was set back and the worker has removed the job, so no record of its end is left."""
        nodes = self.facts.world.workers.values()
        return job.id in self.facts.set_back and any(node.folder.used.get(job.id) == "pruned" for node in nodes)

    def _was_dropped(self, job: Job) -> bool:
        """Only a process that has ended since knew how the job ended."""
        return any(job.id in node.dropped for node in self.facts.world.core_workers.values())

    def _rebooted_before_it_began(self, job: Job) -> bool:
        """The folder was made before a reboot, which may have erased the trace of a shim: the worker can't rule out a
        run.
        """
        for node in self.facts.world.workers.values():
            spool = node.folder.spools.get(job.id)
            if spool is not None and not spool.begun and spool.boot_id != node.machine.boot_id:
                return True
        return False


def _plain(value: object) -> object:
    return value.value if isinstance(value, JobState) else value
