"""A limit on the workers that registered and were never used.

Any program that can call the scheduler can register workers, each of which would be listed, and stored, for ever. So
among the workers that registered with this process for the first time, are not online, have no job and are not drained,
the oldest is forgotten when there are too many. This costs a worker nothing: its next heartbeat is answered by
"register again", and its id follows from its folder. Only a core worker sends no heartbeats, and has to be started
again.

Online workers are not counted: many workers may be behind one address.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.cluster.registry import Registry
from scheduler.errors import SchedulerError
from scheduler.model import Worker

#: Unused workers that are kept.
NEWCOMERS_MAX = 1000

#: Workers that are looked at for each newcomer beyond the limit.
_LOOKS_MAX = 20


class Newcomers:
    """The workers that may have to go. ``remove`` forgets a worker."""

    _log = Logger()

    def __init__(self, registry: Registry, remove: Callable[[Worker, str], Deferred[None]]) -> None:
        self._registry = registry
        self._remove = remove
        # ids of the workers that may have to go, the oldest first; a dict, for its order
        self._ids: dict[str, None] = {}

    @property
    def idle(self) -> bool:
        """Whether no state is kept of a worker that the registry does not know."""
        return all(map(self._registry.workers.find, self._ids))

    def forget(self, worker_id: str) -> None:
        """Forget a worker that is gone."""
        self._ids.pop(worker_id, None)

    def add(self, worker_id: str) -> None:
        """Add a worker that has registered for the first time; if there are too many, forget an unused one."""
        self._ids[worker_id] = None
        if len(self._ids) <= NEWCOMERS_MAX:
            return
        for oldest in tuple(islice(self._ids, _LOOKS_MAX)):
            worker = self._registry.workers.find(oldest)
            del self._ids[oldest]
            if worker is None or worker.draining or self._registry.jobs.any_of(oldest):
                return  # it is in use
            if self._registry.presences.of(oldest).is_online:
                self._ids[oldest] = None
                continue
            self._log.info(
                "worker {name} ({worker_id}) is forgotten: {count} have registered since that are silent and never "
                "had a job",
                name=worker.name,
                worker_id=oldest,
                count=NEWCOMERS_MAX,
            )
            self._remove(worker, "forgotten").addErrback(self._failed, oldest)
            return

    def _failed(self, reason: Failure, worker_id: str) -> None:
        """Keep a worker that could not be forgotten: the store failed, or the worker has registered again."""
        reason.trap(SchedulerError)
        self._ids[worker_id] = None
