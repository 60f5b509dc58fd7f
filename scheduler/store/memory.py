"""A store that lives as long as the process: for tests, and where nothing is to be kept."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from scheduler.interfaces import IStore, Loaded, Record, Removed
from scheduler.model import IdempotencyKey, Job, Worker


@implementer(IStore)
class MemoryStore(Service):
    """Commits at once; as a service it has nothing to start or stop."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._workers: dict[str, Worker] = {}
        self._keys: dict[str, IdempotencyKey] = {}

    def load(self) -> Deferred[Loaded]:
        jobs = tuple(job.trimmed() for job in self._jobs.values())
        return succeed(Loaded(jobs, tuple(self._workers.values()), tuple(self._keys.values())))

    def save(self, records: Iterable[Record]) -> Deferred[None]:
        for record in records:
            match record:
                case Job():
                    first = self._jobs.get(record.id, record)
                    self._jobs[record.id] = evolve(record, spec=first.spec)
                case Worker():
                    self._workers[record.id] = record
                case IdempotencyKey():
                    self._keys[record.key] = record.trimmed()
                case Removed(kind="job"):
                    self._jobs.pop(record.id, None)
                case Removed(kind="worker"):
                    self._workers.pop(record.id, None)
                case Removed():
                    self._keys.pop(record.id, None)
        return succeed(None)
