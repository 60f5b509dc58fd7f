"""The queue: the jobs that wait for a worker, since when and for how long.

Theory of operation. The queue has no store of its own: it follows the ledger. A job that becomes ``queued`` enters the
queue by a call within that change, so that no new job can overtake it. It is new, a next attempt, or its start was
never sent. A job whose state becomes any other has left the queue. The queue learns of that in the next turn of the
reactor, so it checks the job's current state before it acts. After a restart it is made again from the registry. Until
the scheduler is settled (``scheduler.cluster.set_back``), no job is dispatched, and no ``queue_timeout`` of a loaded
job ends: the job may be running already. All jobs that are due stand in their lines, so no newcomer goes before them.

A job waits in ``scheduler.cluster.jobs.lines`` from when it is due, which is at once unless it retries after a delay,
until its ``queue_timeout`` has passed; ``scheduler.cluster.jobs.dispatcher`` starts it when its turn comes. A job whose
``queue_timeout`` is 0 has only one chance, when it is due; after a restart it waits for a while like others, as its
workers may not be back yet. Times are measured by the reactor's clock, so a step of the wall clock changes nothing.
Only after a restart the wall clock tells how old a job is; a clock that was set back makes the job no younger than new.
A queued job is promised to be started, for its ``queue_timeout`` at most: a start that was sent and not answered by
then is not sent again.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from scheduler import units
from scheduler.cluster import lifecycle
from scheduler.cluster.changes import Change, JobChanged
from scheduler.cluster.jobs.choice import Choice
from scheduler.cluster.jobs.deadlines import Deadlines
from scheduler.cluster.jobs.dispatcher import SWEEP_INTERVAL_SECONDS, Dispatcher
from scheduler.cluster.jobs.flights import Flights
from scheduler.cluster.jobs.lines import Lines
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.set_back import SetBack
from scheduler.errors import QueueFull, SchedulerError
from scheduler.model import Job, JobState, Submission
from scheduler.views import JobFilter

#: Seconds after a restart for which a job with only one chance waits like others: workers may not be back yet.
RESTART_GRACE_SECONDS = 30.0


@define
class _Times:
    """The times of one job, by the clock."""

    due: float
    #: When its ``queue_timeout`` has passed.
    over: float
    #: A worker is being chosen for its only chance.
    choosing: bool = False


@define(eq=False, slots=False)
class Queue(Service):
    """The queue of one scheduler; it is to hear every change."""

    _log = Logger()

    _clock: IReactorTime
    _ledger: Ledger
    _choice: Choice
    _flights: Flights
    #: The jobs that are due.
    _waiting: Lines
    _set_back: SetBack
    _dispatcher: Dispatcher
    #: Jobs that may be queued.
    _most: int

    def __attrs_post_init__(self) -> None:
        self._registry = self._ledger.registry
        # how many jobs are to be queued, and not committed yet
        self._entering = 0
        # of each job that is queued, or starting and may come back
        self._times: dict[str, _Times] = {}
        self._deadlines = Deadlines(self._clock)
        # ids of the jobs that are due when it is known whether they run; a dict, for its order
        self._postponed: dict[str, None] = {}

    def startService(self) -> None:
        super().startService()
        self._dispatcher.begin()
        now = self._ledger.now()
        started = self._registry.jobs.listing.matching(
            JobFilter(states=frozenset({JobState.STARTING, JobState.UNKNOWN}))
        )
        unsure = [job for job in started if _awaits_word(job)]
        if not self._set_back.settled:
            self._set_back.settling.when_over().addCallback(self._settled)
        for job in self._registry.jobs.unfinished(None):
            self.stand(job, age=max(0.0, now - job.created_at), restarted=True)
        for job in unsure:
            self._times_of(job, age=max(0.0, now - job.created_at))

    def _settled(self, _: None) -> None:
        postponed, self._postponed = self._postponed, {}
        if not self.running:
            return
        for job_id in postponed:
            job = self._registry.jobs.find(job_id)
            if job is not None and job.state is JobState.QUEUED and job_id in self._times:
                self._next(job)  # unless its worker has told of it
        self._dispatcher.wake()

    def stopService(self) -> None:
        super().stopService()
        self._dispatcher.stop()
        for job_id in list(self._times):
            self._forget(job_id)

    @property
    def idle(self) -> bool:
        """Whether no job waits or may come back, and no start of the queue is under way."""
        kept = self._times or self._postponed or self._entering
        return not kept and self._waiting.idle and self._deadlines.idle and self._dispatcher.idle

    @property
    def has_room(self) -> bool:
        return self._registry.jobs.queued + self._entering < self._most

    def due_in(self, job_id: str) -> float:
        """Seconds until a queued job is due; 0: it waits for a worker already."""
        times = self._times.get(job_id)
        return 0.0 if times is None else max(0.0, times.due - self._clock.seconds())

    def still_wanted(self, job: Job) -> bool:
        """Whether a job whose start was not answered may be started again: it was promised, and its time goes on."""
        age = max(0.0, self._ledger.now() - job.created_at)
        return job.promised and self._clock.seconds() < self._times_of(job, age).over

    # -- who enters and who leaves

    async def enter(self, job: Job) -> Job:
        """Commit that a new job waits; ``QueueFull``, ``StoreFailed``: there is no job."""
        assert job.target is not None
        if not self.has_room:
            raise QueueFull(self._most)
        named = None if job.target.worker is None else self._registry.workers.get(job.target.worker).name
        job = evolve(job, worker_name=named, promised=True)
        self._entering += 1
        try:
            await self._ledger.decide(job)
        finally:
            self._entering -= 1
        self._log.info("job {job_id} is queued", job_id=job.id)
        return job

    def stand(self, job: Job, age: float = 0.0, restarted: bool = False) -> None:
        """Take in a job that is queued now. ``age`` in seconds, if it is not new."""
        if not self.running or job.target is None or job.id in self._waiting:
            return
        times = self._times_of(job, age)
        if restarted and not job.terms.queue_timeout:
            times.over = max(times.over, self._clock.seconds() + RESTART_GRACE_SECONDS)
        if not times.choosing:
            self._next(job)

    def hear(self, change: Change) -> None:
        if not self.running:
            return
        if not isinstance(change, JobChanged):
            self._dispatcher.consider(change.ref.id)
            return
        job, is_gone = change.last, change.after is None
        if job.state is JobState.QUEUED and not is_gone:
            self.stand(job)
        elif not is_gone and (job.state is JobState.STARTING or _awaits_word(job)):
            self._leave(job)
        else:
            self._forget(job.id)
            if job.worker_id is not None and (job.state.final or is_gone):
                self._dispatcher.consider(job.worker_id)

    def _leave(self, job: Job) -> None:
        """Take a starting job out of its line. Its time goes on: the start may come to nothing, or not be answered."""
        self._waiting.leave(job.id)
        self._deadlines.clear(job.id)
        if job.promised or job.terms.queue_timeout:
            self._times_of(job)

    def _forget(self, job_id: str) -> None:
        if self._times.pop(job_id, None) is not None:
            self._deadlines.clear(job_id)
            self._postponed.pop(job_id, None)
            self._waiting.forget(job_id)

    def _times_of(self, job: Job, age: float = 0.0) -> _Times:
        times = self._times.get(job.id)
        if times is None:
            retry = job.terms.retry
            delay = retry.delay if retry is not None and job.retry_of is not None else 0.0
            born = self._clock.seconds() - age
            times = self._times[job.id] = _Times(born + delay, born + delay + job.terms.queue_timeout)
        return times

    # -- the time of a job

    def _next(self, job: Job) -> None:
        """Wait for the job's next deadline. Nothing is done at once, as this may be within a change of the ledger."""
        times, now = self._times[job.id], self._clock.seconds()
        if now < times.due:
            self._at(times.due, self._next, job)
            return
        self._at(times.over, self._expire if job.terms.queue_timeout else self._only_chance, job)
        if now < times.over:
            self._dispatcher.wait(job)

    def _at(self, when: float, call: Callable[[Job], None], job: Job) -> None:
        def now() -> None:
            current = self._registry.jobs.find(job.id)
            if current is None or current.state is not JobState.QUEUED:
                return  # what became of it is heard in a moment
            if call != self._next and self._set_back.may_have_begun(current):  # ``_next`` starts nothing
                self._postponed[job.id] = None
            else:
                call(current)

        self._deadlines.set(job.id, when, now)

    def _only_chance(self, job: Job) -> None:
        self._waiting.leave(job.id)
        if self._ledger.store_problem:
            self._at(self._clock.seconds() + SWEEP_INTERVAL_SECONDS, self._only_chance, job)
            return
        Deferred.fromCoroutine(self._take_chance(job, self._times[job.id])).addErrback(
            lambda reason: self._log.failure("starting job {job_id} went wrong", reason, job_id=job.id)
        )

    async def _take_chance(self, job: Job, times: _Times) -> None:
        assert job.target is not None
        times.choosing = True
        worker, refusal = None, ""
        try:
            worker = await self._choice.soon(Submission(job.spec, job.target, job.terms), newcomer=False)
        except SchedulerError as error:
            refusal = str(error)
        times.choosing = False
        current = self._registry.jobs.find(job.id)
        has_left = current is None or current.state is not JobState.QUEUED or self._times.get(job.id) is not times
        if current is None or has_left or self._flights.closed:
            return  # when this process stops, the job stays until the next start of the scheduler
        if worker is None:
            self._end(current, refusal)
        else:
            self._dispatcher.dispatch(worker, current)

    def _expire(self, job: Job) -> None:
        why = f"queue_timeout of {units.format_duration(job.terms.queue_timeout)} passed before a worker was free"
        self._end(job, f"{why}; the last one asked: {job.reason}" if job.reason else why)

    def _end(self, job: Job, why: str) -> None:
        def not_yet(_: object) -> None:
            if job.id in self._times:
                self._at(self._clock.seconds() + SWEEP_INTERVAL_SECONDS, self._next, job)

        self._ledger.decide(lifecycle.failed(job, why, self._ledger.now())).addErrback(not_yet)


def _awaits_word(job: Job) -> bool:
    """Whether the job was promised, and its start was sent and not answered."""
    return job.promised and lifecycle.unconfirmed(job)
