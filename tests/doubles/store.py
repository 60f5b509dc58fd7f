"""Doubles of ``IStore``: one that can be set back, and one that commits at once, or when and as the test says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from scheduler.errors import StoreFailed
from scheduler.interfaces import IStore, Loaded, Record
from scheduler.model import Job, JobSpec
from scheduler.security.audit import Act, AuditFilter, AuditPage
from scheduler.store.memory import MemoryStore
from scheduler.store.rows import without_args


class RestorableStore(MemoryStore):
    """A store that can be made to hold the records in memory, which have only a part of some specs."""

    def __init__(self) -> None:
        super().__init__()
        # ids of jobs whose specs are partly lost
        self._lost: set[str] = set()

    def everything(self) -> Loaded:
        """All records, with complete specs."""
        jobs, workers, removed, tokens = (tuple(self.kept[kind].values()) for kind in self.kept)
        return Loaded(jobs, workers, removed, self.commit_count, self.set_back_to, tokens=tokens)

    def hold(self, records: Loaded) -> None:
        """Hold exactly these records. Their existing specs stay."""
        counting, self.counting = self.counting, False
        specs = {job.id: job.spec for job in self.kept["job"].values() if job.id not in self._lost}
        for kept in self.kept.values():
            kept.clear()
        self._lost = {job.id for job in records.jobs if job.spec.stored and job.id not in specs}
        jobs = [evolve(job, spec=specs.get(job.id, job.spec)) if job.spec.stored else job for job in records.jobs]
        RestorableStore.save(self, [*jobs, *records.workers, *records.removed, *records.tokens])
        self.counting = counting

    def save(self, records: Iterable[Record | Act]) -> Deferred[None]:
        return super().save(
            without_args(record) if isinstance(record, Job) and record.id in self._lost else record
            for record in records
        )


@implementer(IStore)
class ScriptedStore(RestorableStore):
    """While ``held``, saves wait for ``commit`` or ``fail``, oldest first. While ``problem`` is set, all fail.

    ``saves`` are the waiting saves, with their records.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held = False
        self.problem = ""
        self.saves: list[tuple[list[Record | Act], Deferred[None]]] = []
        # the count in the database if it was set back; ``None``: it was not
        self._commits_there: int | None = None
        self._everything: Callable[[], Loaded] = Loaded

    def save(self, records: Iterable[Record | Act]) -> Deferred[None]:
        if self.problem:
            return fail(StoreFailed(self.problem))
        if not self.held:
            self.verify()
            return super().save(records)
        saved: Deferred[None] = Deferred()
        self.saves.append((list(records), saved))
        return saved

    def read_specs(self, job_ids: Collection[str]) -> Deferred[Mapping[str, JobSpec]]:
        return fail(StoreFailed(self.problem)) if self.problem else super().read_specs(job_ids)

    def read_audit(self, which: AuditFilter, limit: int, before: int | None = None) -> Deferred[AuditPage]:
        return fail(StoreFailed(self.problem)) if self.problem else super().read_audit(which, limit, before)

    def commit(self) -> None:
        """Let the oldest waiting save succeed."""
        records, saved = self.saves.pop(0)
        super().save(records)
        saved.callback(None)

    def commit_all(self) -> None:
        """Let the waiting saves succeed, and those that come of it."""
        while self.saves:
            self.commit()

    def fail(self) -> None:
        """Let the oldest waiting save fail, without a trace."""
        self.saves.pop(0)[1].errback(StoreFailed("disk full"))

    def fail_all(self) -> None:
        """Let the waiting saves fail, and those that come of it."""
        while self.saves:
            self.fail()

    def forget(self) -> None:
        """Drop all waiting saves, without an answer, as when the process is killed."""
        self.saves.clear()

    def holding(self) -> Loaded:
        """The present records."""
        return self.loaded()

    def restore(self, backup: Loaded) -> None:
        """Set the store back to an earlier ``load``, perhaps during use."""
        self.hold(backup)
        self._commits_there = backup.commit_count

    def load(self) -> Deferred[Loaded]:
        if self._commits_there is not None:
            self.commit_count = self._commits_there
        self._commits_there = None
        return super().load()

    def restore_from(self, everything: Callable[[], Loaded]) -> None:
        self._everything = everything

    def verify(self) -> Deferred[None]:
        """If it was set back during use, hold the records in memory."""
        if self._commits_there is not None and self.counting:
            self.hold(self._everything())
            self._commits_there = None
            self.commit_count += 1
        return succeed(None)
