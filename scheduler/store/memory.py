"""A store that lives as long as the process: for tests, and until a durable one comes."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from scheduler.interfaces import IStore, Loaded, Record, Removed
from scheduler.model import IdempotencyKey, Job, Worker


@implementer(IStore)
class MemoryStore:
    """Commits at once."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._workers: dict[str, Worker] = {}
        self._keys: dict[str, IdempotencyKey] = {}

    def load(self) -> Deferred[Loaded]:
        return succeed(Loaded(tuple(self._jobs.values()), tuple(self._workers.values()), tuple(self._keys.values())))

    def save(self, records: Iterable[Record]) -> Deferred[None]:
        for record in records:
            match record:
                case Job():
                    self._jobs[record.id] = record
                case Worker():
                    self._workers[record.id] = record
                case IdempotencyKey():
                    self._keys[record.key] = record
                case Removed(kind="job"):
                    self._jobs.pop(record.id, None)
                case Removed(kind="worker"):
                    self._workers.pop(record.id, None)
                case Removed():
                    self._keys.pop(record.id, None)
        return succeed(None)
