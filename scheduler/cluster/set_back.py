"""Finds out whether the store was set back, by what workers say, and has them tell again what it lost.

Theory of operation. Workers are told the count of the store's commits and send back the highest that they
heard. One that is higher than the store's own, before this process has told that worker any, is of a past that the
store does not have: a backup was restored, or a standby that was behind took over while the scheduler was down.

From its start a scheduler does not know yet. So the count stands still, no worker is told one, no job is placed that
was loaded as ``queued``, no start is sent again, no next attempt begins, and a request with a key that is not known
waits: what the store lacks may run, or have run. This ends as soon as every worker that was loaded has said a count
that the store has, with a heartbeat that tells of no job which it has yet to describe, or ``SILENCE_MAX_SECONDS`` have
passed: it is ``settled``.

Where the store was set back, it first begins a new timeline, so that this stays known whoever is killed. Each worker
with a count of the past is asked to report all ended jobs. It is told a count that is one higher than its own, and
still of the past: when it says that one, it has heard. Once it has nothing more to report it is told the real count.
If it or the scheduler starts anew before that, it is asked again. It is settled when all workers that were loaded are
done, but not before ``SILENT_SHARE`` of a lease has passed, in which workers call that registered after the backup; and
after a lease in any case.

A worker may say what it likes. In one process the count only rises, so of a worker that was told one here a higher one
is not believed. What another one says begins a new timeline only a bounded number of times, and a bounded number of
timelines ahead of the store's own: whatever is made up, there are always counts left by which a store that was set back
is noticed.
"""

from __future__ import annotations

from attrs import Factory, define
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.cluster.ledger import Ledger
from scheduler.commits import COMMIT_COUNT_MAX, TIMELINE_COMMITS, next_timeline, timeline_of
from scheduler.errors import StoreFailed
from scheduler.interfaces import IStore, JobFilter
from scheduler.messages import Heartbeat
from scheduler.model import Job, JobState

#: Seconds from the start for which the workers that were loaded are waited for.
SILENCE_MAX_SECONDS = 6.0

#: Of a lease, the share in which every worker that is there calls.
SILENT_SHARE = 0.5

#: Timelines by which a count that is believed is ahead of the store's: each time that a store was set back adds one.
TIMELINES_AHEAD_MAX = 64

#: Timelines that one process begins: one for each worker that knows more than all those that were heard before it.
TIMELINES_BEGUN_MAX = 8

#: Ids of jobs that are not known, of one worker that is asked for all its jobs, which are remembered.
UNKNOWN_SEEN_MAX = 10_000

#: Workers that are gone, and of which is remembered that this process told them a count.
TOLD_GONE_MAX = 10_000

_NOT_STARTED = JobFilter(states=frozenset({JobState.QUEUED, JobState.STARTING, JobState.UNKNOWN}))


@define
class _Asked:
    """One worker that has to report all its ended jobs."""

    #: The count that it was told with that; ``None``: it was not asked yet.
    told: int | None = None
    #: Ids of the jobs that it has reported since it heard.
    seen: set[str] = Factory(set)
    #: How many of these are not known.
    unknown: int = 0


