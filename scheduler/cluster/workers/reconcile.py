"""Reconciliation of the registry with the jobs that a worker reports.

A heartbeat lists all jobs that run on the worker, and every end that the scheduler has not acknowledged. The list is
believed. A job in the state ``unknown`` is ``running`` again. A job that the registry does not have is described by the
worker when asked, and adopted with its spec (``adoption``). A job that is ``lost`` becomes an orphan. The end of a job
that a client removed is acknowledged, and the worker is told again to remove it.

A job that is not listed may run all the same: the heartbeat may have crossed its start. So the worker is asked about
the job by its id. The question seals the id: a start that is still on its way is refused. If the worker has no record
of the job:

- a job that was seen to run is ``lost``;
- a job whose start was not answered has ``failed``, as no client was promised that it starts;
- a promised job must run. The worker is not asked: the start is sent again under the same id, and the worker answers
  with the job that it has, or starts it. Only if the worker came back without the features that the job needs, it is
  asked.

A job whose start is under way is not asked about. A core worker reports nothing: it is polled, and asked without a
seal.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import define, evolve
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from scheduler.cluster import lifecycle
from scheduler.cluster.job_rounds import JobRounds
from scheduler.cluster.jobs.backoff import Backoff
from scheduler.cluster.jobs.flights import Flights
from scheduler.cluster.jobs.placement import could_take, may_run
from scheduler.cluster.jobs.queue import Queue
from scheduler.cluster.jobs.removals import Removals
from scheduler.cluster.jobs.starts import Starts
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.set_back import SetBack
from scheduler.cluster.workers.adoption import Adoption
from scheduler.cluster.workers.refusals import Refusals
from scheduler.deferreds import Shared
from scheduler.errors import DeadlineExceeded, Invalid, NotFound, SchedulerError, StoreFailed, Unavailable
from scheduler.interfaces import IWorkerClient
from scheduler.messages import Heartbeat, JobReport, contradiction
from scheduler.model import Job, JobState, Worker


@define(eq=False, slots=False)
class Reconciler:
    """Applies reports, and asks about the jobs that they do not mention; there is one for each scheduler."""

    _log = Logger()

    _ledger: Ledger
    _client: IWorkerClient
    _starts: Starts
    _queue: Queue
    _flights: Flights
    _backoff: Backoff
    _removals: Removals
    _set_back: SetBack
    #: As of ``JobRounds``.
    _probed: Callable[[str], Deferred[None]]

    def __attrs_post_init__(self) -> None:
        self._registry = self._ledger.registry
        # worker id -> ids of removed jobs that run by its last heartbeat, and that it was asked to describe
        self._disputed: dict[str, frozenset[str]] = {}
        self.adoption = Adoption(self._ledger)
        self._refusals = Refusals()
        self._asking = Shared()
        self._rounds = JobRounds("asking about the unmentioned jobs", self._registry, self._probed)

    @property
    def idle(self) -> bool:
        """Whether no question to a worker is open, and no removed job is in dispute."""
        return not self._disputed and self.adoption.idle and self._asking.idle and self._rounds.idle

    def apply_report(self, worker: Worker, heartbeat: Heartbeat) -> tuple[list[Job], tuple[str, ...]]:
        """The jobs that the heartbeat changes, and the ids of the jobs that the worker has to describe."""
        changed: list[Job] = []
        describe: list[str] = []
        removed: list[str] = []
        refused = dict(heartbeat.refused)
        self.adoption.begin(heartbeat)
        for report in (*heartbeat.ended, *heartbeat.described):
            try:
                job = self._reported(worker, report)
            except Invalid as error:
                refused[report.status.job_id] = str(error)
                continue
            if job is not None:
                changed.append(job)
            elif not self._is_removed(worker, report):
                self.adoption.remember(worker, report.status.job_id, runs=False)
            elif report.status.state.final:
                removed.append(report.status.job_id)
        described = {report.status.job_id for report in heartbeat.described}
        self._dispute(worker, set(heartbeat.running) - {job.id for job in changed})
        for job_id in heartbeat.running:
            known = self._registry.jobs.find(job_id)
            if job_id in described or job_id in self._flights:
                continue
            if known is None:
                self.adoption.remember(worker, job_id, runs=True)
                continue
            try:
                job = self._owned(worker, known)
            except Invalid as error:
                refused.setdefault(job_id, str(error))
                continue
            if job is not None:
                changed.append(lifecycle.running(job, self._ledger.now()))
                if job.started_at is None and not job.state.final:
                    describe.append(job_id)
        self._removals.reported_again(worker, removed)
        self._refusals.note(worker.id, refused, (job.id for job in changed))
        return changed, self.adoption.questions(worker, describe)

    def _reported(self, worker: Worker, report: JobReport) -> Job | None:
        """The job after the report; ``None``: the scheduler needs the spec of the job first.

        Raises ``Invalid`` for a report that is not believed.
        """
        problem = contradiction(report.status)
        if problem:
            raise Invalid("status", problem)
        job = self._registry.jobs.find(report.status.job_id)
        now = self._ledger.now()
        if job is None:
            if report.spec is None or self._is_removed(worker, report) or not self.adoption.admits(worker, report):
                return None
            if report.key is not None and self._registry.find_key(report.key) is not None:
                report = evolve(report, key=None)  # the key belongs to another job, or the job was removed
            returned = report.status.job_id in self._registry.removed
            return (lifecycle.returned if returned else lifecycle.adopted)(report, worker, now)
        its = self._owned(worker, job)
        return job if its is None else lifecycle.reported(its, report.status, now)

    def _dispute(self, worker: Worker, running: set[str]) -> None:
        """Remember the removed jobs that run all the same, as the worker reports."""
        self._disputed.pop(worker.id, None)
        removed = [job_id for job_id in running if job_id in self._registry.removed]
        if disputed := frozenset(job_id for job_id in removed if self._registry.jobs.find(job_id) is None):
            self._disputed[worker.id] = disputed

    def _is_removed(self, worker: Worker, report: JobReport) -> bool:
        """Whether the report is of a job that a client removed.

        A removed job that still runs is shown again. A report may have left before the job ended, so this takes two
        reports.
        """
        job_id = report.status.job_id
        disputed = job_id in self._disputed.get(worker.id, ())
        return job_id in self._registry.removed and (report.status.state.final or not disputed)

    def _owned(self, worker: Worker, job: Job) -> Job | None:
        """The job, if it is that worker's; ``None``: no worker has it. Raises ``Invalid`` if another worker has it."""
        if job.worker_id == worker.id:
            return job
        not_started = job.state is JobState.QUEUED or lifecycle.unconfirmed(job)
        if not_started and self._set_back.may_run_on(worker.id, job) and could_take(job, worker):
            return None if job.id in self._flights else lifecycle.taken_over(job, worker)
        if job.worker_id is None:
            return None
        raise Invalid("jobID", f"the job is worker {job.worker_id}'s")

    def ask_about_unlisted(self, worker: Worker, heartbeat: Heartbeat) -> None:
        """Ask the worker, one after the other, about its jobs that the heartbeat does not mention."""
        mentioned = heartbeat.mentioned
        unlisted = [
            job
            for job in self._registry.jobs.unfinished(worker.id)
            if job.id_on_worker not in mentioned and job.id not in self._flights
        ]
        if unlisted:
            self._rounds.begin(worker.id, lambda: unlisted, partial(self._ask_about, worker))

    async def _ask_about(self, worker: Worker, asked: Job) -> None:
        job = self._registry.jobs.find(asked.id)
        if job is None or job.over or job.state is JobState.QUEUED or job.id in self._flights:
            return
        now = self._registry.workers.find(worker.id) or worker  # it may have moved meanwhile
        if job.worker_id != worker.id or now.is_offline:
            return
        try:
            await self.ask(now, job)
        except (Unavailable, DeadlineExceeded):
            raise  # the next heartbeat asks again
        except SchedulerError as error:
            self._log.warn("nothing is known of job {job_id}: {why}", job_id=job.id, why=str(error))

    async def starts_over(self, worker_id: str) -> None:
        """Wait until the starts on that worker that are under way have been answered."""
        for job in self._registry.jobs.unfinished(worker_id):
            start = self._flights.over(job.id)
            if start is not None:
                await start

    def forget(self, worker_id: str) -> None:
        """Forget the reports and the backoff of a worker that is a new process, or gone."""
        self._disputed.pop(worker_id, None)
        self.adoption.forget(worker_id)
        self._refusals.forget(worker_id)
        self._backoff.forget(worker_id)

    def ask(self, worker: Worker, job: Job) -> Deferred[None]:
        """Ask a worker about an unfinished job, and record the answer. Fails with the error of the call.

        Callers at the same moment share one call. The start of the job must not be under way. If the end of the job is
        known and not saved yet, the worker is not asked.
        """
        if self._ledger.endings.failure(job.id) is not None:
            return succeed(None)
        return self._asking.join(job.id, lambda: Deferred.fromCoroutine(self._ask(worker, job)))

    async def _ask(self, worker: Worker, job: Job) -> None:
        unsure = lifecycle.unconfirmed(job) and worker.seals
        if unsure and not self._set_back.settled:
            return  # another worker may have it
        if unsure and self._queue.still_wanted(job) and job.stop_requested_at is None and may_run(job, worker):
            await self._ledger.settled()  # its worker must be durable, or it could go to another one too
            if self._registry.jobs.find(job.id) == job and job.id not in self._flights:
                await self._starts.resend(job)
            return
        now = self._ledger.now
        if lifecycle.untraceable(job, worker):
            if job.id not in self._starts.late:
                await self._ledger.decide(lifecycle.lost(job, "no record", now()))
            return
        try:
            status = await self._client.query_job(worker, job.id_on_worker, seal=worker.seals)
        except NotFound:
            current = self._registry.jobs.get(job.id)
            absent = lifecycle.absent(current, now()) if unsure else lifecycle.lost(current, "no record", now())
            await self._ledger.decide(absent)
        else:
            reported = lifecycle.reported_by_core if worker.is_core else lifecycle.reported
            current = self._registry.jobs.get(job.id)
            known = reported(current, status, now())
            if known == current:
                return
            try:
                await self._ledger.learn(known)
            except StoreFailed:
                if self._ledger.endings.failure(job.id) is None:
                    raise
