"""Judges a run while it happens: every visible state, every answer, and the end.

The truth is known here, independently of scheduler and workers: each run, its end, and its destruction. The rules, in
``tests.simulation.rules``, are called for each event after it is among the facts. The first broken rule ends the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.python.failure import Failure

from scheduler.cluster.changes import Change, JobChanged, PresenceChanged, WorkerChanged
from scheduler.errors import SchedulerError, WorkerOnline
from scheduler.interfaces import Loaded
from scheduler.model import Job, JobState, Worker
from scheduler.views import JobFilter
from tests.simulation.clients import Reply
from tests.simulation.facts import Facts, Ticket
from tests.simulation.follow import Follower
from tests.simulation.logs import brief as brief_of_error
from tests.simulation.losses import folder_lost, folder_taken, job_of_copy, set_back
from tests.simulation.machine import Folder, Run
from tests.simulation.rules import RULES
from tests.simulation.rules.leftovers import left_over
from tests.simulation.rules.rule import Rule
from tests.simulation.trace import brief

if TYPE_CHECKING:
    from tests.simulation.nodes import SchedulerProcess
    from tests.simulation.world import World


#: The most seconds of a request to resume a worker, during which it may be carried out after a drain.
RESUME_MAX_SECONDS = 60.0


@frozen
class Violation:
    """A broken rule, by its name; ``job`` is the job that broke it, if any."""

    rule: str
    what: str
    at: float
    job: str | None = None

    def __str__(self) -> str:
        return f"{self.rule} at {self.at:.3f} s: {self.what}"


class Judge:
    """Receives all events; ``violation`` is the first that was found."""

    def __init__(self, world: World) -> None:
        self.violation: Violation | None = None
        self.facts = Facts(world)
        self._world = world
        #: Drained workers that clients asked to forget, as in ``Facts.drained``.
        self._undrained: dict[str, dict[str, str]] = {}
        self.rules: list[Rule] = [make(self.facts, self.broken) for make in RULES]

    @property
    def jobs(self) -> int:
        """The number of jobs."""
        return len({*self.facts.shown, *self.facts.runs})

    def broken(self, rule: str, what: str, job: str | None = None) -> None:
        """A rule is broken; the first one counts."""
        if self.violation is None:
            self.violation = Violation(rule, what, self._world.loop.now, job)
            self._world.trace.add("judge", str(self.violation))

    def _each(self, tell: Callable[[Rule], None]) -> None:
        for rule in self.rules:
            tell(rule)

    # -- what happens

    def began(self, run: Run) -> None:
        """A job's command runs, known or not."""
        self.facts.runs.setdefault(run.job_id, []).append(run)
        for copy in self.facts.copies:
            job_of_copy(self.facts, copy, run.job_id)
        self._each(lambda rule: rule.began(run))

    def crashed(self, process: str, reason: Failure) -> None:
        """An unexpected error was raised."""
        self.broken("no traceback", f"{process}: {brief_of_error(reason)}")

    def logged(self, where: str, what: str) -> None:
        """A failure was logged."""
        self.broken("no traceback", f"{where}: {what}")

    def registered(self, worker_id: str, folder: Folder) -> None:
        """A worker with that folder is registered under that id, whether it hears so or not."""
        if self.facts.owners.setdefault(worker_id, folder) is not folder and folder.copied:
            folder.taken = True
            self.facts.copies.append(folder)
            folder_taken(self.facts, self.facts.owners[worker_id])

    def deregistered(self, worker_id: str) -> None:
        """A worker is told that it is deregistered, whether it hears so or not."""
        self._each(lambda rule: rule.deregistered(worker_id))

    def ends_reported(self, worker_id: str, job_ids: Sequence[str]) -> None:
        """The scheduler hears from a worker that these jobs have ended."""
        self._each(lambda rule: rule.ends_reported(worker_id, job_ids))

    def ends_acknowledged(self, job_ids: Sequence[str]) -> None:
        """A worker is told that the ends of these jobs are durable."""
        self._each(lambda rule: rule.ends_acknowledged(job_ids))

    def arrived(self, worker: Worker, call: str, server: Any) -> None:
        """The process at a worker's address accepts a call."""
        self._each(lambda rule: rule.arrived(worker, call, server))

    def call_answered(self, worker: Worker, error: Exception | None = None) -> None:
        """The process at a worker's address answers a call; ``error``: with that error."""
        self._each(lambda rule: rule.call_answered(worker, error))

    def start_failed(self, worker: Worker) -> None:
        """A call that should start a job there fails."""
        self._each(lambda rule: rule.start_failed(worker))

    def stopping(self, worker: Worker, job_id: str) -> None:
        """The scheduler sends a stop of the job to a worker."""
        self._each(lambda rule: rule.stopping(worker, job_id))

    def folder_lost(self, folder: Folder) -> None:
        """The records of all jobs in a folder are lost."""
        folder_lost(self.facts, folder)

    def set_back(self, database: Loaded) -> None:
        """The database was set back to this older state."""
        set_back(self.facts, database)

    # -- what clients ask, and are told

    def submitting(self, ticket: str) -> None:
        """A request for a job is made."""
        self.facts.tickets.setdefault(ticket, Ticket())
        self._each(lambda rule: rule.submitting(ticket))

    def not_answered(self, ticket: str, error: SchedulerError | None = None) -> None:
        """The request has no answer, or one that leaves its effect open."""
        self.facts.tickets[ticket].open = True
        self._each(lambda rule: rule.unanswered(ticket, error))

    def refused(self, ticket: str, error: SchedulerError) -> None:
        """The answer was that nothing was started."""
        self.facts.tickets[ticket].refused = f"{type(error).__name__}: {error}"
        self._each(lambda rule: rule.refused(ticket, error))

    def acknowledged(self, ticket: str, job: Job) -> None:
        """The answer was a job."""
        known = self.facts.tickets[ticket]
        known.open = True
        if self.facts.is_untold(job.id) and job.id in self.facts.erased:
            return
        before, known.acknowledged = known.acknowledged, known.acknowledged if job.state.final else job.id
        self._each(lambda rule: rule.acknowledged(ticket, before, job))
        self.answered(job)

    def answered(self, job: Job) -> None:
        """A client saw the job in this state. It may have changed since, unless it was final."""
        if job.state.final and not self.facts.is_untold(job.id):  # otherwise an earlier process answered
            self.show(None, job)

    def stop_asked(self, job_id: str) -> None:
        """A client requests a stop of the job, and of its retries."""
        self.facts.stops[job_id] = None

    def removal_asked(self, job_id: str) -> None:
        """A client requests the removal of the job."""
        self.facts.removals[job_id] = None

    def ticket_withdrawn(self, ticket: str) -> None:
        """A client requests a stop of all jobs of the ticket."""
        self.facts.withdrawn[ticket] = None

    def forget_asked(self, worker: str) -> None:
        """A client asks to forget a worker: its unfinished jobs and its drain may be lost."""
        self.facts.forgotten[worker] = None
        before = dict(self.facts.drained)
        self.resume_asked(worker)
        self._undrained[worker] = {each: name for each, name in before.items() if each not in self.facts.drained}

    def _not_forgotten(self, worker: str, asked_at: float) -> None:
        """The worker was online, so it stays as it was, unless it was resumed since."""
        for worker_id, name in self._undrained.pop(worker, {}).items():
            if all(self.facts.resumes.get(each, asked_at) <= asked_at for each in (worker_id, name)):
                self.facts.drained[worker_id] = name

    def drained(self, name: str, worker_id: str) -> None:
        """A client was told that the worker is draining: it stays so, unless a request to resume it overlaps."""
        resumed = max(self.facts.resumes.get(each, -math.inf) for each in (name, worker_id))
        if self._world.loop.now > resumed + RESUME_MAX_SECONDS:
            self.facts.drained[worker_id] = name

    def resume_asked(self, worker: str) -> None:
        """From now on the worker, by its name or id, may take jobs again."""
        self.facts.resumes[worker] = self._world.loop.now
        for worker_id, name in list(self.facts.drained.items()):
            if worker in (worker_id, name):
                del self.facts.drained[worker_id]

    def replied(self, reply: Reply) -> None:
        """A request ended."""
        if isinstance(reply.value, Job) and reply.asked_at > self.facts.set_back_at:  # otherwise it may be of the past
            self.answered(reply.value)
        if reply.name == "forget" and isinstance(reply.error, WorkerOnline):
            self._not_forgotten(reply.detail, reply.asked_at)
        self._each(lambda rule: rule.replied(reply))

    def existing(self) -> dict[str, None]:
        """The existing jobs."""
        return self.facts.existing()

    def listed(self, existing: dict[str, None], jobs: list[str]) -> None:
        """A client listed all jobs."""
        self._each(lambda rule: rule.listed(existing, jobs))

    def follows(self, follower: Follower) -> None:
        """A client begins to follow an output."""
        if follower not in self.facts.followers:
            self.facts.followers.append(follower)

    def delivered(self, follower: Follower, offset: int, data: bytes) -> None:
        """The follower got these bytes."""
        self._each(lambda rule: rule.delivered(follower, offset, data))

    def output_over(self, follower: Follower, cut: str) -> None:
        """The follower was told of the end, or that there is none."""
        self._each(lambda rule: rule.output_over(follower, cut))

    def output_refused(self, follower: Follower, error: SchedulerError) -> None:
        """The follower can't continue."""
        self._each(lambda rule: rule.output_refused(follower, error))

    # -- what the scheduler shows

    def watch(self, scheduler: SchedulerProcess) -> None:
        """Observe everything that the scheduler shows."""
        feed = scheduler.parts.feed
        publish = feed.publish

        def publish_and_see(change: Change) -> None:
            """Observe each change as it is published: a reader of the registry sees the same from then on."""
            publish(change)
            if isinstance(change, JobChanged):
                self._see_job(scheduler, change)
            else:
                self._see_worker(scheduler, change)

        feed.publish = publish_and_see  # type: ignore[method-assign]

    def _see_job(self, scheduler: SchedulerProcess, change: JobChanged) -> None:
        job = change.last
        if change.after is not None:
            self._world.trace.add(scheduler.process.name, f"shows {brief(job)}")
            self.show(scheduler, job)
        elif not job.over or job.id in scheduler.parts.ledger.registry.removed:  # else its time was over
            self._drop(scheduler, job)

    def _see_worker(self, scheduler: SchedulerProcess, change: WorkerChanged | PresenceChanged) -> None:
        worker_id = change.ref.id
        known = scheduler.parts.ledger.registry.workers.find(worker_id)
        worker = change.after if isinstance(change, WorkerChanged) else known
        if worker is not None:
            self._each(lambda rule: rule.worker_shown(scheduler, worker))
            return
        self._each(lambda rule: rule.worker_gone(scheduler, worker_id))
        if {worker_id, self.facts.drained.get(worker_id)} & self.facts.forgotten.keys():
            self.facts.drained.pop(worker_id, None)  # a client had it forgotten, with its drain

    def loaded(self, scheduler: SchedulerProcess) -> None:
        """The scheduler has loaded its store."""
        registry = scheduler.parts.ledger.registry
        self.facts.queued.clear()
        for worker in registry.workers.all():
            self._each(lambda rule, worker=worker: rule.worker_shown(scheduler, worker))  # type: ignore[misc]
        for job in registry.jobs.listing.matching(JobFilter()):
            self._world.trace.add(scheduler.process.name, f"loads {brief(job)}")
            self.show(scheduler, job)
        self._each(lambda rule: rule.loaded(scheduler))

    def show(self, scheduler: SchedulerProcess | None, job: Job) -> None:
        """The job was visible in this state."""
        facts = self.facts
        before = facts.shown.get(job.id)
        facts.shown[job.id] = job
        if scheduler is not None:
            facts.gone.pop(job.id, None)
            if before is None and job.id in facts.set_back:
                facts.told_at[job.id] = self._world.loop.now
        if job.state is JobState.QUEUED:
            facts.queued.setdefault(job.id, self._world.loop.now)
        ticket = facts.ticket_of(job)
        if job.retry_of is not None:
            facts.attempts[job.id] = None
        elif ticket is not None and job.id not in facts.attempts:
            ticket.jobs.setdefault(job.id)
        self._each(lambda rule: rule.shown(scheduler, before, job))

    def _drop(self, scheduler: SchedulerProcess, job: Job) -> None:
        """The job is gone: its start was never sent, or a client removed it."""
        self._world.trace.add(scheduler.process.name, f"drops job {job.id}")
        self.facts.gone[job.id] = None
        if job.id in self.facts.removals:
            if scheduler.parts.ledger.registry.workers.find(job.worker_id) is None:
                self.facts.left_behind[job.id] = None
            return
        ticket = self.facts.ticket_of(job)
        if ticket is not None:
            ticket.jobs.pop(job.id, None)
        self._each(lambda rule: rule.dropped(job))

    # -- when the faults are over

    def agreed(self) -> None:
        """The time for all sides to agree is over."""
        self._each(lambda rule: rule.agreed())

    def ended(self) -> None:
        """Everything has ended."""
        self._each(lambda rule: rule.ended())

    def at_rest(self) -> bool:
        """Whether nothing is left over at this moment."""
        return next(left_over(self._world), None) is None

    def rested(self) -> None:
        """Everything was at rest, or had the time for it."""
        self._each(lambda rule: rule.rested())
