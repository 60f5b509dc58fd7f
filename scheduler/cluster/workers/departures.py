"""Removal of workers that go for good: their unfinished jobs are given up, then the workers are forgotten.

A removal takes a while: starts under way are answered first, and the ends of the jobs are saved. A worker may register
meanwhile. Then it stays, and so do its jobs, unless they are being given up already. A heartbeat meanwhile is answered
by "register again".
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from scheduler.cluster import lifecycle
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.workers.reconcile import Reconciler
from scheduler.deferreds import Shared
from scheduler.errors import Conflict
from scheduler.model import Worker


class Departures:
    """``cut`` ends the calls to a worker that are under way; ``forget`` removes it from the registry."""

    def __init__(
        self,
        ledger: Ledger,
        reconciler: Reconciler,
        cut: Callable[[Worker], None],
        forget: Callable[[Worker], Deferred[None]],
    ) -> None:
        self._ledger = ledger
        self._reconciler = reconciler
        self._cut = cut
        self._forget = forget
        # ids of the workers that go, and have not registered since their removal began
        self._going: set[str] = set()
        self._removals = Shared()

    def __contains__(self, worker_id: str) -> bool:
        return worker_id in self._going

    @property
    def idle(self) -> bool:
        """Whether no worker is being removed."""
        return self._removals.idle

    def stay(self, worker_id: str) -> None:
        """Give up the removal of a worker that has registered."""
        self._going.discard(worker_id)

    def remove(self, worker: Worker, why: str) -> Deferred[None]:
        """Remove a worker that will not come back under this id; its unfinished jobs are ``lost``, with ``why``.

        Its calls are cut first: jobs whose starts never left are queued again, and not lost. Raises ``Conflict`` if the
        worker has registered meanwhile.
        """
        return self._removals.join(worker.id, lambda: Deferred.fromCoroutine(self._remove(worker, why)))

    async def _remove(self, worker: Worker, why: str) -> None:
        self._going.add(worker.id)
        try:
            self._cut(worker)
            await self._reconciler.starts_over(worker.id)
            self._check(worker)
            now = self._ledger.now()
            unfinished = self._ledger.registry.unfinished(worker.id)
            await self._ledger.decide(*(lifecycle.lost(job, why, now) for job in unfinished))
            self._check(worker)
            if self._ledger.registry.find_worker(worker.id) is not None:  # unless it deregistered meanwhile
                await self._forget(worker)
        finally:
            self._going.discard(worker.id)

    def _check(self, worker: Worker) -> None:
        if worker.id not in self._going:
            raise Conflict(f"worker {worker.name!r} has registered again meanwhile")
