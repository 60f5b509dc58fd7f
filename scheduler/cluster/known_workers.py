"""The workers that the registry knows, by id, name and address, and whether they are online."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler import units
from scheduler.cluster.indices import Index
from scheduler.errors import NotFound
from scheduler.model import Presence, Worker, WorkerState

#: The presence of a worker of which nothing is known yet.
_UNSEEN = Presence()


class Presences:
    """The presence of every worker: set by liveness through the ledger, read by all parts.

    The presence of a worker that deregistered follows from its record.
    """

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


class KnownWorkers:
    """The workers of one registry, which reports every change to it."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        #: All workers by id, as they are now.
        self.by_id: Mapping[str, Worker] = self._workers
        self.presences = Presences(self._workers)
        # ids of the core workers; a dict, for its order
        self._core: dict[str, None] = {}
        # ids of workers by name, and by address
        self._named: Index[str] = Index()
        self._at: Index[str] = Index()
        # of workers whose id is not made from their folder id: the id made from it -> the id that they have
        self._of_folder: dict[str, str] = {}

    def all(self) -> list[Worker]:
        """All workers, by name."""
        return sorted(self._workers.values(), key=lambda worker: (worker.name, worker.id))

    def ids(self) -> list[str]:
        """The ids of all workers, in the order in which they came."""
        return list(self._workers)

    def core(self) -> list[str]:
        """Ids of the core workers, in the order in which they came."""
        return list(self._core)

    def find(self, worker_id: str | None) -> Worker | None:
        """The worker with that id; ``None``: there is none."""
        return self._workers.get(worker_id) if worker_id else None

    def find_registered(self, worker_id: str | None) -> Worker | None:
        """The worker with that id; ``None``: there is none, or it has deregistered."""
        worker = self.find(worker_id)
        return None if worker is None or worker.is_offline else worker

    def get(self, name: str) -> Worker:
        """The worker with that id or name: the online one, else the last seen. Raises ``NotFound`` if there is none."""
        if name in self._workers:
            return self._workers[name]
        named = self.named(name)
        if not named:
            raise NotFound("worker", name)
        return max(named, key=self.presences.preference)

    def has(self, name: str) -> bool:
        """Whether there is a worker with that id or name."""
        return name in self._workers or name in self._named

    def named(self, name: str) -> list[Worker]:
        """All workers with that name, by id."""
        return [self._workers[worker_id] for worker_id in sorted(self._named.of(name))]

    def called(self, name: str) -> list[Worker]:
        """All workers with that id or name."""
        found = {worker.id: worker for worker in self.named(name)}
        by_id = self.find(name)
        return list(found.values()) if by_id is None else list((found | {name: by_id}).values())

    def of_folder(self, folder: str) -> Worker | None:
        """The worker that keeps an older id, although its folder id makes the id ``folder``; ``None``: none does."""
        return self._workers.get(self._of_folder.get(folder, ""))

    def at_address(self, address: str) -> list[Worker]:
        """All workers whose last known address this is, by id."""
        return [self._workers[worker_id] for worker_id in sorted(self._at.of(address))]

    def put(self, worker: Worker) -> None:
        """Add a worker, or replace the one with its id."""
        known = self._workers.get(worker.id)
        if known is None or (known.name, known.address) != (worker.name, worker.address):
            self._unlist(known)
            self._named.add(worker.name, worker.id)
            self._at.add(worker.address, worker.id)
        if worker.folder and worker.folder != worker.id:
            self._of_folder[worker.folder] = worker.id
        if worker.is_core:
            self._core.setdefault(worker.id)
        else:
            self._core.pop(worker.id, None)
        self.presences.put_worker(worker)
        self._workers[worker.id] = worker

    def remove(self, worker_id: str) -> None:
        """Remove a worker, which is known."""
        worker = self._workers.pop(worker_id)
        self._unlist(worker)
        self.presences.remove_worker(worker_id)
        self._core.pop(worker_id, None)
        if self._of_folder.get(worker.folder) == worker_id:
            del self._of_folder[worker.folder]

    def _unlist(self, worker: Worker | None) -> None:
        if worker is not None:
            self._named.discard(worker.name, worker.id)
            self._at.discard(worker.address, worker.id)
