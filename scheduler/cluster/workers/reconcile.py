"""Bringing the registry and what runs on a worker to agree, whichever of the two was down.

Theory of operation. A heartbeat lists all that runs on the worker and every end
the scheduler has not acknowledged. What is listed is believed: a job nobody can
say anything about is ``running`` again, one never heard of is asked to be
described and is adopted with its spec (``adoption``), one that is ``lost`` becomes an orphan. The
end of one that a client removed is acknowledged, and its worker is told so again.

What is not listed proves nothing: the heartbeat may have crossed the start of
the job. So it is asked about by id, and the question seals the id against a
start that is still on its way. Where the worker then has no record,

- a job that was seen to run is ``lost``;
- one whose start was not answered never starts, and has ``failed``. Nobody was
  promised that it would;
- one that was promised must run: it is not asked about, its start is sent again
  under the same id, which the worker answers by the job it has, or by starting it
  (unless it came back as one that can't run such a job: then it is asked).

Starts that this process is waiting for are left to their own answer. A core
worker reports nothing: it is polled, and asked without a seal.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from scheduler.cluster import lifecycle
from scheduler.cluster.job_rounds import JobRounds
from scheduler.cluster.jobs.placement import could_take
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
from scheduler.model import IdempotencyKey, Job, JobState, Worker, WorkerState


class Reconciler:
    """One for each scheduler."""

    _log = Logger()

    def __init__(
        self,
        ledger: Ledger,
        client: IWorkerClient,
        starts: Starts,
        removals: Removals,
        set_back: SetBack,
        probed: Callable[[str], Deferred[None]],
    ) -> None:
        """``probed`` is as of ``JobRounds``."""
        self._ledger = ledger
        self._registry = ledger.registry
        self._client = client
        self._starts = starts
        self._removals = removals
        self._set_back = set_back
        # worker id -> ids of removed jobs that its last heartbeat said run, and that it was asked to describe
        self._disputed: dict[str, frozenset[str]] = {}
        self.adoption = Adoption(ledger)
        self._refusals = Refusals()
        self._asking = Shared()
        self._rounds = JobRounds("asking about the unmentioned jobs", ledger.registry, probed)

    @property
    def idle(self) -> bool:
        """Whether no worker is being asked, or is to describe a job, and no removed job is in dispute."""
        return not self._disputed and self.adoption.idle and self._asking.idle and self._rounds.idle

    def apply_report(self, worker: Worker, heartbeat: Heartbeat) -> tuple[list[Job], tuple[str, ...]]:
        """The jobs that the heartbeat changes, and the ids of those the scheduler needs to have described."""
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
            known = self._registry.find_job(job_id)
            if job_id in described or self._starts.under_way(job_id):
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
        """The job as the report makes it; ``None`` where the scheduler needs its spec to tell.

        ``Invalid`` for a report that is not believed.
        """
        problem = contradiction(report.status)
        if problem:
            raise Invalid("status", problem)
        job = self._registry.find_job(report.status.job_id)
        now = self._ledger.now()
        if job is None:
            if report.spec is None or self._is_removed(worker, report) or not self.adoption.admits(worker, report):
                return None
            returned = self._registry.was_removed(report.status.job_id)
            return (lifecycle.returned if returned else lifecycle.adopted)(report, worker, now)
        its = self._owned(worker, job)
        return job if its is None else lifecycle.reported(its, report.status, now)

    def _dispute(self, worker: Worker, running: set[str]) -> None:
        """Remember which of these jobs, that the worker says run, a client removed."""
        unknown = [job_id for job_id in running if self._registry.find_job(job_id) is None]
        disputed = frozenset(job_id for job_id in unknown if self._registry.was_removed(job_id))
        if disputed:
            self._disputed[worker.id] = disputed
        else:
            self._disputed.pop(worker.id, None)

    def _is_removed(self, worker: Worker, report: JobReport) -> bool:
        """Whether it is of a job that a client removed.

        One that still runs is shown again. But a report may have left before the job ended, so it takes a second one.
        """
        job_id = report.status.job_id
        disputed = job_id in self._disputed.get(worker.id, ())
        return self._registry.was_removed(job_id) and (report.status.state.final or not disputed)

    def _owned(self, worker: Worker, job: Job) -> Job | None:
        """The job, if that worker has a say in it; ``None``: nobody has now. ``Invalid``: another worker has."""
        if job.worker_id == worker.id:
            return job
        not_started = job.state is JobState.QUEUED or lifecycle.unconfirmed(job)
        if not_started and self._set_back.may_run_on(worker.id, job) and could_take(job, worker):
            return None if self._starts.under_way(job.id) else lifecycle.taken_over(job, worker)
        if job.worker_id is None:
            return None
        raise Invalid("jobID", f"the job is worker {job.worker_id}'s")

    def keys_told(self, heartbeat: Heartbeat, changed: list[Job]) -> list[IdempotencyKey]:
        """Those of the requests that adopted jobs came from, which the store did not have as it was set back.

        One that is known by now is of another job.
        """
        adopted = {job.id for job in changed if self._registry.find_job(job.id) is None}
        return [
            IdempotencyKey(report.key.key, report.key.fingerprint, report.status.job_id)
            for report in heartbeat.described
            if report.key is not None
            and report.status.job_id in adopted
            and self._registry.find_key(report.key.key) is None
        ]

    def awaits_descriptions(self, worker_id: str) -> bool:
        """Whether that worker is to describe jobs."""
        return self.adoption.is_open(worker_id)

    def ask_about_unlisted(self, worker: Worker, heartbeat: Heartbeat) -> None:
        """Find out, one after the other, what became of the worker's jobs that the heartbeat does not mention."""
        mentioned = heartbeat.mentioned
        unlisted = [
            job
            for job in self._registry.unfinished(worker.id)
            if job.id_on_worker not in mentioned and not self._starts.under_way(job.id)
        ]
        if unlisted:
            self._rounds.begin(worker.id, lambda: unlisted, partial(self._ask_about, worker))

    async def _ask_about(self, worker: Worker, asked: Job) -> None:
        job = self._registry.find_job(asked.id)
        if job is None or job.over or job.state is JobState.QUEUED or self._starts.under_way(job.id):
            return
        now = self._registry.find_worker(worker.id) or worker  # it may have moved meanwhile
        if job.worker_id != worker.id or now.state is WorkerState.OFFLINE:
            return
        try:
            await self.ask(now, job)
        except (Unavailable, DeadlineExceeded):
            raise  # the next heartbeat asks again
        except SchedulerError as error:
            self._log.warn("nothing is known of job {job_id}: {why}", job_id=job.id, why=str(error))

    async def starts_over(self, worker_id: str) -> None:
        """Fires when the starts on that worker that are under way have been answered."""
        for job in self._registry.unfinished(worker_id):
            start = self._starts.in_flight(job.id)
            if start is not None:
                await start

    def forget(self, worker_id: str) -> None:
        """It is a new process, or gone: what the one before could not start, or reported, does not count any more."""
        self._disputed.pop(worker_id, None)
        self.adoption.forget(worker_id)
        self._refusals.forget(worker_id)
        self._starts.backoff.forget(worker_id)

    def ask(self, worker: Worker, job: Job) -> Deferred[None]:
        """Have the registry say of an unfinished job what its worker says now; errors are those of the call.

        Those who ask at the same moment share the call. The start of the job must not be under way. Where its end is
        known and could not be saved yet it stays as it is, and nobody is asked.
        """
        if self._ledger.unsaved_end(job.id) is not None:
            return succeed(None)
        return self._asking.join(job.id, lambda: Deferred.fromCoroutine(self._ask(worker, job)))

    async def _ask(self, worker: Worker, job: Job) -> None:
        unsure = lifecycle.unconfirmed(job) and worker.seals
        if unsure and not self._set_back.settled:
            return  # another worker may have it
        if unsure and job.promised and job.stop_requested_at is None and worker.takes(job.spec):
            await self._ledger.update_jobs([])  # that it went to this worker is durable, or it could go to another too
            if self._registry.find_job(job.id) == job and not self._starts.under_way(job.id):
                await self._starts.resend(job)
            return
        now = self._ledger.now
        if lifecycle.untraceable(job, worker):
            if job.id not in self._starts.late:
                await self._ledger.conclude_job(lifecycle.lost(job, "no record", now()))
            return
        try:
            status = await self._client.query_job(worker, job.id_on_worker, seal=worker.seals)
        except NotFound:
            current = self._registry.job(job.id)
            absent = lifecycle.absent(current, now()) if unsure else lifecycle.lost(current, "no record", now())
            await self._ledger.conclude_job(absent)
        else:
            reported = lifecycle.reported_by_core if worker.is_core else lifecycle.reported
            current = self._registry.job(job.id)
            known = reported(current, status, now())
            if known == current:
                return
            try:
                await self._ledger.update_job(known)
            except StoreFailed:
                if self._ledger.unsaved_end(job.id) is None:
                    raise
