"""The presence of every worker: set by liveness through the ledger, read by all parts.

The presence of a worker that deregistered follows from its record.
"""

from __future__ import annotations

from collections.abc import Mapping

from scheduler import units
from scheduler.model import Presence, Worker, WorkerState

#: The presence of a worker of which nothing is known yet.
_UNSEEN = Presence()


class Presences:
    """Presences by worker id; the registry has one."""

    def __init__(self, workers: Mapping[str, Worker]) -> None:
        """``workers`` by id, as they are now."""
        self._workers = workers
        # of workers that have registered
        self._presences: dict[str, Presence] = {}
        #: The number of workers that are online.
        self.online = 0

    def of(self, worker_id: str) -> Presence:
        """The presence of a worker; one that is not known is unreachable."""
        presence = self._presences.get(worker_id)
        if presence is not None:
            return presence
        worker = self._workers.get(worker_id)
        if worker is None or worker.deregistered_at is None:
            return _UNSEEN
        why = f"it deregistered at {units.format_moment(worker.deregistered_at)}"
        return Presence(WorkerState.OFFLINE, why, last_seen=worker.deregistered_at)

    def put(self, worker_id: str, presence: Presence) -> None:
        """Set the presence of a worker that is registered."""
        self.remove(worker_id)
        self._presences[worker_id] = presence
        self.online += presence.is_online

    def remove(self, worker_id: str) -> None:
        """Forget the presence of a worker that deregistered, or is gone; does nothing if there is none."""
        before = self._presences.pop(worker_id, None)
        self.online -= before is not None and before.is_online