class SetBack(Service):
    """One for each scheduler; it starts when the ledger is loaded."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, ledger: Ledger, store: IStore, lease: float) -> None:
        """``store`` is that of the ledger; ``lease`` in seconds."""
        self._clock = clock
        self._ledger = ledger
        self._store = store
        self._set_back_to: int | None = None
        self._lease = lease
        #: Whether what the store lacks is known, as far as it can be.
        self.settled = False
        # ids of the jobs that were loaded as not started, or not known to be
        self._not_started: frozenset[str] = frozenset()
        self._counting = False
        self._beginning = False
        # in this process a worker has told of a past
        self._recovering = False
        # when this process began to wait, by the clock
        self._since = 0.0
        # ids of the workers that were loaded, and have yet to say a count that the store has
        self._silent: set[str] = set()
        # ids of those that this process has told a count, and of them those that are gone, in order
        self._told: set[str] = set()
        self._gone: dict[str, None] = {}
        # ids of those whose counts began timelines in this process, and of those whose counts were not believed
        self._began: set[str] = set()
        self._doubted: set[str] = set()
        self._asked: dict[str, _Asked] = {}
        self._timer: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []

    @property
    def idle(self) -> bool:
        """Whether nobody waits, no worker is being asked, and of those that are gone no more is kept than may be."""
        find = self._ledger.registry.find_worker
        kept = {*self._doubted, *self._told} - self._gone.keys()
        return not (self._waiting or self._asked or self._timer) and all(map(find, kept))

    @property
    def most_seen(self) -> int:
        """The largest number of ids that are remembered of one worker, of those that it reports and nobody knows."""
        return max((len(asked.seen) for asked in self._asked.values()), default=0)

    @property
    def gone_kept(self) -> int:
        """The number of workers that are gone and were told of the count, or not believed about it."""
        find = self._ledger.registry.find_worker
        return sum(find(worker_id) is None for worker_id in {*self._told, *self._doubted})

    @property
    def found(self) -> bool:
        """Whether in this process a worker has told of what the store does not have."""
        return self._recovering

    def startService(self) -> None:
        super().startService()
        self._since = self._clock.seconds()
        self._set_back_to = self._ledger.set_back_to
        jobs = self._ledger.registry.listing.matching(_NOT_STARTED)
        self._not_started = frozenset(job.id for job in jobs if job.started_at is None)
        workers = self._ledger.registry.workers()
        self._silent = {each.id for each in workers if each.sends_heartbeats and each.deregistered_at is None}
        if self._silent:
            self._wait(SILENCE_MAX_SECONDS)
        else:
            self._settle()

    def stopService(self) -> None:
        super().stopService()
        self._stop_timer()
        self._wake()

    def when_settled(self) -> Deferred[None]:
        """Fires when it is ``settled``, or this stops."""
        if self.settled or not self.running:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    async def settles_within(self, seconds: float) -> bool:
        """Whether it is ``settled``, or this stops, before so many seconds have passed; answers as soon as it is."""
        waiting = self.when_settled()
        in_time = waiting.addCallback(lambda _: True).addTimeout(seconds, self._clock, lambda *_: False)
        try:
            return await in_time or self.settled
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def registered(self, worker_id: str, count: int, new_process: bool) -> int:
        """A worker registers, and has heard of that count; answers the count to tell it, 0 for none.

        ``new_process``: it is not the one that was asked, if any was.
        """
        self._gone.pop(worker_id, None)
        if self._is_of_the_past(worker_id, count):
            if new_process or worker_id not in self._asked:
                self._asked[worker_id] = _Asked()
            return 0
        self._asked.pop(worker_id, None)
        return self._count_for(worker_id)

    def may_run_on(self, worker_id: str, job: Job) -> bool:
        """Whether that worker may run that job, or have run it, though the store has it as not started.

        It was loaded so, or is the next attempt of another, whose id follows from that one's; and it is not known yet
        what the store lacks of what this worker did.
        """
        if self.settled and worker_id not in self._silent and worker_id not in self._asked:
            return False
        return job.retry_of is not None or job.id in self._not_started

    def may_have_begun(self, job: Job) -> bool:
        """Whether any worker may still tell that it runs that job, or ran it: see ``may_run_on``."""
        return not self.settled and (job.retry_of is not None or job.id in self._not_started)

    def heard(self, heartbeat: Heartbeat) -> None:
        """A heartbeat comes, which is not applied yet."""
        if self._is_of_the_past(heartbeat.worker_id, heartbeat.commit_count):
            self._asked.setdefault(heartbeat.worker_id, _Asked())

    def answer(self, heartbeat: Heartbeat, saved: bool, more: bool) -> tuple[bool, int]:
        """Whether to ask the worker for all its ended jobs, and the count to tell it, once its heartbeat was applied.

        ``saved``: all that follows from it is durable. ``more``: the worker has yet to describe jobs.
        """
        worker_id = heartbeat.worker_id
        asked = self._asked.get(worker_id)
        if asked is None:
            if not more:
                self._heard_of(worker_id)
            return False, self._count_for(worker_id)
        if heartbeat.leaving:
            return False, 0
        if asked.told is None or heartbeat.commit_count < asked.told:
            asked.told = min(heartbeat.commit_count, COMMIT_COUNT_MAX) + 1
            return True, asked.told
        if not saved or self._tells_more(asked, heartbeat) or more:
            return False, 0
        del self._asked[worker_id]
        self._heard_of(worker_id)
        return False, self._count_for(worker_id)

    def may_acknowledge(self, worker_id: str) -> bool:
        """Whether ends may be acknowledged to that worker: not before it is told the count of commits with them.

        Else a store that is set back once more would not be noticed by what it says.
        """
        return worker_id in self._told and worker_id not in self._asked

    def verify(self) -> None:
        """Have the store find out whether it was set back while nothing is saved."""
        if not self._ledger.store_problem:
            self._store.verify().addErrback(lambda reason: reason.trap(StoreFailed))  # the next save tells

    def verified(self, saved: Deferred[None]) -> Deferred[None]:
        """Fires as ``saved`` does, and not before the store has shown that it has what was saved earlier, too.

        ``StoreFailed``. Where there is something to save that costs nothing.
        """
        if self._ledger.store_problem:
            return saved
        both = gatherResults([saved, self._store.verify()], consumeErrors=True)
        return both.addCallbacks(lambda _: None, lambda reason: reason.value.subFailure)

    def forget(self, worker_id: str) -> None:
        """It is no worker any more, or offline. When it is back it says the count that it was told."""
        if worker_id in self._told:
            self._note_gone(worker_id)
        self._doubted.discard(worker_id)
        self._asked.pop(worker_id, None)
        self._heard_of(worker_id)

    # -- how

    def _tells_more(self, asked: _Asked, heartbeat: Heartbeat) -> bool:
        """Whether a worker that has heard reports a job that it had not reported since.

        Beyond a bound no job counts that is not known: it is none that was adopted, or is to be.
        """
        new = False
        reported = [report.status.job_id for report in (*heartbeat.ended, *heartbeat.described)]
        for job_id in (*reported, *heartbeat.refused):
            if job_id in asked.seen:
                continue
            if self._ledger.registry.find_job(job_id) is None:
                if asked.unknown >= UNKNOWN_SEEN_MAX:
                    continue
                asked.unknown += 1
            asked.seen.add(job_id)
            new = True
        return new

    def _note_gone(self, worker_id: str) -> None:
        self._gone[worker_id] = None
        if len(self._gone) > TOLD_GONE_MAX:
            first = next(iter(self._gone))
            del self._gone[first]
            self._told.discard(first)

    def _count_for(self, worker_id: str) -> int:
        if not self._counting:
            return 0
        self._told.add(worker_id)
        return int(self._store.commit_count)

    def _is_of_the_past(self, worker_id: str, count: int) -> bool:
        present, kept = self._store.commit_count, self._set_back_to
        if worker_id in self._told:
            if count > present:
                self._doubt(worker_id, count)
            return False
        if kept is not None and kept < count < timeline_of(present):
            self._count()
        elif count <= self._ledger.loaded_count:
            return False
        elif self._may_begin(worker_id, count):
            self._find(worker_id, count)
        else:
            self._doubt(worker_id, count)
            return False
        if not self._recovering:
            self._recovering = True
            if not self.settled:
                self._wait(self._lease - (self._clock.seconds() - self._since))
        return True

    def _may_begin(self, worker_id: str, count: int) -> bool:
        """Whether a timeline may begin above that count, of which the worker says that it has heard."""
        ahead = (timeline_of(count) - timeline_of(self._store.commit_count)) // TIMELINE_COMMITS
        begins = worker_id not in self._began and len(self._began) < TIMELINES_BEGUN_MAX
        return begins and ahead <= TIMELINES_AHEAD_MAX and next_timeline(count) < COMMIT_COUNT_MAX

    def _doubt(self, worker_id: str, count: int) -> None:
        if worker_id not in self._doubted:
            self._doubted.add(worker_id)
            self._log.warn(
                "worker {worker_id} says that it has heard of commit {count}, and the store is at {present}: that is "
                "made up, or was told by another scheduler, and is not believed",
                worker_id=worker_id,
                count=count,
                present=self._store.commit_count,
            )

    def _find(self, worker_id: str, count: int) -> None:
        """The store was set back."""
        if self._beginning:
            return
        self._log.error(
            "the store was set back: worker {worker_id} has heard of commit {count}, and it was at {loaded} when this "
            "process began; workers are asked for all their jobs",
            worker_id=worker_id,
            count=count,
            loaded=self._ledger.loaded_count,
        )
        self._beginning = True
        loaded = self._ledger.loaded_count
        set_back_to = loaded if self._set_back_to is None else min(loaded, self._set_back_to)
        self._store.count_commits(count, set_back_to).addCallbacks(
            self._begun, self._not_begun, callbackArgs=(worker_id, set_back_to)
        )

    def _begun(self, _: None, worker_id: str, set_back_to: int) -> None:
        self._began.add(worker_id)
        self._set_back_to = set_back_to
        self._beginning = False
        self._counting = True

    def _not_begun(self, reason: Failure) -> None:
        reason.trap(StoreFailed)
        self._beginning = False  # the next heartbeat tries again
        if self.settled:
            self._count()

    def _heard_of(self, worker_id: str) -> None:
        """Of that worker all is known that it can tell."""
        self._silent.discard(worker_id)
        if self._silent or self.settled or not self.running:
            return
        least = SILENT_SHARE * self._lease if self._recovering else 0.0
        left = self._since + least - self._clock.seconds()
        if left > 0:
            self._wait(left)
        else:
            self._settle()

    def _wait(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self._clock.callLater(max(seconds, 0.0), self._time_is_over)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_over(self) -> None:
        self._timer = None
        self._settle()

    def _settle(self) -> None:
        self._stop_timer()
        self.settled = True
        self._count()
        if self._waiting:
            self._clock.callLater(0, self._wake)  # in the next turn: not within what a worker that leaves changes

    def _count(self) -> None:
        if not self._counting and not self._beginning:
            self._counting = True
            self._store.count_commits().addErrback(lambda reason: reason.trap(StoreFailed))  # the next commit counts

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
