"""The double of ``IStore``: it commits at once, or when and as the test says."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from scheduler.errors import StoreFailed
from scheduler.interfaces import IStore, Record
from scheduler.store.memory import MemoryStore


@implementer(IStore)
class ScriptedStore(MemoryStore):
    """While ``held``, saves wait for ``commit`` or ``fail``, oldest first. While ``problem`` is set, all fail.

    ``saves`` are those that wait, with their records.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held = False
        self.problem = ""
        self.saves: list[tuple[list[Record], Deferred[None]]] = []

    def save(self, records: Iterable[Record]) -> Deferred[None]:
        if self.problem:
            return fail(StoreFailed(self.problem))
        if not self.held:
            return super().save(records)
        saved: Deferred[None] = Deferred()
        self.saves.append((list(records), saved))
        return saved

    def commit(self) -> None:
        """The oldest save that waits succeeds."""
        records, saved = self.saves.pop(0)
        super().save(records)
        saved.callback(None)

    def fail(self) -> None:
        """The oldest save that waits fails, and nothing of it is kept."""
        self.saves.pop(0)[1].errback(StoreFailed("disk full"))

    def forget(self) -> None:
        """Drop all saves that wait: they are neither kept nor answered, as when the process is killed."""
        self.saves.clear()
