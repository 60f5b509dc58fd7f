"""Submissions: what clients want run, until they are answered.

A worker is chosen, and the job is committed as ``starting`` there: so it is accepted. Then the start is made
(``starts``), and its result is the answer. Where no worker can take the job now, and it may wait, it goes to the queue
instead, and that is the answer. Where it may not wait in the queue, or that is full, the choice waits for a few seconds
for a worker that may be online at any moment (``scheduler.cluster.expected``).

A start that was never sent puts the job into the queue, if it may wait there, and else drops it, as if it had never
been.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from scheduler.cluster import lifecycle
from scheduler.cluster.jobs.choice import Choice
from scheduler.cluster.jobs.flights import Flights
from scheduler.cluster.jobs.keys import Keys
from scheduler.cluster.jobs.queue import Queue
from scheduler.cluster.jobs.starts import NotSent, Starts
from scheduler.cluster.ledger import Ledger
from scheduler.daemon import failpoints
from scheduler.errors import (
    JobRemoved,
    NoFreeSlot,
    SchedulerError,
    ShuttingDown,
    StartUnanswered,
    StoreFailed,
    Unavailable,
    Unreachable,
)
from scheduler.interfaces import Accepted
from scheduler.model import Job, JobState, RemovedJob, Submission, Worker


@define(eq=False, slots=False)
class Submissions:
    """The submissions of one scheduler. ``clock`` tells the time, ``new_id`` gives the id of each job."""

    _clock: IReactorTime
    _new_id: Callable[[], str]
    _ledger: Ledger
    keys: Keys
    _choice: Choice
    _queue: Queue
    _starts: Starts
    _flights: Flights

    @property
    def idle(self) -> bool:
        """Whether no first request with a key is under way."""
        return self.keys.idle

    def close(self) -> Deferred[None]:
        """Take no more submissions, and let no start begin; fires when every start under way is over."""
        self._choice.close()
        return self._flights.close()

    async def submit(self, wanted: Submission) -> Accepted:
        """See ``IScheduler.submit``."""
        since = self._clock.seconds()
        if wanted.key is None:
            return await self._submit(wanted, since)
        known = self.keys.find(wanted.key)
        if known is not None:
            return await self._replay(known)
        with self.keys.in_use(wanted.key):
            known = await self.keys.told_of(wanted.key)
            return await (self._submit(wanted, since) if known is None else self._replay(known))

    async def _replay(self, known: Job | RemovedJob) -> Accepted:
        """The answer to a request that came before: its job as it is now."""
        if isinstance(known, RemovedJob):
            raise JobRemoved(known.job_id)
        job = await self._flights.settled(known.id)
        if lifecycle.unconfirmed(job):
            raise StartUnanswered(job.worker_name or "", job.id)
        return Accepted(job, succeed(job))

    async def _submit(self, wanted: Submission, since: float) -> Accepted:
        self._check_open()
        try:
            if wanted.terms.queue_timeout and self._queue.has_room:
                worker = self._choice.now(wanted, newcomer=True)
            else:
                worker = await self._choice.soon(wanted, newcomer=True, since=since)
        except (NoFreeSlot, Unreachable):
            self._check_open()
            if not wanted.terms.queue_timeout:
                raise
            job = self._new_job(wanted)
            job = await self._flights.run(job.id, self._queue.enter(job))
            return Accepted(job, succeed(job))
        self._check_open()
        job = self._new_job(wanted)
        job = evolve(job, state=JobState.STARTING, worker_id=worker.id, worker_name=worker.name)
        chosen = self._clock.seconds()
        await self._flights.run(job.id, self._commit(job))
        return Accepted(job, self._flights.run(job.id, self._start(worker, job, chosen)))

    def _check_open(self) -> None:
        if self._flights.closed:
            raise ShuttingDown()

    def _new_job(self, wanted: Submission) -> Job:
        job_id = self._new_id()
        return Job(
            id=job_id,
            spec=wanted.spec,
            state=JobState.QUEUED,
            created_at=self._ledger.now(),
            created_by=wanted.created_by,
            group_id=None if wanted.terms.retry is None else job_id,
            target=wanted.target,
            terms=wanted.terms,
            key=wanted.key,
        )

    async def _commit(self, job: Job) -> Job:
        await self._ledger.decide(job)
        return job

    async def _start(self, worker: Worker, job: Job, since: float) -> Job:
        failpoints.hit("scheduler.after-commit-before-rpc")
        try:
            result = await self._starts.start(worker, job, since)
            return await self._not_started(job, result.error) if isinstance(result, NotSent) else result
        except StartUnanswered:
            raise
        except SchedulerError as error:
            current = self._ledger.registry.jobs.find(job.id)
            if current is None:
                raise  # nothing was started, and there is no job
            if current.state is JobState.STARTING:
                await self._starts.unanswered(current)
            raise StartUnanswered(current.worker_name or worker.name, job.id, str(error)) from error

    async def _not_started(self, job: Job, error: SchedulerError) -> Job:
        """Queue the job, if it may wait and this can be saved; otherwise drop it, and raise the error."""
        if job.terms.queue_timeout and self._queue.has_room and isinstance(error, Unavailable):
            try:
                return await self._starts.take_back(job, str(error))
            except StoreFailed as failure:
                if self._ledger.registry.jobs.get(job.id).state is not JobState.QUEUED:
                    raise
                error = failure
        await self._ledger.learn(job.ref)
        raise error
