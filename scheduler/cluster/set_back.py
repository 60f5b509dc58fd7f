"""Recovery from a store that was set back: workers report again what it lost.

Workers are told the count of the store's commits, and send back the highest count that they were told. A count is *of
the past* if it is higher than the store's own, and comes from a worker that this process has told none. It shows that
the store lost commits: a backup was restored, or a standby that was behind took over while the scheduler was down.

When a scheduler starts, it does not know yet whether this happened. So it waits until it is *settled*
(``scheduler.cluster.settling``): until every loaded worker has reported a count that the store has, and has described
all its jobs, or ``SILENCE_MAX_SECONDS`` have passed. Until then the count stands still, no worker is told a count, no
queued job is dispatched, no start is sent again, no next attempt begins, and a request with an unknown key waits: the
store may lack jobs that run, or ran.

If the store was set back, the scheduler first begins a new timeline (``scheduler.cluster.commit_counts``), so that a
restart of the scheduler or of a worker does not hide it. Each worker with a count of the past is asked to report all
ended jobs. With the question it is told a count one higher than its own, which is still of the past: when it reports
that count, it has received the question. Once it has nothing more to report, it is told the real count. If the worker
or the scheduler restarts before that, the worker is asked again. The scheduler is settled when all loaded workers are
done, but not before ``SILENT_SHARE`` of a lease has passed, in which workers call that registered after the backup; and
after a lease in any case.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from attrs import Factory, define
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from scheduler.cluster.commit_counts import CommitCounts
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.settling import Settling
from scheduler.commits import COMMIT_COUNT_MAX
from scheduler.deferreds import all_of
from scheduler.errors import StoreFailed
from scheduler.interfaces import IStore
from scheduler.messages import Heartbeat
from scheduler.model import Job, JobState
from scheduler.views import JobFilter

#: Ids of unknown jobs that are remembered of one worker which is asked for all its jobs.
UNKNOWN_SEEN_MAX = 10_000

_NOT_STARTED = JobFilter(states=frozenset({JobState.QUEUED, JobState.STARTING, JobState.UNKNOWN}))


@define
class _Asked:
    """A worker that has to report all its ended jobs."""

    #: The count that it was told with the question; ``None``: it was not asked yet.
    told: int | None = None
    #: Ids of the jobs that it has reported since it received the question.
    seen: set[str] = Factory(set)
    #: The number of unknown jobs among these.
    unknown: int = 0


class SetBack(Service):
    """Finds out whether the store was set back; it starts when the ledger is loaded."""

    def __init__(self, clock: IReactorTime, ledger: Ledger, store: IStore, lease: float) -> None:
        """``store`` is that of the ledger; ``lease`` in seconds."""
        self._ledger = ledger
        self._store = store
        self._counts = CommitCounts(ledger, store)
        self.settling = Settling(clock, lease, self._counts.begin)
        # ids of the jobs that were loaded as not started, or not known to be
        self._not_started: frozenset[str] = frozenset()
        self._asked: dict[str, _Asked] = {}

    @property
    def idle(self) -> bool:
        """Whether no request waits, no worker is being asked, and nothing needless is kept of workers that are gone."""
        return self.settling.idle and not self._asked and self._counts.idle

    @property
    def settled(self) -> bool:
        """Whether the scheduler is settled: it is known, as far as it can be, what the store lacks."""
        return self.settling.over

    def startService(self) -> None:
        super().startService()
        registry = self._ledger.registry
        jobs = registry.jobs.listing.matching(_NOT_STARTED)
        self._not_started = frozenset(job.id for job in jobs if job.started_at is None)
        workers = registry.workers.all()
        self.settling.begin(each.id for each in workers if each.sends_heartbeats and each.deregistered_at is None)

    def stopService(self) -> None:
        super().stopService()
        self.settling.stop()

    def registering(self, count: int) -> AbstractContextManager[None]:
        """The context for a worker's registration; if it reports more than the store had, the settling waits for it."""
        return self.settling.registering() if count > self._ledger.loaded_count else nullcontext()

    def registered(self, worker_id: str, count: int, new_process: bool) -> int:
        """Note that a worker registers and reports ``count``; returns the count to tell it, 0: none.

        ``new_process``: it is not the process that was asked to report its jobs, if any was.
        """
        self._counts.is_back(worker_id)
        if self._is_of_the_past(worker_id, count):
            if new_process or worker_id not in self._asked:
                self._asked[worker_id] = _Asked()
            return 0
        self._asked.pop(worker_id, None)
        return self._counts.tell(worker_id)

    def may_run_on(self, worker_id: str, job: Job) -> bool:
        """Whether that worker may run that job, or have run it, though the store has it as not started.

        The job was loaded so, or is a next attempt, whose id follows from that of the attempt before; and it is not
        known yet what the store lacks of this worker's jobs.
        """
        if self.settled and not self.settling.is_silent(worker_id) and worker_id not in self._asked:
            return False
        return job.retry_of is not None or job.id in self._not_started

    def may_have_begun(self, job: Job) -> bool:
        """Whether any worker may still report that it runs that job, or ran it: see ``may_run_on``."""
        return not self.settled and (job.retry_of is not None or job.id in self._not_started)

    def heard(self, heartbeat: Heartbeat) -> None:
        """Note the count in a heartbeat, before the heartbeat is applied."""
        if self._is_of_the_past(heartbeat.worker_id, heartbeat.commit_count):
            self._asked.setdefault(heartbeat.worker_id, _Asked())

    def answer(self, heartbeat: Heartbeat, saved: bool, more: bool) -> tuple[bool, int]:
        """Whether to ask the worker for all its ended jobs, and the count to tell it, once its heartbeat was applied.

        ``saved``: all that follows from the heartbeat is durable. ``more``: the worker has yet to describe jobs.
        """
        worker_id = heartbeat.worker_id
        asked = self._asked.get(worker_id)
        if asked is None:
            if not more:
                self.settling.heard_all_of(worker_id)
            return False, self._counts.tell(worker_id)
        if heartbeat.leaving:
            return False, 0
        if asked.told is None or heartbeat.commit_count < asked.told:
            asked.told = min(heartbeat.commit_count, COMMIT_COUNT_MAX) + 1
            return True, asked.told
        if not saved or self._tells_more(asked, heartbeat) or more:
            return False, 0
        del self._asked[worker_id]
        self.settling.heard_all_of(worker_id)
        return False, self._counts.tell(worker_id)

    def may_acknowledge(self, worker_id: str) -> bool:
        """Whether ends may be acknowledged to that worker: only once this process has told it the count of commits.

        Otherwise its counts would not show it if the store is set back once more.
        """
        return self._counts.was_told(worker_id) and worker_id not in self._asked

    def verify(self) -> None:
        """Have the store check that it was not set back; called at intervals, for when nothing is saved."""
        if not self._ledger.store_problem:
            self._store.verify().addErrback(lambda reason: reason.trap(StoreFailed))  # the next save tells

    def verified(self, saved: Deferred[None]) -> Deferred[None]:
        """Fires when ``saved`` has fired, and the store has shown that it still has what was saved earlier.

        Fails with ``StoreFailed`` if either fails. The check costs nothing if there is something to save.
        """
        if self._ledger.store_problem:
            return saved
        return all_of([saved, self._store.verify()])

    def forget(self, worker_id: str) -> None:
        """Forget a worker that is gone, or offline."""
        self._counts.forget(worker_id)
        self._asked.pop(worker_id, None)
        self.settling.heard_all_of(worker_id)

    def _is_of_the_past(self, worker_id: str, count: int) -> bool:
        if not self._counts.is_of_the_past(worker_id, count):
            return False
        self.settling.set_back()
        return True

    def _tells_more(self, asked: _Asked, heartbeat: Heartbeat) -> bool:
        """Whether a worker that has received the question reports a job that it had not reported since.

        Beyond ``UNKNOWN_SEEN_MAX``, unknown jobs do not count: they are not going to be adopted.
        """
        new = False
        reported = [report.status.job_id for report in (*heartbeat.ended, *heartbeat.described)]
        for job_id in (*reported, *heartbeat.refused):
            if job_id in asked.seen:
                continue
            if self._ledger.registry.jobs.find(job_id) is None:
                if asked.unknown >= UNKNOWN_SEEN_MAX:
                    continue
                asked.unknown += 1
            asked.seen.add(job_id)
            new = True
        return new
