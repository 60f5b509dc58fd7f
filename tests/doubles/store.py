"""The double of ``IStore``: it commits at once, or when and as the test says."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from scheduler.errors import StoreFailed
from scheduler.interfaces import IStore, Loaded, Record
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
        # what the count is in a database that was set back; ``None``: it was not
        self._commits_there: int | None = None
        self._everything: Callable[[], Loaded] = Loaded

    def save(self, records: Iterable[Record]) -> Deferred[None]:
        if self.problem:
            return fail(StoreFailed(self.problem))
        if not self.held:
            self.verify()
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

    def holding(self) -> Loaded:
        """What it holds now."""
        return self._loaded()

    def restore(self, backup: Loaded) -> None:
        """It is set back to that, which was loaded before, maybe while it is in use."""
        self._hold(backup)
        self._commits_there = backup.commit_count

    def load(self) -> Deferred[Loaded]:
        if self._commits_there is not None:
            self.commit_count = self._commits_there
        self._commits_there = None
        return super().load()

    def restore_from(self, everything: Callable[[], Loaded]) -> None:
        self._everything = everything

    def verify(self) -> Deferred[None]:
        """While it is in use and was set back, hold what is in memory."""
        if self._commits_there is not None and self._counting:
            self._hold(self._everything())
            self._commits_there = None
            self.commit_count += 1
        return succeed(None)

    def _hold(self, records: Loaded) -> None:
        counting, self._counting = self._counting, False
        for kept in self._kept.values():
            kept.clear()
        MemoryStore.save(self, [*records.jobs, *records.workers, *records.keys])
        self._counting = counting
