"""Stops: recorded, asked of the worker, and over when the worker says that the job has ended.

Theory of operation. A stop is durable: ``stop_requested_at`` is committed before
anybody is told of it. A stop that its worker has not taken yet is delivered again
when the worker comes online, and every ``RETRY_INTERVAL_SECONDS`` while it is; so
it does not matter who is down when a stop is asked for, nor for how long. A
worker that has taken a stop keeps it in the job's spool.

While the database is unavailable, a stop that a client asks for is delivered all the
same, and is answered only if the end of the job is durable by then. A stop that no client
asked for is not delivered before it is durable: only the store knows why it was
made, and for a core worker's job that it was made at all.

A queued job ends without a call. But if the store may have been set back, the job may
run, so its stop waits until that is known. The worker is first asked about a job whose
start was not answered. That seals the id: a start that has not arrived is refused.

A stop of any attempt ends the whole chain of attempts. An attempt that has ended can't
record a stop, so the stop goes on to the next attempt; an attempt that was asked to
stop has none. While the end of an attempt is being saved, together with the next one,
the stop waits. If the save fails within the stop's time, the stop raises that error.

An ended job may have left processes that no signal ends. Its record lists them as they
were at its end. So a stop of such a job asks the worker for those that are left now,
each time, and raises ``LeftRunning`` if there are any.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from scheduler.cluster import lifecycle
from scheduler.cluster.changes import Change, JobChanged
from scheduler.cluster.job_rounds import JobRounds
from scheduler.cluster.jobs.flights import Flights
from scheduler.cluster.jobs.late_answers import LateAnswers
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.listing import EXAMINED_PER_PAGE
from scheduler.cluster.reach import Reach
from scheduler.cluster.set_back import SetBack
from scheduler.cluster.waits import Waits
from scheduler.deferreds import Shared, shielded
from scheduler.errors import DeadlineExceeded, LeftRunning, NotFound, SchedulerError, StoreFailed, Unavailable
from scheduler.interfaces import IWorkerClient
from scheduler.model import Job, JobState
from scheduler.turns import Turns
from scheduler.views import JobFilter

#: Seconds a stop may take beyond the job's own ``stop_grace``: more than the 5 s that a shim waits after KILL.
STOP_MARGIN_SECONDS = 10.0

#: Seconds after which a stop that was delivered is answered with the job as it is, however long its grace.
STOP_WAIT_MAX_SECONDS = 60.0

#: Stops asked for at once when many jobs are stopped together.
MAX_STOPS_AT_ONCE = 16


@define(eq=False, slots=False)
class Stops:
    """Ends jobs. ``clock`` measures patience."""

    _log = Logger()

    _clock: IReactorTime
    _ledger: Ledger
    _client: IWorkerClient
    _flights: Flights
    _late: LateAnswers
    _reach: Reach
    _set_back: SetBack
    _waits: Waits
    #: As of ``JobRounds``.
    _probed: Callable[[str], Deferred[None]]

    def __attrs_post_init__(self) -> None:
        self._registry = self._ledger.registry
        # ids of unfinished jobs whose workers have taken the stop
        self._taken: set[str] = set()
        self._asking = Shared()
        self._rounds = JobRounds("delivering the stops", self._registry, self._probed)

    @property
    def idle(self) -> bool:
        """Whether no stop is on its way to a worker, or is being carried out there."""
        return not self._taken and self._asking.idle and self._rounds.idle

    async def stop(self, job: Job, ask: Callable[..., Awaitable[Any]] = maybeDeferred, why: str | None = None) -> Job:
        """See ``IScheduler.stop``; ``ask`` makes the call to the worker, when it is time.

        ``why``: the reason of a stop that no client asked for; the stopped jobs show it.
        """
        until = self._clock.seconds() + STOP_WAIT_MAX_SECONDS
        last: Job | None = job
        while last is not None:
            last = await self._end(last, until, ask, why)
            if not last.over:
                return self._registry.jobs.find(job.id) or job
            last = self._registry.jobs.find(last.retried_by or "")
        for attempt in self._registry.jobs.attempts(job.id):
            if attempt.leftover:
                await self._look_again(attempt, ask)
        return self._registry.jobs.find(job.id) or job

    async def stop_matching(self, which: JobFilter, why: str | None = None) -> tuple[Job, ...]:
        """See ``IScheduler.stop_matching``; ``why`` as for ``stop``."""
        jobs: dict[str, Job] = {}
        cursor: str | None = None
        while True:
            page = self._registry.jobs.listing.page(which, EXAMINED_PER_PAGE, cursor)
            last = [self._registry.jobs.last_attempt(job.id) for job in page.jobs]
            jobs |= {job.id: job for job in last if not job.over and (which.within is None or which.within(job))}
            if page.next is None:
                break
            cursor = page.next
            await deferLater(self._clock, 0)
        asking = Turns(MAX_STOPS_AT_ONCE)
        stops = [Deferred.fromCoroutine(self.stop(job, asking.run, why)) for job in jobs.values()]
        done = shielded(DeferredList(stops, consumeErrors=True))  # one that fails shows it in the state of its job
        await done.addTimeout(STOP_WAIT_MAX_SECONDS, self._clock, lambda _reason, _seconds: [])
        found = [list(self._registry.jobs.attempts(job.id)) or [job] for job in jobs.values()]
        return tuple(attempts[-1] for attempts in found)

    async def _end(self, job: Job, until: float, ask: Callable[..., Awaitable[Any]], why: str | None) -> Job:
        """Stop one attempt, and return it: not ``over`` if it has more time than ``until``, or can't be told now."""
        if job.state is JobState.QUEUED and self._set_back.may_have_begun(job):
            job = await self._known(job, until)
        if job.over:
            return job
        unsaved = await self._record(job, why)
        job = await self._flights.settled(job.id)
        if not job.over:
            try:
                if job.id not in self._ledger.endings:  # else there is nothing to stop, and only that to wait for
                    await self._deliver(job, ask)
            except (Unavailable, DeadlineExceeded):
                if unsaved is not None:
                    raise unsaved from None
                return self._registry.jobs.get(job.id)
            patience, left = job.spec.stop_grace + STOP_MARGIN_SECONDS, until - self._clock.seconds()
            job = await self._waits.until_over(job.id, max(0.0, min(patience, left)))
            unsaved_end = self._ledger.endings.failure(job.id)
            if unsaved_end is not None:
                raise unsaved_end  # not kept: the attempt that may follow it is not stopped
            if unsaved is not None and not job.over:
                await self._ledger.settled()  # the stop is promised for later only if it is durable by now
            if not job.over and patience <= left:
                raise DeadlineExceeded(f"stop of job {job.id}", patience, job.id)
        return job

    async def _known(self, job: Job, until: float) -> Job:
        """The job once the scheduler is settled: by then its worker had time to report it."""
        if not await self._set_back.settling.over_within(max(0.0, until - self._clock.seconds())):
            raise DeadlineExceeded(f"stop of job {job.id}", STOP_WAIT_MAX_SECONDS, job.id)
        return self._registry.jobs.get(job.id)

    async def _look_again(self, job: Job, ask: Callable[..., Awaitable[Any]]) -> None:
        """Raise ``LeftRunning``, unless the worker says that the processes which the job left behind are gone."""
        left, where = job.leftover, ""
        try:
            status = await ask(self._client.stop_job, self._reach.worker_of(job), job.id_on_worker)
            if status is not None and status.state.final:
                left = status.leftover
        except NotFound:
            where = ", as seen at its end (its worker no longer keeps the job)"
        except SchedulerError as error:
            where = f", as seen at its end ({error})"
        if left:
            raise LeftRunning(job.id, left, lifecycle.leftover_text(left) + where)

    def hear(self, change: Change) -> None:
        if isinstance(change, JobChanged):
            if change.after is None or change.after.over:
                self._taken.discard(change.last.id)
            return
        self._begin_round(change.ref.id)

    def retry(self) -> None:
        """Deliver what workers that are online have not taken."""
        for worker_id in self._registry.jobs.awaited_by_stops():
            self._begin_round(worker_id)

    def _begin_round(self, worker_id: str) -> None:
        if self._registry.presences.of(worker_id).is_online and self._undelivered(worker_id):
            self._rounds.begin(worker_id, partial(self._undelivered, worker_id), self._deliver_again)

    def _undelivered(self, worker_id: str) -> list[Job]:
        return [job for job in self._registry.jobs.stopping(worker_id) if self._may_deliver(job)]

    def _may_deliver(self, job: Job) -> bool:
        return (
            not job.over
            and job.id not in self._ledger.endings
            and job.id not in self._taken
            and job.id not in self._asking
            and job.id not in self._flights
        )

    async def _deliver_again(self, job: Job) -> None:
        current = self._registry.jobs.find(job.id)
        if current is None or not self._may_deliver(current):
            return
        try:
            await self._deliver(current)
        except (Unavailable, DeadlineExceeded):
            raise  # it is tried again
        except SchedulerError as error:
            self._log.warn("job {job_id} is not stopped: {why}", job_id=job.id, why=str(error))

    async def _record(self, job: Job, why: str | None) -> StoreFailed | None:
        """Commit that a stop was asked for, and end what is only queued; why that failed, if it did.

        A client can have a job stopped while the database is unavailable; only to promise it for later takes the
        commit. So does a stop that no client asked for: ``StoreFailed`` is raised.
        """
        now = self._ledger.now()
        asked = lifecycle.asked_to_stop(job, now, why)
        if job.state is JobState.QUEUED:
            await self._ledger.decide(lifecycle.withdrawn(asked, now))
            return None
        if why is not None:
            await self._ledger.amend(job, lambda job: job if job.over else lifecycle.asked_to_stop(job, now, why))
            return None
        try:
            await self._ledger.learn(asked)
        except StoreFailed as failure:
            return failure
        return None

    def _deliver(self, job: Job, ask: Callable[..., Awaitable[Any]] = maybeDeferred) -> Deferred[None]:
        """Deliver the stop to the job's worker now, or join a delivery that is under way. Raises errors of the call."""
        return self._asking.join(job.id, lambda: Deferred.fromCoroutine(self._ask(job, ask)))

    async def _ask(self, job: Job, ask: Callable[..., Awaitable[Any]]) -> None:
        if job.state is JobState.QUEUED:  # again: its start never left
            await self._ledger.decide(lifecycle.withdrawn(job, self._ledger.now()))
            return
        worker = self._reach.worker_of(job)
        if lifecycle.unconfirmed(job) and worker.seals:
            try:
                status = await ask(self._client.query_job, worker, job.id_on_worker, seal=True)
            except NotFound:
                await self._ledger.decide(lifecycle.withdrawn(self._registry.jobs.get(job.id), self._ledger.now()))
                return
            await self._ledger.learn(lifecycle.reported(self._registry.jobs.get(job.id), status, self._ledger.now()))
        if lifecycle.untraceable(job, worker):
            if job.id in self._late:
                raise Unavailable(f"worker {worker.name!r} has not answered the start of job {job.id!r} yet")
            await self._ledger.decide(lifecycle.lost(job, "no record", self._ledger.now()))
            return
        try:
            await ask(self._client.stop_job, worker, job.id_on_worker)
        except NotFound:
            await self._ledger.decide(lifecycle.lost(self._registry.jobs.get(job.id), "no record", self._ledger.now()))
            return
        if not self._registry.jobs.get(job.id).over:
            self._taken.add(job.id)
