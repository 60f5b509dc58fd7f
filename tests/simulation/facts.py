"""The facts of a run: the observations and requests so far, by which the rules judge."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import define, field

from scheduler.model import Job
from tests.simulation.follow import Follower
from tests.simulation.machine import Folder, Run
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.world import World


@define(eq=False)
class Ticket:
    """A job that a client wants to run once, and the answers about it."""

    #: Ids of its jobs, without their further attempts.
    jobs: dict[str, None] = field(factory=dict)
    #: The job that it was told will run, or runs; ``""``: none.
    acknowledged: str = ""
    #: Whether an answer left open that a job was started, or an answer is missing.
    open: bool = False
    #: The last answer that says that nothing was started.
    refused: str = ""


@define(eq=False)
class Facts:
    """The facts of a run."""

    world: World
    tickets: dict[str, Ticket] = field(factory=dict)
    #: The last shown state of each job, by any process of the scheduler.
    shown: dict[str, Job] = field(factory=dict)
    runs: dict[str, list[Run]] = field(factory=dict)
    #: When the present process of the scheduler first showed a job as queued, by the loop's clock.
    queued: dict[str, float] = field(factory=dict)
    #: Ids of the jobs whose stop, and whose removal, a client requested.
    stops: dict[str, None] = field(factory=dict)
    removals: dict[str, None] = field(factory=dict)
    #: Names or ids of the workers that clients asked to forget, or that lost their folders.
    forgotten: dict[str, None] = field(factory=dict)
    #: Ids of the workers that a client was told are draining, with their names.
    drained: dict[str, str] = field(factory=dict)
    #: Ids of all core workers, with their addresses.
    core: dict[str, str] = field(factory=dict)
    #: The times of the last requests to resume, and to forget, a worker, by its name or id, on the loop's clock.
    resumes: dict[str, float] = field(factory=dict)
    #: Jobs that a fault may have destroyed, with the fault: such a job may be ``lost``, or run a second time.
    excused: dict[str, str] = field(factory=dict)
    #: Ids of workers, each with the folder that it was first given to, even if the worker has not heard of it.
    owners: dict[str, Folder] = field(factory=dict)
    #: Ids of jobs that a database which was set back lacks, or has in another state; those of them that no side has;
    #: and when that was last, by the loop's clock.
    set_back: dict[str, None] = field(factory=dict)
    erased: dict[str, None] = field(factory=dict)
    set_back_at: float = -math.inf
    #: When each of those jobs was shown again, by the loop's clock.
    told_at: dict[str, float] = field(factory=dict)

    #: Tickets whose jobs clients asked to stop.
    withdrawn: dict[str, None] = field(factory=dict)
    #: Jobs that were over when their stop was answered; and first attempts, with the time when a stop of any attempt
    #: was answered.
    stopped: dict[str, None] = field(factory=dict)
    chains_stopped: dict[str, float] = field(factory=dict)
    #: Ids of jobs that were shown as retries of others, which a worker does not know.
    attempts: dict[str, None] = field(factory=dict)
    #: Jobs that were answered as the last attempt, at its end.
    last_attempts: dict[str, None] = field(factory=dict)
    #: Jobs that were dropped, and those whose removal was answered as done, with the time.
    gone: dict[str, None] = field(factory=dict)
    removed: dict[str, float] = field(factory=dict)
    #: Jobs that were removed when their worker had deregistered, or was forgotten: it keeps its part of them.
    left_behind: dict[str, None] = field(factory=dict)
    #: Copies of folders that were taken for the original workers.
    copies: list[Folder] = field(factory=list)
    #: Clients that follow, or followed, an output.
    followers: list[Follower] = field(factory=list)
    #: Clients that attend a job: the process of the scheduler, the job, and since when.
    attended: dict[object, tuple[Process, str, float]] = field(factory=dict)

    def existing(self) -> dict[str, None]:
        """The existing jobs."""
        return {job_id: None for job_id in self.shown if job_id not in self.gone}

    def is_untold(self, job_id: str) -> bool:
        """Whether a database was set back, and the scheduler has not shown the job since."""
        return job_id in self.set_back and job_id not in self.shown

    def is_key_unknown(self, job_id: str) -> bool:
        """Whether the key of the job's request can't be known, because the database was set back."""
        return (job_id in self.erased and self.is_untold(job_id)) or self.is_unheard(job_id)

    def is_unheard(self, job_id: str) -> bool:
        """Whether a database was set back, and a worker that has the job has not called the scheduler since.

        Until then the scheduler can't know that the job began. A worker with another name than the job's target is not
        believed either.
        """
        if job_id not in self.set_back or self.world.scheduler is None:
            return False
        registry = self.world.scheduler.parts.ledger.registry
        folders = [node.folder for node in self.world.workers.values() if job_id in node.folder.spools]
        workers = [registry.workers.find(folder.worker_id) for folder in folders]
        job = self.shown.get(job_id)
        name = None if job is None or job.target is None else job.target.worker
        return any(
            worker is None
            or not registry.presences.of(worker.id).is_online
            or (name and name not in (worker.id, worker.name))
            for worker in workers
        )

    def may_be_unknown(self, job_id: str, asked_at: float) -> bool:
        """Whether a request at that time may be answered that the job is unknown.

        The job's worker must report it first, or it can't be known at all.
        """
        if not self.is_untold(job_id):
            return asked_at <= self.told_at.get(job_id, -math.inf)
        return job_id in self.erased or self.world.loop.now <= self.world.submissions_end

    def first_attempt(self, job_id: str) -> str:
        """The id of the first attempt of a job."""
        job = self.shown.get(job_id)
        return job_id if job is None else job.group_id or job_id

    def is_untraceable(self, job: Job) -> bool:
        """Whether a core worker never told its id of the job, so that the job can't be queried."""
        return job.worker_id in self.core and job.remote_id is None

    def is_given_up(self, job: Job) -> bool:
        """Whether it may run on a core worker though it is lost, because such a worker never reports its jobs."""
        return self.is_untraceable(job) or (job.worker_id in self.core and job.worker_id in self.forgotten)

    def ticket_of(self, job: Job) -> Ticket | None:
        """The ticket of a job."""
        return self.tickets.get(job.spec.labels.get("ticket", ""))

    def running(self) -> bool:
        """Whether any job runs."""
        return any(runs[-1].ended is None for runs in self.runs.values())

    def run_of(self, job_id: str) -> Run | None:
        """The last run of a job."""
        runs = self.runs.get(job_id)
        return runs[-1] if runs else None

    def may_be_stopped(self, job: Job) -> bool:
        """Whether the job may end as stopped: a client requested that, or it must be attended."""
        return job.terms.unattended_timeout is not None or self.stop_was_asked(job)

    def stop_is_explained(self, job: Job) -> bool:
        """Whether a stop of the job has a cause: a client's request, or the job's own reason.

        The cause may be unknown after the database was set back.
        """
        if job.terms.unattended_timeout is not None and (job.stop_reason is not None or job.id in self.set_back):
            return True
        return self.stop_was_asked(job)

    def stop_was_asked(self, job: Job) -> bool:
        """Whether a client requested a stop of the job, or of an earlier attempt."""
        if job.spec.labels.get("ticket") in self.withdrawn:
            return True
        chain: Job | None = job
        while chain is not None:
            if chain.id in self.stops or chain.retry_of in self.stops:
                return True
            chain = self.shown.get(chain.retry_of or "")
        return False
