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
        # of workers that are registered
        self._presences: dict[str, Presence] = {}
        # ids of the workers that deregistered and stay listed; a dict, for its order
        self._offline: dict[str, None] = {}
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

    def preference(self, worker: Worker) -> tuple[bool, float, str]:
        """The sort key that finds, among workers with one name, the one that is online, or was seen last."""
        presence = self.of(worker.id)
        return presence.is_online, presence.last_seen or 0.0, worker.id

    def offline_workers(self) -> list[Worker]:
        """The workers that deregistered and stay listed, in the order in which that became known."""
        return [self._workers[worker_id] for worker_id in self._offline]

    def see(self, worker_id: str, presence: Presence) -> Presence | None:
        """Set the presence of a registered worker. Returns the one before, if that decides otherwise about jobs."""
        before = self.of(worker_id)
        self._presences[worker_id] = presence
        self.online += presence.is_online - before.is_online
        return before if (before.state, before.refusing) != (presence.state, presence.refusing) else None

    def put_worker(self, worker: Worker) -> None:
        """The record of a worker is new, or another than before."""
        if worker.is_offline:
            self._forget(worker.id)
            self._offline.setdefault(worker.id)
        else:
            self._offline.pop(worker.id, None)

    def remove_worker(self, worker_id: str) -> None:
        """The worker is gone."""
        self._forget(worker_id)
        self._offline.pop(worker_id, None)

    def _forget(self, worker_id: str) -> None:
        presence = self._presences.pop(worker_id, None)
        self.online -= presence is not None and presence.is_online
