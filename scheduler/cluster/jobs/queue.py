"""Has queued jobs started when their turn comes, and ends those whose time is over.

Theory of operation. The queue is no store of its own: it follows the ledger. A job
that becomes ``queued`` there enters by a call within that change, so that no new job can
overtake it: whether it is new, comes back because its start never left, or is the next
attempt of another. One that becomes anything else has left, whoever did that; the queue
hears so in the next turn, and looks at a job as it is by then before it does anything with
it. After a restart it is made again from the registry. Until it is known whether the store
was set back (``scheduler.cluster.set_back``) no job is taken from it, and the time of none
is over that was loaded: it may run, or have run. All that are due stand in their lines, so
no newcomer goes before them.

A job waits in ``scheduler.cluster.jobs.lines`` from when it is due, which is at once but
for one that retries after a delay, until its ``queue_timeout`` has passed. Where that is 0
it has one chance, when it is due; after a restart it waits for a while like others, as its
workers may not be back yet. Both times
are measured by the reactor's clock, so a step of the wall clock changes nothing; only
across a restart it tells how much is left, and never makes that more than it was.
The promise that it will be started holds no longer than that either: one whose start
was sent and not answered until then is not to be started again.

Work is found for a worker, not a worker for a job: when a job of it ends, when it
comes online, gives a sign of life or is no longer draining, it is looked at, and
gets the jobs that are next for it while it has a free slot. Workers that are looked
at together are served by their loads. A job that enters as the first of its line has
the least loaded worker looked at that can take it. A sweep over all lines does the same
every ``SWEEP_INTERVAL_SECONDS`` while any job waits, and so catches what these events miss: a
backoff that ended, say.

Few starts of the queue are under way at a time, so that it floods no worker, and
leaves room to the requests of others. While the store fails none begins: a start has
to be committed first.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable

from attrs import define, evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from scheduler import units
from scheduler.cluster import lifecycle
from scheduler.cluster.candidates import Place, Standing, has_slot
from scheduler.cluster.changes import Change, WorkerChanged
from scheduler.cluster.jobs.lines import Lines
from scheduler.cluster.jobs.starts import Starts
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.requirement import Requirement
from scheduler.cluster.set_back import SetBack
from scheduler.daemon.sweep import Sweep
from scheduler.errors import SchedulerError
from scheduler.interfaces import JobFilter
from scheduler.model import Job, JobState, Worker, WorkerState

#: Seconds between looks at all workers.
SWEEP_INTERVAL_SECONDS = 2.0

#: Starts of the queue under way at a time, in all and on one worker.
MAX_STARTS, MAX_STARTS_PER_WORKER = 64, 4

#: Seconds after a restart for which a job waits like others that has but one chance: workers may not be back yet.
RESTART_GRACE_SECONDS = 30.0


@define
class _Times:
    """Of one job, by the clock."""

    due: float
    #: When its ``queue_timeout`` has passed.
    over: float
    #: What comes next.
    timer: IDelayedCall | None = None
    #: A worker is being chosen for its only chance.
    choosing: bool = False


class Queue(Service):
    """One for each scheduler; to hear every change."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, ledger: Ledger, starts: Starts, waiting: Lines, set_back: SetBack) -> None:
        self._clock = clock
        self._ledger = ledger
        self._registry = ledger.registry
        self._starts = starts
        self._waiting = waiting
        self._set_back = set_back
        # of each job that is queued, or starting and may come back
        self._times: dict[str, _Times] = {}
        # what is due and waits until it is known whether the job runs
        self._postponed: list[Callable[[], None]] = []
        # the workers to look at: worker id -> its place among them, and these in order
        self._worth_a_look: dict[str, Place] = {}
        self._turns: list[Place] = []
        # worker id -> what was waited for when it was found for that; a search goes on when it has had its turn
        self._found_for: dict[str, dict[Requirement, None]] = {}
        self._pass: IDelayedCall | None = None
        # worker id -> starts under way
        self._under_way: Counter[str] = Counter()
        self._looking: IDelayedCall | None = None
        self._sweep = Sweep(clock, self._search)

    def startService(self) -> None:
        super().startService()
        now = self._ledger.now()
        queued = self._registry.unfinished(None)
        started = self._registry.listing.matching(JobFilter(states=frozenset({JobState.STARTING, JobState.UNKNOWN})))
        unsure = [job for job in started if _awaits_word(job)]
        if not self._set_back.settled:
            self._set_back.when_settled().addCallback(self._settled)
        for job in queued:
            self._enter(job, age=max(0.0, now - job.created_at), restarted=True)
        for job in unsure:
            self._await_word(job, age=max(0.0, now - job.created_at))

    def _settled(self, _: None) -> None:
        postponed, self._postponed = self._postponed, []
        if self.running:
            for call in postponed:
                call()
            self._wake()

    def stopService(self) -> None:
        super().stopService()
        for call in (self._looking, self._pass):
            if call is not None:
                call.cancel()
        self._looking = self._pass = None
        self._sweep.stop()
        for job_id in list(self._times):
            self._forget(job_id)

    def enter(self, job: Job) -> None:
        """The job becomes queued now."""
        if self.running:
            self._enter(job)

    def hear(self, change: Change) -> None:
        """A job or a worker changed."""
        if not self.running:
            return
        if isinstance(change, WorkerChanged):
            self._consider(change.last.id)
            return
        job, is_gone = change.last, change.after is None
        if job.state is JobState.QUEUED and not is_gone:
            self._enter(job)
        elif job.state is JobState.STARTING and not is_gone:
            self._leave(job)
        elif _awaits_word(job) and not is_gone:
            self._await_word(job)
        else:
            self._forget(job.id)
            if job.worker_id is not None and (job.state.final or is_gone):
                self._consider(job.worker_id)

    @property
    def idle(self) -> bool:
        """Whether no job waits or may come back, and no start of the queue is under way."""
        timers = self._pass is not None or self._looking is not None
        return (
            not (timers or self._postponed or self._times or self._under_way or self._worth_a_look)
            and self._waiting.idle
        )

    def due_in(self, job_id: str) -> float:
        """Seconds until a queued job waits for a worker; 0: it does."""
        times = self._times.get(job_id)
        return 0.0 if times is None else max(0.0, times.due - self._clock.seconds())

    # -- the times of a job

    def _enter(self, job: Job, age: float = 0.0, restarted: bool = False) -> None:
        """``age`` in seconds, of one that is not new."""
        if job.target is None or job.id in self._waiting:
            return
        times = self._times_of(job, age)
        if restarted and not job.terms.queue_timeout:
            times.over = max(times.over, self._clock.seconds() + RESTART_GRACE_SECONDS)
        if times.timer is None and not times.choosing:
            self._next(job)

    def _leave(self, job: Job) -> None:
        """It is starting; should that come to nothing, its time goes on."""
        self._waiting.leave(job.id)
        times = self._times_of(job) if job.terms.queue_timeout else self._times.get(job.id)
        if times is not None:
            self._stop_timer(times)

    def _await_word(self, job: Job, age: float = 0.0) -> None:
        """Nobody knows whether its start arrived; if it did not it may be sent again until its time is over."""
        self._waiting.forget(job.id)
        times = self._times_of(job, age)
        if times.timer is None:
            self._at(times, times.over, self._too_late, job)

    def _forget(self, job_id: str) -> None:
        times = self._times.pop(job_id, None)
        if times is not None:
            self._stop_timer(times)
            self._waiting.forget(job_id)

    def _times_of(self, job: Job, age: float = 0.0) -> _Times:
        times = self._times.get(job.id)
        if times is None:
            retry = job.terms.retry
            delay = retry.delay if retry is not None and job.retry_of is not None else 0.0
            born = self._clock.seconds() - age
            times = self._times[job.id] = _Times(born + delay, born + delay + job.terms.queue_timeout)
        return times

    def _next(self, job: Job) -> None:
        """Wait for what is next; nothing is done at once, as the job may be entering."""
        times, now = self._times[job.id], self._clock.seconds()
        if now < times.due:
            self._at(times, times.due, self._next, job)
        else:
            self._at(times, times.over, self._expire if job.terms.queue_timeout else self._only_chance, job)
            if now < times.over:
                self._wait(job)

    def _at(self, times: _Times, when: float, call: Callable[[Job], None], job: Job) -> None:
        def now() -> None:
            times.timer = None
            current = self._registry.find_job(job.id)
            is_due = _awaits_word if call == self._too_late else _is_queued
            if current is None or not is_due(current):
                return  # what became of it is heard in a moment
            if call != self._next and self._set_back.may_have_begun(job):  # to stand in a line has nothing started
                self._postponed.append(lambda: self._resume(times, job))
            else:
                call(current)

        times.timer = self._clock.callLater(max(0.0, when - self._clock.seconds()), now)

    def _resume(self, times: _Times, job: Job) -> None:
        """Go on with what was postponed, unless its worker has told."""
        now = self._registry.find_job(job.id)
        if now is None or self._times.get(job.id) is not times or times.timer is not None:
            return
        if now.state is JobState.QUEUED:
            self._next(now)
        elif _awaits_word(now):
            self._await_word(now)

    def _wait(self, job: Job) -> None:
        """For a worker, from now on."""
        assert job.target is not None
        if self._waiting.add(job):
            self._search(Requirement.of(job.spec, job.target))
        if self._looking is None:
            self._looking = self._clock.callLater(SWEEP_INTERVAL_SECONDS, self._look)

    @staticmethod
    def _stop_timer(times: _Times) -> None:
        if times.timer is not None:
            times.timer.cancel()
            times.timer = None

    def _only_chance(self, job: Job) -> None:
        self._waiting.leave(job.id)
        if self._ledger.store_problem:
            self._at(self._times[job.id], self._clock.seconds() + SWEEP_INTERVAL_SECONDS, self._only_chance, job)
            return
        Deferred.fromCoroutine(self._take_chance(job, self._times[job.id])).addErrback(
            lambda reason: self._log.failure("starting job {job_id} went wrong", reason, job_id=job.id)
        )

    async def _take_chance(self, job: Job, times: _Times) -> None:
        times.choosing = True
        worker, refusal = None, ""
        try:
            worker = await self._starts.worker_for(job)
        except SchedulerError as error:
            refusal = str(error)
        times.choosing = False
        current = self._registry.find_job(job.id)
        if self._times.get(job.id) is not times or current is None or not _is_queued(current) or self._starts.closed:
            return  # it has left the queue meanwhile, or stays there until the next start of this scheduler
        if worker is None:
            self._end(current, refusal)
        else:
            self._starts.dispatch_to(worker, current)

    def _expire(self, job: Job) -> None:
        why = f"queue_timeout of {units.format_duration(job.terms.queue_timeout)} passed before a worker was free"
        self._end(job, f"{why}; the last one asked: {job.reason}" if job.reason else why)

    def _too_late(self, job: Job) -> None:
        self._ledger.learn(evolve(job, promised=False)).addErrback(lambda _: None)

    def _end(self, job: Job, why: str) -> None:
        def not_yet(_: object) -> None:
            times = self._times.get(job.id)
            if times is not None and times.timer is None:
                self._at(times, self._clock.seconds() + SWEEP_INTERVAL_SECONDS, self._next, job)

        self._ledger.decide(lifecycle.failed(job, why, self._ledger.now())).addErrback(not_yet)

    # -- finding work

    def _look(self) -> None:
        self._looking = self._clock.callLater(SWEEP_INTERVAL_SECONDS, self._look) if self._waiting else None
        self._sweep.begin(self._waiting.demands())

    def _search(self, requirement: Requirement) -> None:
        """Look at the worker that is the first to take a job of that line; after its turn, at the next one."""
        if self._ledger.store_problem or not self._waiting.waits_for(requirement):
            return
        if requirement.worker is not None:
            for worker in self._registry.called(requirement.worker):
                self._consider(worker.id)
            return
        for worker in self._starts.backoff.candidates.each(requirement, (Standing.FREE,)):
            if self._takes_work(worker):
                self._found_for.setdefault(worker.id, {})[requirement] = None
                self._consider(worker.id)
                return

    def _consider(self, worker_id: str) -> None:
        worker = self._registry.find_worker(worker_id)
        if worker is None or not self.running or not self._waiting or not self._takes_work(worker):
            return
        load = self._registry.load(worker_id)
        if not (has_slot(worker, load) or self._waiting.named(worker)):
            return
        place, before = (load, worker.name, worker_id), self._worth_a_look.get(worker_id)
        if before != place:
            if before is not None:
                del self._turns[bisect_left(self._turns, before)]
            self._worth_a_look[worker_id] = place
            insort(self._turns, place)
        self._wake()

    def _wake(self) -> None:
        if self._pass is None:
            self._pass = self._clock.callLater(0, self._give_work)

    def _give_work(self) -> None:
        """One pass over the workers worth a look, the least loaded first."""
        self._pass = None
        if self._starts.closed or not self._set_back.settled:
            return
        while self._turns and self._under_way.total() < MAX_STARTS:
            load, _, worker_id = self._turns.pop(0)
            del self._worth_a_look[worker_id]
            if load != self._registry.load(worker_id) or self._gave_work(worker_id):
                self._consider(worker_id)
            for requirement in self._found_for.pop(worker_id, ()):
                self._search(requirement)

    def _gave_work(self, worker_id: str) -> bool:
        """Whether there was a job for that worker, which is starting now."""
        worker = self._registry.find_worker(worker_id)
        if worker is None or not self._takes_work(worker):
            return False
        free = has_slot(worker, self._registry.load(worker_id)) and worker.refusing is None
        job = None
        while job is None:
            job_id = self._waiting.first(worker, free)
            if job_id is None:
                return False
            job = self._registry.find_job(job_id)
            if job is None or not _is_queued(job):
                self._waiting.leave(job_id)  # what became of it is heard in a moment
                job = None
        self._leave(job)  # at once: a job whose end is being saved does not become "starting", and would stay the first
        self._under_way[worker_id] += 1
        self._starts.dispatch_to(worker, job).addCallback(self._started, worker_id, job.id)
        return True

    def _takes_work(self, worker: Worker) -> bool:
        return (
            worker.state is WorkerState.ONLINE
            and not worker.draining
            and not self._ledger.store_problem
            and self._under_way[worker.id] < MAX_STARTS_PER_WORKER
            and not self._starts.backoff.active(worker.id)
        )

    def _started(self, _: None, worker_id: str, job_id: str) -> None:
        self._under_way[worker_id] -= 1
        self._under_way += Counter()  # drops what is zero
        job = self._registry.find_job(job_id)
        if self.running and job is not None and job.state is JobState.QUEUED:
            self._enter(job)  # its end was being saved meanwhile, and could not be
        if self._worth_a_look:
            self._wake()  # those there was no room for
        self._consider(worker_id)


def _is_queued(job: Job) -> bool:
    return job.state is JobState.QUEUED


def _awaits_word(job: Job) -> bool:
    """Whether it was promised, and its start was sent and not answered."""
    return job.promised and lifecycle.unconfirmed(job)
