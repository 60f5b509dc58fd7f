"""Starts: the calls that begin jobs, and the recording of their answers.

A job that is to start is committed as ``starting`` before its worker is called. The consequences of the answer are
decided by ``scheduler.cluster.jobs.outcomes`` and recorded here. If nothing runs and another worker can take the job at
once, the start is sent there; at most a few workers are tried. If no worker can, ``NotSent`` is returned, and the
caller decides whether the job waits.

If the start may have arrived, the job is ``unknown`` until its worker reports.
"""

from __future__ import annotations

import contextlib

from attrs import define, evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from scheduler.cluster import lifecycle
from scheduler.cluster.jobs.backoff import Backoff, is_shortage
from scheduler.cluster.jobs.choice import Choice
from scheduler.cluster.jobs.flights import Flights
from scheduler.cluster.jobs.late_answers import LateAnswers
from scheduler.cluster.jobs.outcomes import Fate, outcome_of
from scheduler.cluster.jobs.placement import may_run
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.reach import Reach
from scheduler.daemon import failpoints
from scheduler.errors import Conflict, SchedulerError, StartUnanswered, StoreFailed, Unavailable, Unreachable
from scheduler.interfaces import IWorkerClient
from scheduler.messages import JobStatus
from scheduler.model import Job, JobState, Worker


@frozen
class NotSent:
    """The result of a start for which nothing runs; ``error`` says why."""

    error: SchedulerError
    #: Another worker may take the job at once.
    elsewhere: bool = False


