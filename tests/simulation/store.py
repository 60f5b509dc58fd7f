"""The store: group commits that take time, fail, fail though they were committed, or stall."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from random import Random
from typing import TypeVar

from attrs import define, evolve, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.commits import next_timeline
from scheduler.errors import StoreFailed
from scheduler.interfaces import IStore, Loaded, Record
from scheduler.model import Job, JobSpec, Ref
from scheduler.security.audit import Act, AuditFilter, AuditPage, Entry
from tests.doubles.store import RestorableStore
from tests.simulation.process import Process
from tests.simulation.trace import Trace

T = TypeVar("T")

#: Seconds that a commit takes, at least and at most.
COMMIT = (0.0005, 0.004)


@frozen
class Backup:
    """A copy of a database."""

    records: Loaded
    transactions: int


class Database:
    """The durable data, which outlives the processes that use it."""

    def __init__(self) -> None:
        #: Present troubles, by a token of each; the last one counts. Each is the share of commits that fail, and the
        #: share of these that are durable all the same, because only the answer was lost.
        self.troubles: dict[object, tuple[float, float]] = {}
        #: The time before which no commit ends.
        self.stalls_until = 0.0
        #: Ids of the jobs whose ends are durable.
        self.ended: set[str] = set()
        #: The count of commits, which does not change at first, and the one after which it was set back.
        self.commits = 0
        self.set_back_to: int | None = None
        #: The count of all transactions that write.
        self.transactions = 0
        #: Whether a commit failed, though it was durable.
        self.failed_though_durable = False
        #: The number of restored backups.
        self.restorations = 0
        self._durable = RestorableStore()
        # ids of the jobs whose specs were written; others are not read
        self._described: set[str] = set()

    @property
    def trouble(self) -> tuple[float, float]:
        """The present trouble."""
        return next(reversed(self.troubles.values())) if self.troubles else (0.0, 0.0)

    def commit(
        self, batches: Iterable[Iterable[Record | Act]], described: Container[str], counted: bool = False
    ) -> None:
        """Apply the batches, in order. The specs of the jobs ``described`` are not written, because they are there."""
        batches = list(map(list, batches))
        self.commits += counted and any(batches)
        self.transactions += any(batches)
        for batch in batches:
            for record in batch:
                if isinstance(record, Job) and record.id not in described:
                    self._described.add(record.id)
                self._note_end(record)
            self._durable.save(batch)

    def _note_end(self, record: Record | Act) -> None:
        if isinstance(record, Job) and record.state.final:
            self.ended.add(record.id)
        elif isinstance(record, Job) or (isinstance(record, Ref) and record.kind == "job"):
            self.ended.discard(record.id)

    def read(self) -> Loaded:
        """All records."""
        found: list[Loaded] = []
        self._durable.load().addCallback(found.append)
        jobs = tuple(job for job in found[0].jobs if job.id in self._described)
        return evolve(found[0], jobs=jobs, commit_count=self.commits, set_back_to=self.set_back_to)

    @property
    def audit(self) -> tuple[Entry, ...]:
        """The entries of the audit, in order."""
        return tuple(self._durable.audit.values())

    def backup(self) -> Backup:
        """A copy of the present database."""
        held, whole = self.read(), {job.id: job for job in self._durable.everything().jobs}
        return Backup(evolve(held, jobs=tuple(whole[job.id] for job in held.jobs)), self.transactions)

    def specs(self, job_ids: Collection[str]) -> Mapping[str, JobSpec]:
        """The specs of these jobs."""
        found: list[Mapping[str, JobSpec]] = []
        self._durable.read_specs(self._described.intersection(job_ids)).addCallback(found.append)
        return found[0]

    def page(self, which: AuditFilter, limit: int, before: int | None) -> AuditPage:
        """A page of the audit."""
        found: list[AuditPage] = []
        self._durable.read_audit(which, limit, before).addCallback(found.append)
        return found[0]

    def whole(self, records: Loaded) -> Loaded:
        """These records, with complete specs for jobs that have only a part of theirs."""
        specs = self.specs([job.id for job in records.jobs if job.spec.stored])
        return evolve(records, jobs=tuple(evolve(job, spec=specs.get(job.id, job.spec)) for job in records.jobs))

    def restore(self, backup: Backup) -> None:
        """Restore the state of a backup."""
        self.hold(backup.records)
        self.commits, self.set_back_to = backup.records.commit_count, backup.records.set_back_to
        self.transactions = backup.transactions

    def hold(self, records: Loaded) -> None:
        """Hold exactly these records."""
        self._described = {job.id for job in records.jobs}
        self.ended = {job.id for job in records.jobs if job.state.final}
        self._durable.hold(records)


@define(eq=False)
class _Batch:
    """The records of one save."""

    records: list[Record | Act]
    saved: Deferred[None]
    #: A new timeline: the count to exceed, and the count to which the store was set back.
    timeline: tuple[int, int] | None = None
    #: Whether the count is to be checked, and to be raised by one.
    verify: bool = False
    count: bool = False


@implementer(IStore)
class SimulatedStore:
    """The database of one scheduler process: one commit at a time, with all waiting saves."""

    def __init__(self, process: Process, database: Database, random: Random, trace: Trace) -> None:
        self._process = process
        self._database = database
        self._random = random
        self._trace = trace
        self._waiting: list[_Batch] = []
        self._committing: list[_Batch] = []
        # ids of the jobs whose specs it has written, or read
        self._described: set[str] = set()
        self.commit_count = 0
        # the count of transactions, as last read
        self._transactions = 0
        self._counting = False
        self._everything: Callable[[], Loaded] = Loaded
        self._heard: Callable[[Sequence[Entry]], None] = lambda _: None
        process.on_end.append(self._crash)

    def load(self) -> Deferred[Loaded]:
        loaded: Deferred[Loaded] = Deferred()

        def read() -> None:
            found = self._database.read()
            self._described = {job.id for job in found.jobs}
            self.commit_count = found.commit_count
            self._transactions = self._database.transactions
            loaded.callback(found)

        self._process.after(self._seconds(), read)
        return loaded

    def save(self, records: Iterable[Record | Act]) -> Deferred[None]:
        return self._enter(_Batch(list(records), Deferred()))

    def on_entries(self, heard: Callable[[Sequence[Entry]], None]) -> None:
        self._heard = heard

    def read_audit(self, which: AuditFilter, limit: int, before: int | None = None) -> Deferred[AuditPage]:
        return self._read(lambda: self._database.page(which, limit, before))

    def count_commits(self, above: int = 0, set_back_to: int | None = None) -> Deferred[None]:
        if set_back_to is not None:
            return self._enter(_Batch([], Deferred(), (above, set_back_to)))
        self._counting = True
        return self._enter(_Batch([], Deferred(), count=True))

    def restore_from(self, everything: Callable[[], Loaded]) -> None:
        self._everything = everything

    def verify(self) -> Deferred[None]:
        return self._enter(_Batch([], Deferred(), verify=True))

    def read_specs(self, job_ids: Collection[str]) -> Deferred[Mapping[str, JobSpec]]:
        return self._read(lambda: self._database.specs(job_ids))

    def _read(self, look: Callable[[], T]) -> Deferred[T]:
        wanted: Deferred[T] = Deferred()

        def read() -> None:
            if self._random.random() < self._database.trouble[0]:
                wanted.errback(Failure(StoreFailed("disk full")))
            else:
                wanted.callback(look())

        at = max(self._process.loop.now + self._seconds(), self._database.stalls_until)
        self._process.after(at - self._process.loop.now, read)
        return wanted

    def _enter(self, batch: _Batch) -> Deferred[None]:
        self._waiting.append(batch)
        if not self._committing:
            self._process.after(0, self._begin)
        return batch.saved

    def close(self) -> Deferred[None]:
        """Fires once all saves have succeeded or failed."""
        return self.save([]).addErrback(lambda reason: None if reason.check(StoreFailed) else reason)

    def _seconds(self) -> float:
        return self._random.uniform(*COMMIT)

    def _begin(self) -> None:
        if self._committing or not self._waiting:
            return
        self._committing, self._waiting = self._waiting, []
        self._process.after(self._seconds(), self._commit)

    def _commit(self) -> None:
        if self._database.stalls_until > self._process.loop.now:
            self._process.loop.at(self._database.stalls_until, self._process.run, self._commit)
            return
        if self._is_set_back() and any(map(_looks, self._committing)):
            self._restore()
            return
        group, self._committing = self._committing, []
        failure: StoreFailed | None = None
        committed = True
        failing, though_committed = self._database.trouble
        if self._random.random() < failing:
            failure = StoreFailed("disk full")
            committed = self._random.random() < though_committed
            self._database.failed_though_durable |= committed
            self._trace.add("store", f"a commit fails{', though it is durable' if committed else ''}")
        if committed:
            self._begin_timelines(group)
            counts = any(batch.count for batch in group)
            self._database.commits += counts
            self._database.transactions += counts
            before = len(self._database.audit)
            self._database.commit((batch.records for batch in group), self._described, self._counting)
            if new := self._database.audit[before:]:
                self._heard(new)
        for batch in group if failure is None else ():
            self._note(batch.records)
            self.commit_count = max(self.commit_count, self._database.commits)
            self._transactions = max(self._transactions, self._database.transactions)
        for batch in group:
            batch.saved.callback(None if failure is None else Failure(failure))
        self._process.after(0, self._begin)

    def _is_set_back(self) -> bool:
        """Whether the database has fewer commits or transactions than this process has seen."""
        return self._database.commits < self.commit_count or self._database.transactions < self._transactions

    def _begin_timelines(self, group: list[_Batch]) -> None:
        for above, set_back_to in [batch.timeline for batch in group if batch.timeline is not None]:
            self._database.commits = next_timeline(max(above, self._database.commits))
            self._database.set_back_to = set_back_to
            self._counting = True

    def _restore(self) -> None:
        """The database was set back: save the records in memory again, first a part, then all, then the count."""
        held = self._database.whole(self._everything())
        self._trace.add("store", "was set back, and is restored from memory")

        def part() -> None:
            self._database.hold(evolve(held, jobs=held.jobs[: len(held.jobs) // 2], removed=()))
            self._process.after(self._seconds(), whole)

        def whole() -> None:
            self._database.hold(held)
            self._described = {job.id for job in held.jobs}
            self.commit_count += self._counting
            self._transactions += 1
            self._database.commits, self._database.transactions = self.commit_count, self._transactions
            self._process.after(self._seconds(), self._commit)

        self._process.after(self._seconds(), part)

    def _note(self, records: Iterable[Record | Act]) -> None:
        for record in records:
            if isinstance(record, Job):
                self._described.add(record.id)
            elif isinstance(record, Ref) and record.kind == "job":
                self._described.discard(record.id)

    def _crash(self) -> None:
        """A prefix of the saves in progress is durable."""
        under_way = [*self._committing, *self._waiting] if self._committing else []
        kept = self._random.randint(0, len(under_way)) if under_way else 0
        self._begin_timelines(under_way[:kept])
        self._database.commit((batch.records for batch in under_way[:kept]), self._described, self._counting)
        if under_way:
            self._trace.add("store", f"of {len(under_way)} saves under way {kept} are durable")


def _looks(batch: _Batch) -> bool:
    """Whether the count is checked for this batch."""
    return bool(batch.records) or batch.verify or batch.count
