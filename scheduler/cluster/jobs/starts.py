"""Starts: from the choice of a worker to its answer, at once or when the turn comes.

A start goes: choose a worker, commit the job as ``starting``, call the worker,
record the answer, answer. Where no worker can take the job now, and it may wait,
it is committed as ``queued`` instead, and that is the answer; ``scheduler.cluster.jobs.queue``
has it started later, by the same steps. Where it may not wait in the queue, or that is full,
the choice waits for a few seconds for a worker that may be online at any moment
(``scheduler.cluster.expected``).

When the call shows that nothing was sent, or the worker answers that it lacks what
it takes, the worker is in backoff. It is not when the commit before the call failed.
A job that may wait goes (back) into the queue, and any other is dropped, as if it had
never been; but before that, one that is placed by selector goes to the other workers
that can take it now, a few at most. When
the start may have arrived the job is ``unknown`` until its worker reports.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.cluster import lifecycle
from scheduler.cluster.expected import Expected
from scheduler.cluster.jobs.backoff import Backoff, is_shortage
from scheduler.cluster.jobs.choice import Choice, Tried
from scheduler.cluster.jobs.keys import Keys
from scheduler.cluster.jobs.late_answers import LateAnswers
from scheduler.cluster.jobs.lines import Lines
from scheduler.cluster.jobs.placement import lacking
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.reach import Reach
from scheduler.cluster.set_back import SetBack
from scheduler.daemon import failpoints
from scheduler.deferreds import shielded
from scheduler.errors import (
    AnswerUnreadable,
    Conflict,
    DeadlineExceeded,
    JobRemoved,
    Misdirected,
    NoFreeSlot,
    NotAWorker,
    QueueFull,
    SchedulerError,
    ShuttingDown,
    StartUnanswered,
    StoreFailed,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
)
from scheduler.interfaces import IWorkerClient, Starting
from scheduler.messages import JobStatus, RequestKey
from scheduler.model import IdempotencyKey, Job, JobSpec, JobState, QueueTerms, Target, Worker


class Starts:
    """All starts under way; each runs to its end, whoever asked for it."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        new_id: Callable[[], str],
        ledger: Ledger,
        client: IWorkerClient,
        waiting: Lines,
        expected: Expected,
        reach: Reach,
        set_back: SetBack,
        queue_max: int,
    ) -> None:
        """``waiting`` are the jobs that are queued, and due; at most ``queue_max`` are. ``clock`` tells the time.

        ``new_id`` gives the id of each job.
        """
        self._ledger = ledger
        self._registry = ledger.registry
        self._client = client
        self._queue_max = queue_max
        self.keys = Keys(ledger.registry, set_back)
        self._under_way: dict[str, Deferred[Job]] = {}
        # of them those that are to be queued, and not committed yet
        self._entering = 0
        self._clock = clock
        self._new_id = new_id
        self.backoff = Backoff(clock, ledger.registry)
        self._choice = Choice(clock, ledger.registry, waiting, self.backoff, expected, reach)
        self._reach = reach
        self._closed = False
        self.late = LateAnswers(ledger.registry, self._started, self._fail)

    async def submit(
        self, spec: JobSpec, target: Target, terms: QueueTerms, key: RequestKey | None, starting: Starting | None
    ) -> Job:
        """See ``IScheduler.submit``."""
        since = self._clock.seconds()
        known = self.keys.find(key) if key is not None else None
        if known is not None:
            return self._replay(known)
        with self.keys.in_use(key):
            known = await self.keys.told_of(key)
            return self._replay(known) if known else await self._submit(spec, target, terms, key, starting, since)

    async def worker_for(self, job: Job) -> Worker:
        """A worker that can take a queued job; one that may be online at any moment is waited for.

        Raises like ``submit`` if there is none.
        """
        assert job.target is not None
        return await self._choice.soon(job.spec, job.target, job.terms, newcomer=False)

    def dispatch_to(self, worker: Worker, job: Job) -> Deferred[None]:
        """Start a queued job on that worker; fires when that is over, however it went."""
        starting = evolve(job, state=JobState.STARTING, reason=None, worker_id=worker.id, worker_name=worker.name)

        def over(result: object) -> None:
            if isinstance(result, Failure) and not result.check(SchedulerError):
                self._log.failure("starting job {job_id} went wrong", result, job_id=job.id)

        return self._run(job.id, self._dispatch(worker, starting, Tried(self._clock.seconds()))).addBoth(over)

    def under_way(self, job_id: str) -> bool:
        """Whether this process waits for the answer to the start of that job."""
        return job_id in self._under_way

    async def resend(self, job: Job) -> None:
        """Send the start of a job once more, to the same worker, which runs it once under its id.

        Of an error nothing follows: as before, nobody can say yet whether a start arrived. ``Conflict``: the id was
        used up before, and the job is ``lost``.
        """
        await self._run(job.id, self._again(self._reach.worker_of(job), job))

    def in_flight(self, job_id: str) -> Deferred[None] | None:
        """Fires once the start of that job is over, however it went; ``None``: it is not under way."""
        start = self._under_way.get(job_id)
        return None if start is None else shielded(start).addBoth(lambda _: None)

    async def settled(self, job_id: str) -> Job:
        """The job, once no start of it is under way; ``NotFound``."""
        job = self._registry.job(job_id)
        while (starting := self.in_flight(job_id)) is not None:
            await starting
            job = self._registry.job(job_id)
        return job

    def close(self) -> Deferred[None]:
        """Take no more; fires when every start under way has been answered."""
        self._closed = True
        self._choice.close()
        starts = [shielded(start) for start in self._under_way.values()]
        return DeferredList(starts, consumeErrors=True).addCallback(lambda _: None)

    @property
    def idle(self) -> bool:
        """Whether no start is under way, or listened for."""
        return not self._under_way and self.late.idle and not self._entering and self.keys.idle

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    # -- requests

    def _replay(self, key: IdempotencyKey) -> Job:
        if key.removed_at is not None:
            raise JobRemoved(key.job_id)
        if key.answer is not None:
            return key.answer
        job = self._registry.job(key.job_id)
        if job.state in {JobState.STARTING, JobState.UNKNOWN}:
            raise StartUnanswered(job.worker_name or "", job.id)
        return job

    async def _submit(
        self,
        spec: JobSpec,
        target: Target,
        terms: QueueTerms,
        key: RequestKey | None,
        starting: Starting | None,
        since: float,
    ) -> Job:
        self._check_open()
        try:
            if terms.queue_timeout and self._room():
                worker = self._choice.now(spec, target, terms, newcomer=True)
            else:
                worker = await self._choice.soon(spec, target, terms, newcomer=True, since=since)
        except (NoFreeSlot, Unreachable):
            self._check_open()
            if not terms.queue_timeout:
                raise
            if not self._room():
                raise QueueFull(self._queue_max) from None
            job = self._new_job(spec, target, terms)
            return await self._run(job.id, self._enqueue(job, key))
        self._check_open()
        job = self._new_job(spec, target, terms)
        job = evolve(job, state=JobState.STARTING, worker_id=worker.id, worker_name=worker.name)
        return await self._run(job.id, self._start(worker, job, key, starting))

    def _check_open(self) -> None:
        if self._closed:
            raise ShuttingDown()

    def _new_job(self, spec: JobSpec, target: Target, terms: QueueTerms) -> Job:
        job_id = self._new_id()
        return Job(
            id=job_id,
            spec=spec,
            state=JobState.QUEUED,
            created_at=self._ledger.now(),
            group_id=None if terms.retry is None else job_id,
            target=target,
            terms=terms,
        )

    def _room(self) -> bool:
        """Whether one more job may be queued."""
        return self._registry.queued + self._entering < self._queue_max

    # -- the steps

    def _run(self, job_id: str, start: Coroutine[Deferred[Any], Any, Job]) -> Deferred[Job]:
        """Have a start known as under way while it is."""
        answered: Deferred[Job] = Deferred()
        self._under_way[job_id] = answered

        def over(result: Any) -> None:
            if self._under_way.get(job_id) is answered:  # else one that came back is on its way again
                del self._under_way[job_id]
            answered.callback(result)  # a Failure starts the errbacks

        Deferred.fromCoroutine(start).addBoth(over)
        return shielded(answered)

    async def _enqueue(self, job: Job, key: RequestKey | None) -> Job:
        assert job.target is not None
        named = None if job.target.worker is None else self._registry.worker(job.target.worker).name
        job = evolve(job, worker_name=named, promised=True)
        self._entering += 1
        try:
            await self._ledger.decide(job, *_named(key, job, answer=job))
        finally:
            self._entering -= 1
        self._log.info("job {job_id} is queued", job_id=job.id)
        return job

    async def _start(self, worker: Worker, job: Job, key: RequestKey | None, starting: Starting | None) -> Job:
        tried = Tried(self._clock.seconds())
        await self._ledger.decide(job, *_named(key, job))
        failpoints.hit("scheduler.after-commit-before-rpc")
        try:
            return await self._call(worker, job, tried, starting)
        except StartUnanswered:
            raise
        except SchedulerError as error:
            current = self._registry.find_job(job.id)
            if current is None:
                raise  # nothing was started, and there is no job
            if current.state is JobState.STARTING:
                await self._unanswered(current)
            raise StartUnanswered(current.worker_name or worker.name, job.id, str(error)) from error

    async def _dispatch(self, worker: Worker, job: Job, tried: Tried) -> Job:
        try:
            await self._ledger.learn(job)  # so that a stop finds it starting
        except StoreFailed as failure:
            return await self._not_sent(worker, job, failure, tried)
        failpoints.hit("scheduler.after-dequeue-commit")
        current = self._registry.job(job.id)
        if current.state.final:
            return current  # its end was being saved when it was chosen
        if current.stop_requested_at is not None:
            return await self._conclude(lifecycle.withdrawn(current, self._ledger.now()))
        return await self._call(worker, job, tried)

    async def _call(self, worker: Worker, job: Job, tried: Tried, starting: Starting | None = None) -> Job:
        """The call and what follows from it."""
        now = self._registry.find_registered(worker.id)
        if now is None or lacking(job.spec, now):  # it went during the commit, or is another
            return await self._not_sent(worker, job, Unreachable(worker.name), tried)
        worker = now  # its address may be another: whoever listens at the one before is not meant
        late: list[Deferred[JobStatus]] = []
        try:
            sent = None if starting is None else partial(starting, job)
            status = await self._client.start_job(worker, job, sent, self.keys.request_of(job), late.append)
        except (Unreachable, DeadlineExceeded) as error:
            if isinstance(error, Unreachable) and not error.sent:
                return await self._not_sent(worker, job, error, tried)
            await self._unanswered(job)
            for answer in late:
                self.late.listen(worker, job, answer)
            raise StartUnanswered(worker.name, job.id) from error
        except (Unavailable, Unsupported) as error:
            return await self._not_sent(worker, job, error, tried)
        except Conflict as error:
            return await self._fail(job, error)
        except WorkerFault as fault:
            if worker.is_core and not isinstance(fault, AnswerUnreadable):
                return await self._fail(job, fault)
            await self._unanswered(job)  # it may have come up all the same; the next heartbeat tells
            raise
        failpoints.hit("scheduler.after-rpc-before-record")
        return await self._started(worker, job, status)

    async def _again(self, worker: Worker, job: Job) -> Job:
        try:
            status = await self._client.start_job(worker, job, key=self.keys.request_of(job))
        except Conflict:
            lost = lifecycle.lost(self._registry.job(job.id), "no record", self._ledger.now())
            await self._ledger.decide(lost)
            raise
        return await self._started(worker, job, status)

    async def _not_sent(self, worker: Worker, job: Job, error: Unavailable | Unsupported, tried: Tried) -> Job:
        """The worker has not heard of the job, or could not take it: nothing runs.

        The worker is in backoff, unless it was not called because the store failed.
        """
        if isinstance(error, Unavailable):
            if is_shortage(error) and not self.backoff.active(worker.id):
                self._log.warn("worker {worker} can't start jobs: {why}", worker=worker.name, why=str(error))
            if self._registry.find_registered(worker.id) is not None and not isinstance(error, StoreFailed):
                self.backoff.refused(worker.id, error)
            tried = evolve(tried, workers=tried.workers | {worker.id})
            current = self._registry.job(job.id)
            # Only by an answer it is known at once that nothing runs there.
            answered = is_shortage(error) or isinstance(error, Misdirected | NotAWorker)
            other = self._choice.elsewhere(current, tried) if answered else None
            if other is not None:
                return await self._dispatch(other, evolve(current, worker_id=other.id, worker_name=other.name), tried)
            if job.terms.queue_timeout and (job.promised or self._room()):
                return await self._back(job, str(error))
        if job.promised:
            with contextlib.suppress(StoreFailed):
                if not isinstance(error, StoreFailed):
                    return await self._fail(job, error)
            return await self._back(job, str(error))  # its chance is not used up, or it is decided on later
        await self._ledger.learn(job.ref)
        raise error

    async def _back(self, job: Job, why: str) -> Job:
        """Into the queue, unless it was stopped meanwhile; one that nobody was promised waits only if that is saved."""
        waiting = lifecycle.waiting(self._registry.job(job.id), why, self._ledger.now())
        if waiting.state.final:
            return await self._conclude(waiting)
        try:
            return await self._record(waiting)
        except StoreFailed:
            if not job.promised:
                await self._ledger.learn(job.ref)
            raise

    async def _unanswered(self, job: Job) -> None:
        now = self._registry.job(job.id)
        with contextlib.suppress(
            StoreFailed
        ):  # saved later; until then the store says "starting", which is no less true
            await self._ledger.learn(lifecycle.unknown(now, "the start was not answered", self._ledger.now()))

    async def _started(self, worker: Worker, job: Job, status: JobStatus) -> Job:
        if status.state is JobState.RUNNING or status.started_at is not None:  # not one that it may not run
            self.backoff.took(worker.id)
        current = self._registry.job(job.id)  # a heartbeat may have been faster
        now = self._ledger.now()
        if status.job_id != job.id:
            current = evolve(current, remote_id=status.job_id)
        if not status.state.final:  # what was refused never started
            status = evolve(status, started_at=status.started_at or now)
        started, _ = lifecycle.followed(lifecycle.reported(current, status, now), now)  # as it is going to be shown
        # That there is such a job is durable, and its worker tells again that it runs: that need not be waited for, nor
        # succeed. An end must be durable to be told, and so must the first answer to a key and an id that is not ours.
        told_again = not started.state.final and started.remote_id is None and self._registry.key_of(job.id) is None
        if told_again:
            self._ledger.learn(started, lazily=True)
        else:
            try:
                await self._record(started)
            except StoreFailed as failure:
                if started.state.final:
                    raise StartUnanswered(worker.name, job.id, StoreFailed.sentence(str(failure))) from failure
        self._log.info(
            "job {job_id} on {worker}: {state}", job_id=job.id, worker=worker.name, state=started.state.value
        )
        failpoints.hit("scheduler.before-answer")
        return started

    async def _record(self, job: Job) -> Job:
        """What the request for the job is answered with, if it was not answered before."""
        await self._ledger.learn(job, *self._answered_with(job))
        return job

    async def _conclude(self, job: Job) -> Job:
        """The same of an end that is decided here."""
        await self._ledger.decide(job, *self._answered_with(job))
        return job

    async def _fail(self, job: Job, error: SchedulerError) -> Job:
        """It never ran, for that reason."""
        return await self._conclude(lifecycle.failed(self._registry.job(job.id), str(error), self._ledger.now()))

    def _answered_with(self, job: Job) -> list[IdempotencyKey]:
        key = self._registry.key_of(job.id)
        return [] if key is None or key.answer is not None else [evolve(key, answer=job)]


def _named(key: RequestKey | None, job: Job, answer: Job | None = None) -> list[IdempotencyKey]:
    """The key as it is kept with the job, if there is one."""
    return [] if key is None else [IdempotencyKey(key.key, key.fingerprint, job.id, answer)]