@define(eq=False, slots=False)
class Starts:
    """The starts of one scheduler. ``clock`` tells the time."""

    _log = Logger()

    _clock: IReactorTime
    _ledger: Ledger
    _client: IWorkerClient
    _choice: Choice
    _backoff: Backoff
    _reach: Reach
    _flights: Flights

    def __attrs_post_init__(self) -> None:
        self._registry = self._ledger.registry
        self.late = LateAnswers(self._registry, self._reported, self.fail)

    @property
    def idle(self) -> bool:
        """Whether no answer is listened for after its time."""
        return self.late.idle

    async def start(self, worker: Worker, job: Job, since: float) -> Job | NotSent:
        """Have the worker begin a job that is committed as starting there. Returns the job as its request is answered.

        ``since``: when the start began, by the clock. Raises ``StartUnanswered`` if it is not known yet whether the job
        runs, and other errors if the result could not be saved.
        """
        return await self._elsewhere(worker, job.id, await self._call(worker, job), since)

    async def dispatch(self, worker: Worker, job: Job) -> Job | NotSent:
        """Commit that a queued job starts on that worker, and have the worker begin it, as ``start`` does."""
        return await self._elsewhere(worker, job.id, await self._move(worker, job), self._clock.seconds())

    async def resend(self, job: Job) -> None:
        """Send the start of a job once more, to the same worker, which runs it once under its id.

        Raises the errors of the call: then it is still not known whether a start arrived. Only after ``Conflict`` (the
        id was used up before) the job is ``lost``.
        """
        await self._flights.run(job.id, self._again(self._reach.worker_of(job), job))

    async def take_back(self, job: Job, why: str) -> Job:
        """Record that a job whose start was not sent waits, because of ``why``, or ended if it was to be stopped."""
        waiting = lifecycle.waiting(self._registry.jobs.get(job.id), why, self._ledger.now())
        if waiting.state.final:
            return await self._conclude(waiting)
        await self._ledger.learn(waiting)
        return waiting

    async def fail(self, job: Job, error: SchedulerError) -> Job:
        """Record that a job never ran because of ``error``."""
        return await self._conclude(lifecycle.failed(self._registry.jobs.get(job.id), str(error), self._ledger.now()))

    async def unanswered(self, job: Job) -> None:
        """Record that nobody can say whether the job runs."""
        now = self._registry.jobs.get(job.id)
        unknown = lifecycle.unknown(now, "the start was not answered", self._ledger.now())
        with contextlib.suppress(StoreFailed):  # saved later; until then the store says "starting", which is as true
            await self._ledger.learn(unknown)

    # -- how

    async def _elsewhere(self, worker: Worker, job_id: str, result: Job | NotSent, since: float) -> Job | NotSent:
        """The final result, once other workers that could take the job at once were tried."""
        tried: set[str] = set()
        while isinstance(result, NotSent) and result.elsewhere:
            tried.add(worker.id)
            job = self._registry.jobs.get(job_id)
            other = self._choice.elsewhere(job, tried, since)
            if other is None:
                break
            worker = other
            result = await self._move(worker, job)
        return result

    async def _move(self, worker: Worker, job: Job) -> Job | NotSent:
        """Commit that the job starts on that worker, and call it."""
        job = evolve(job, state=JobState.STARTING, reason=None, worker_id=worker.id, worker_name=worker.name)
        try:
            await self._ledger.learn(job)  # so that a stop finds it starting
        except StoreFailed as failure:
            return self._not_sent(worker, failure)
        failpoints.hit("scheduler.after-dequeue-commit")
        current = self._registry.jobs.get(job.id)
        if current.state.final:
            return current  # its end was being saved when it was chosen
        if current.stop_requested_at is not None:
            return await self._conclude(lifecycle.withdrawn(current, self._ledger.now()))
        return await self._call(worker, job)

    async def _call(self, worker: Worker, job: Job) -> Job | NotSent:
        now = self._registry.workers.find_registered(worker.id)
        if now is None or not may_run(job, now):  # it went during the commit, or is another
            return self._not_sent(worker, Unreachable(worker.name))
        worker = now  # its address may be another: whoever listens at the one before is not meant
        late: list[Deferred[JobStatus]] = []
        try:
            status = await self._client.start_job(worker, job, late.append)
        except SchedulerError as error:
            outcome = outcome_of(error, worker.is_core)
            if outcome.fate is Fate.NOT_SENT:
                return self._not_sent(worker, error)
            if outcome.fate is Fate.FAILED:
                return await self.fail(job, error)
            await self.unanswered(job)
            for answer in late if outcome.awaited else ():
                self.late.listen(worker, job, answer)
            raise StartUnanswered(worker.name, job.id, "" if outcome.awaited else str(error)) from error
        failpoints.hit("scheduler.after-rpc-before-record")
        return await self._reported(worker, job, status)

    def _not_sent(self, worker: Worker, error: SchedulerError) -> NotSent:
        outcome = outcome_of(error, worker.is_core)
        if outcome.backoff and isinstance(error, Unavailable):
            if is_shortage(error) and not self._backoff.active(worker.id):
                self._log.warn("worker {worker} can't start jobs: {why}", worker=worker.name, why=str(error))
            if self._registry.workers.find_registered(worker.id) is not None:
                self._backoff.refused(worker.id, error)
        return NotSent(error, outcome.elsewhere)

    async def _again(self, worker: Worker, job: Job) -> Job:
        try:
            status = await self._client.start_job(worker, job)
        except Conflict:
            lost = lifecycle.lost(self._registry.jobs.get(job.id), "no record", self._ledger.now())
            await self._ledger.decide(lost)
            raise
        return await self._reported(worker, job, status)

    async def _reported(self, worker: Worker, job: Job, status: JobStatus) -> Job:
        if status.state is JobState.RUNNING or status.started_at is not None:  # not one that it may not run
            self._backoff.forget(worker.id)
        current = self._registry.jobs.get(job.id)  # a heartbeat may have been faster
        now = self._ledger.now()
        if status.job_id != job.id:
            current = evolve(current, remote_id=status.job_id)
        if not status.state.final:  # what was refused never started
            status = evolve(status, started_at=status.started_at or now)
        started, _ = lifecycle.followed(lifecycle.reported(current, status, now), now)  # as it is going to be shown
        # The job is durable, and its worker tells again that it runs: this need not be saved at once, nor at all.
        # An end must be durable before it is told, and so must an id that is not ours.
        if not started.state.final and started.remote_id is None:
            self._ledger.learn(started, lazily=True)
        else:
            try:
                await self._ledger.learn(started)
            except StoreFailed as failure:
                if started.state.final:
                    raise StartUnanswered(worker.name, job.id, StoreFailed.sentence(str(failure))) from failure
        self._log.info(
            "job {job_id} on {worker}: {state}", job_id=job.id, worker=worker.name, state=started.state.value
        )
        failpoints.hit("scheduler.before-answer")
        return started

    async def _conclude(self, job: Job) -> Job:
        await self._ledger.decide(job)
        return job
