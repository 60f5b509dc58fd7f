"""The counts of commits that workers report, and which of them prove that the store was set back.

A worker may report any count, so a count is not believed without limits. The store's count only rises while the
scheduler runs: a worker that this process has told a count is not believed if it reports one above the store's. The
count of another worker may begin a new timeline (``scheduler.commits``), but only a few times, and only a few timelines
ahead. So invented counts never use up the range of counts, and a store that is set back later is still noticed.

A count is *of the past* if it shows that the store lost commits (``scheduler.cluster.set_back``).
"""

from __future__ import annotations

from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.cluster.ledger import Ledger
from scheduler.commits import COMMIT_COUNT_MAX, TIMELINE_COMMITS, next_timeline, timeline_of
from scheduler.errors import StoreFailed
from scheduler.interfaces import IStore

#: Timelines by which a count that is believed may be ahead of the store's: each set-back of the store adds one.
TIMELINES_AHEAD_MAX = 64

#: Timelines that one process begins at most: one for each worker that knows more than all those heard before it.
TIMELINES_BEGUN_MAX = 8

#: Workers that are gone, and are remembered as told a count by this process.
TOLD_GONE_MAX = 10_000


class CommitCounts:
    """Tells workers the store's count, which stands still until ``begin``, and judges the counts that they report."""

    _log = Logger()

    def __init__(self, ledger: Ledger, store: IStore) -> None:
        self._ledger = ledger
        self._store = store
        self._wanted = False
        self._counting = False
        self._beginning = False
        # ids of the workers that this process has told a count, and of them those that are gone, in order
        self._told: set[str] = set()
        self._gone: dict[str, None] = {}
        # ids of those whose counts began timelines in this process, and of those whose counts were not believed
        self._began: set[str] = set()
        self._doubted: set[str] = set()

    @property
    def idle(self) -> bool:
        """Whether every worker that is remembered here is in the registry, or is remembered as gone."""
        kept = {*self._doubted, *self._told} - self._gone.keys()
        return all(map(self._ledger.registry.workers.find, kept))

    def begin(self) -> None:
        """Count commits from now on."""
        self._wanted = True
        self._count()

    def was_told(self, worker_id: str) -> bool:
        return worker_id in self._told

    def tell(self, worker_id: str) -> int:
        """The count to tell that worker, which counts as told from now on; 0: no count is told yet."""
        if not self._counting:
            return 0
        self._told.add(worker_id)
        return int(self._store.commit_count)

    def is_back(self, worker_id: str) -> None:
        """Note that the worker registers: it is not gone any more."""
        self._gone.pop(worker_id, None)

    def forget(self, worker_id: str) -> None:
        """Note that the worker is gone, or offline. When it is back, it reports the count that it was told."""
        self._doubted.discard(worker_id)
        if worker_id in self._told:
            self._gone[worker_id] = None
            if len(self._gone) > TOLD_GONE_MAX:
                first = next(iter(self._gone))
                del self._gone[first]
                self._told.discard(first)

    def is_of_the_past(self, worker_id: str, count: int) -> bool:
        """Whether ``count``, which the worker reports, is of the past. May begin a new timeline."""
        present, kept = self._store.commit_count, self._ledger.set_back_to
        if worker_id in self._told:
            if count > present:
                self._doubt(worker_id, count)
            return False
        if kept is not None and kept < count < timeline_of(present):
            self._count()
        elif count <= self._ledger.loaded_count:
            return False
        elif self._may_begin_timeline(worker_id, count):
            self._begin_timeline(worker_id, count)
        else:
            self._doubt(worker_id, count)
            return False
        return True

    def _may_begin_timeline(self, worker_id: str, count: int) -> bool:
        """Whether a timeline may begin above ``count``, which the worker reports."""
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

    def _begin_timeline(self, worker_id: str, count: int) -> None:
        if self._beginning:
            return
        loaded, before = self._ledger.loaded_count, self._ledger.set_back_to
        self._log.error(
            "the store was set back: worker {worker_id} has heard of commit {count}, and it was at {loaded} when this "
            "process began; workers are asked for all their jobs",
            worker_id=worker_id,
            count=count,
            loaded=loaded,
        )
        self._beginning = True
        set_back_to = loaded if before is None else min(loaded, before)
        self._store.count_commits(count, set_back_to).addCallbacks(
            self._begun, self._not_begun, callbackArgs=(worker_id, set_back_to)
        )

    def _begun(self, _: None, worker_id: str, set_back_to: int) -> None:
        self._began.add(worker_id)
        self._ledger.set_back_to = set_back_to
        self._beginning = False
        self._counting = True

    def _not_begun(self, reason: Failure) -> None:
        reason.trap(StoreFailed)
        self._beginning = False  # the next heartbeat tries again
        if self._wanted:
            self._count()

    def _count(self) -> None:
        if not self._counting and not self._beginning:
            self._counting = True
            self._store.count_commits().addErrback(lambda reason: reason.trap(StoreFailed))  # the next commit counts
