"""Gives workers the queued jobs that are next for them.

Theory of operation. Work is found for a worker, not a worker for a job: when a job of it ends, when it comes online,
accepts jobs again or is no longer draining, it is looked at, and gets the jobs that are next for it while it has a
free slot. Workers that are looked at together are served by their loads. A job that enters as the first of its line has
the least loaded worker looked at that can take it. A sweep over all lines does the same every
``SWEEP_INTERVAL_SECONDS`` while any job waits, and so catches what these events miss: a backoff that ended, say.

Few starts of the queue are under way at a time, so that it floods no worker, and leaves room to the requests of others.
While the database is unavailable none begins: a start has to be committed first.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left, insort
from collections import Counter

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.cluster.candidates import Place, Standing, has_slot, place_of
from scheduler.cluster.jobs.backoff import Backoff
from scheduler.cluster.jobs.flights import Flights
from scheduler.cluster.jobs.lines import Lines
from scheduler.cluster.jobs.starts import NotSent, Starts
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.requirement import Requirement
from scheduler.cluster.set_back import SetBack
from scheduler.daemon.sweep import Sweep
from scheduler.errors import SchedulerError, StoreFailed, Unavailable
from scheduler.model import Job, JobState, Worker

#: Seconds between looks at all lines.
SWEEP_INTERVAL_SECONDS = 2.0

#: Starts of the queue under way at a time, in all and on one worker.
MAX_STARTS, MAX_STARTS_PER_WORKER = 64, 4


@define(eq=False, slots=False)
class Dispatcher:
    """The part of the queue that starts jobs; ``Queue`` decides for how long they wait."""

    _log = Logger()

    _clock: IReactorTime
    _ledger: Ledger
    _starts: Starts
    _backoff: Backoff
    _flights: Flights
    _waiting: Lines
    _set_back: SetBack

    def __attrs_post_init__(self) -> None:
        self._registry = self._ledger.registry
        self._running = False
        # the workers to look at: worker id -> its place among them, and these in order
        self._worth_a_look: dict[str, Place] = {}
        self._turns: list[Place] = []
        # worker id -> the requirements for which it was found; their searches go on when it has had its turn
        self._found_for: dict[str, dict[Requirement, None]] = {}
        self._pass: IDelayedCall | None = None
        # worker id -> starts under way
        self._under_way: Counter[str] = Counter()
        self._looking: IDelayedCall | None = None
        self._sweep = Sweep(self._clock, self._search)

    @property
    def idle(self) -> bool:
        """Whether no start of the queue is under way, and no worker to be looked at."""
        return not (self._pass or self._looking or self._under_way or self._worth_a_look)

    def begin(self) -> None:
        self._running = True

    def stop(self) -> None:
        self._running = False
        for call in (self._looking, self._pass):
            if call is not None:
                call.cancel()
        self._looking = self._pass = None
        self._sweep.stop()

    def wait(self, job: Job) -> None:
        """Put a job that is due into its line, where it stands until it is started."""
        assert job.target is not None
        if self._waiting.add(job):
            self._search(Requirement.of(job.spec, job.target))
        if self._looking is None:
            self._looking = self._clock.callLater(SWEEP_INTERVAL_SECONDS, self._look)

    def consider(self, worker_id: str) -> None:
        """Look at the worker: it may be able to take a job now."""
        worker = self._registry.workers.find(worker_id)
        if worker is None or not self._running or not self._waiting or not self._takes_work(worker):
            return
        load = self._registry.load(worker_id)
        if not (has_slot(worker, load) or self._waiting.named(worker)):
            return
        place, before = place_of(worker, load), self._worth_a_look.get(worker_id)
        if before != place:
            if before is not None:
                del self._turns[bisect_left(self._turns, before)]
            self._worth_a_look[worker_id] = place
            insort(self._turns, place)
        self.wake()

    def wake(self) -> None:
        """Serve the workers that are to be looked at, in the next turn of the reactor."""
        if self._pass is None:
            self._pass = self._clock.callLater(0, self._give_work)

    def dispatch(self, worker: Worker, job: Job) -> Deferred[None]:
        """Start a job on that worker; fires when the start is over, however it went."""

        def over(result: object) -> None:
            if isinstance(result, Failure) and not result.check(SchedulerError):
                self._log.failure("starting job {job_id} went wrong", result, job_id=job.id)

        return self._flights.run(job.id, self._start(worker, job)).addBoth(over)

    # -- how

    async def _start(self, worker: Worker, job: Job) -> Job:
        """Start the job. If the start was not sent, the job waits again, or fails if this was its only chance."""
        result = await self._starts.dispatch(worker, job)
        if not isinstance(result, NotSent):
            return result
        error = result.error
        may_wait = isinstance(error, Unavailable) and (job.terms.queue_timeout or isinstance(error, StoreFailed))
        if not may_wait:
            with contextlib.suppress(StoreFailed):  # else it is decided on later
                return await self._starts.fail(job, error)
        return await self._starts.take_back(job, str(error))

    def _look(self) -> None:
        self._looking = self._clock.callLater(SWEEP_INTERVAL_SECONDS, self._look) if self._waiting else None
        self._sweep.begin(list(self._waiting.by_requirement))

    def _search(self, requirement: Requirement) -> None:
        """Look at the least loaded worker that can take a job with the requirement; after its turn, at the next one."""
        if self._ledger.store_problem or requirement not in self._waiting.by_requirement:
            return
        if requirement.worker is not None:
            for worker in self._registry.workers.called(requirement.worker):
                self.consider(worker.id)
            return
        for worker in self._backoff.candidates.each(requirement, (Standing.FREE,)):
            if self._takes_work(worker):
                self._found_for.setdefault(worker.id, {})[requirement] = None
                self.consider(worker.id)
                return

    def _give_work(self) -> None:
        """Serve the workers that are to be looked at, the least loaded first."""
        self._pass = None
        if self._flights.closed or not self._set_back.settled:
            return
        while self._turns and self._under_way.total() < MAX_STARTS:
            load, _, worker_id = self._turns.pop(0)
            del self._worth_a_look[worker_id]
            if load != self._registry.load(worker_id) or self._gave_work(worker_id):
                self.consider(worker_id)
            for requirement in self._found_for.pop(worker_id, ()):
                self._search(requirement)

    def _gave_work(self, worker_id: str) -> bool:
        """Start the next job for that worker; whether there was one."""
        worker = self._registry.workers.find(worker_id)
        job = None if worker is None or not self._takes_work(worker) else self._next(worker)
        if worker is None or job is None:
            return False
        self._under_way[worker_id] += 1
        self.dispatch(worker, job).addCallback(self._over, worker_id, job.id)
        return True

    def _next(self, worker: Worker) -> Job | None:
        """The job that is next for that worker, which leaves its line.

        It does so at once: one whose end is being saved does not become ``starting``, and would stay the first.
        """
        accepts = self._registry.presences.of(worker.id).refusing is None
        free = accepts and has_slot(worker, self._registry.load(worker.id))
        while (job_id := self._waiting.first(worker, free)) is not None:
            self._waiting.leave(job_id)
            job = self._registry.jobs.find(job_id)
            if job is not None and job.state is JobState.QUEUED:
                return job  # else what became of it is heard in a moment
        return None

    def _takes_work(self, worker: Worker) -> bool:
        return (
            self._registry.presences.of(worker.id).is_online
            and not worker.draining
            and not self._ledger.store_problem
            and self._under_way[worker.id] < MAX_STARTS_PER_WORKER
            and not self._backoff.active(worker.id)
        )

    def _over(self, _: None, worker_id: str, job_id: str) -> None:
        self._under_way[worker_id] -= 1
        self._under_way += Counter()  # drops what is zero
        job = self._registry.jobs.find(job_id)
        if job is not None and job.state is JobState.QUEUED:
            self._ledger.enter_queue(job)  # it is queued still, or again
        if self._worth_a_look:
            self.wake()  # those there was no room for
        self.consider(worker_id)
