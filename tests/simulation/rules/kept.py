"""P1 and P2: an acknowledged job is kept, runs, and runs once. A request makes at most one job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.model import Job, JobState
from scheduler.views import JobFilter
from tests.simulation.faults.identity import ClockStep
from tests.simulation.machine import Run
from tests.simulation.rules.rule import Broken, Rule

if TYPE_CHECKING:
    from tests.simulation.facts import Facts, Ticket
    from tests.simulation.nodes import SchedulerProcess


class Kept(Rule):
    """No job is forgotten, none stays undecided, and none runs twice."""

    _over = False

    def __init__(self, facts: Facts, broken: Broken) -> None:
        super().__init__(facts, broken)
        #: When each job was first shown, and first shown as failed, by the loop's clock, and by which scheduler
        #: process.
        self._since: dict[str, tuple[float, object]] = {}
        self._failed: dict[str, tuple[float, object]] = {}
        # tickets for which a second job was made, since the first one was unknown to all
        self._made_again: list[Ticket] = []

    def began(self, run: Run) -> None:
        runs = self.facts.runs[run.job_id]
        if len(runs) > 1 and run.job_id not in self.facts.excused and not self.facts.is_unheard(run.job_id):
            where = " and ".join(each.machine for each in runs)
            self.broken("P2 one run", f"job {run.job_id} runs for the {len(runs)}. time ({where})", run.job_id)

    def shown(self, scheduler: SchedulerProcess | None, before: Job | None, job: Job) -> None:
        now, process = self.facts.world.loop.now, self.facts.world.scheduler
        made_before = scheduler is not None and not scheduler.serving  # it is loaded: an earlier process made it
        self._since.setdefault(job.id, (now, None if made_before else process))
        if job.state is JobState.FAILED:
            self._failed.setdefault(job.id, (now, process))
        ticket = self.facts.ticket_of(job)
        if ticket is not None and any(map(self.facts.is_unheard, ticket.jobs)):
            self._made_again.append(ticket)
        if ticket is not None and len(ticket.jobs) > 1 and ticket not in self._made_again:
            self.broken("one job for each key", f"one request came to the jobs {list(ticket.jobs)}", job.id)

    def acknowledged(self, ticket: str, before: str, job: Job) -> None:
        if before and before != job.id:
            self.broken("one job for each key", f"{ticket} was answered with {before}, and with {job.id}", job.id)

    def dropped(self, job: Job) -> None:
        if job.id in self.facts.runs:
            self.broken("P1 kept", f"job {job.id} ran, and is dropped", job.id)

    def loaded(self, scheduler: SchedulerProcess) -> None:
        for name, ticket in self.facts.tickets.items():
            job_id = ticket.acknowledged
            if not job_id or job_id in self.facts.removals:
                continue
            if job_id in self.facts.set_back and (not self._over or job_id in self.facts.excused):
                continue  # the workers have to report it first, which an excused one may never do
            if not self._is_known(scheduler, job_id):
                self.broken("P1 kept", f"{name}: job {job_id} was acknowledged, and is not there any more", job_id)

    @staticmethod
    def _is_known(scheduler: SchedulerProcess, job_id: str) -> bool:
        return scheduler.parts.ledger.registry.jobs.find(job_id) is not None

    def ended(self) -> None:
        scheduler = self.facts.world.scheduler
        assert scheduler is not None
        self._over = True
        self.loaded(scheduler)
        acknowledged = {ticket.acknowledged for ticket in self.facts.tickets.values()}
        for job in scheduler.parts.ledger.registry.jobs.listing.matching(JobFilter()):
            if not job.over and not self._goes_on(job):
                self.broken("P1 ends", f"job {job.id} is {job.state.value} when everything is over", job.id)
            if job.id in acknowledged and self._never_ran(job):
                self.broken("P1 runs", f"job {job.id} was acknowledged, and never ran: {job.reason}", job.id)
        for name, ticket in self.facts.tickets.items():
            ran = [job_id for job_id in ticket.jobs if job_id in self.facts.runs]
            if ran and ticket.refused and not ticket.open and not self._may_have_been_saved(ticket):
                self.broken("P4 refused", f"{name} was refused ({ticket.refused}), and ran as {ran}", ran[0])

    def _clock_error(self) -> float:
        """Seconds by which the clock of the scheduler was wrong, at most."""
        steps = (fault for fault in self.facts.world.plan.faults if isinstance(fault, ClockStep) and not fault.worker)
        return sum(abs(step.by) for step in steps)

    def _may_have_been_saved(self, ticket: Ticket) -> bool:
        """Whether the store may have kept a queued job although it failed, which P1 allows."""
        return ticket.refused.startswith("StoreFailed") and self.facts.world.database.failed_though_durable

    def _goes_on(self, job: Job) -> bool:
        """Whether the job runs, or waits for a slot while another job runs: many attempts may take long."""
        running = {job_id for job_id in self.facts.runs if self._runs_now(job_id)}
        if job.orphan:  # it was lost for a valid reason, and still runs
            return job.id in running and job.id in self.facts.excused
        return job.id in running if job.state is JobState.RUNNING else bool(running) and job.state is JobState.QUEUED

    def _runs_now(self, job_id: str) -> bool:
        run = self.facts.run_of(job_id)
        return run is not None and run.ended is None

    def _never_ran(self, job: Job) -> bool:
        """Whether the job failed without a run before its time in the queue was over."""
        if job.state is not JobState.FAILED or job.id in self.facts.runs or job.id in self.facts.excused:
            return False
        if job.target is not None and job.target.worker in self.facts.forgotten:
            return False
        if job.worker_id in self.facts.core and "answered with a fault" in (job.reason or ""):
            return False  # the core worker does not say whether the job ran
        assert job.finished_at is not None
        (since, first), (failed, last) = self._since[job.id], self._failed[job.id]
        waited = failed - since
        if first is not last:  # after a restart the wall clock counts, which may have been wrong
            waited = max(waited, job.finished_at - job.created_at) + self._clock_error()
        return not job.terms.queue_timeout or waited < job.terms.queue_timeout
