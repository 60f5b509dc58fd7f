"""The store: group commits that take time, fail, fail though they were committed, or stall."""

from __future__ import annotations

from collections.abc import Container, Iterable
from random import Random

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.errors import StoreFailed
from scheduler.interfaces import IStore, Loaded, Record
from scheduler.model import Job, Ref
from scheduler.store.memory import MemoryStore
from tests.simulation.process import Process
from tests.simulation.trace import Trace

#: Seconds that a commit takes, at least and at most.
COMMIT = (0.0005, 0.004)


class Database:
    """What is durable. It outlives the processes that use it."""

    def __init__(self) -> None:
        #: Those under way, by a token of each; the last one counts: the share of the commits that fail, and the
        #: share of these that are durable all the same, as only the answer was lost.
        self.troubles: dict[object, tuple[float, float]] = {}
        #: No commit comes to an end before this time.
        self.stalls_until = 0.0
        #: Ids of the jobs whose ends are durable.
        self.ended: set[str] = set()
        self._durable = MemoryStore()
        # ids of the jobs whose specs were written: what is read has no others
        self._described: set[str] = set()

    @property
    def trouble(self) -> tuple[float, float]:
        """As it is now."""
        return next(reversed(self.troubles.values())) if self.troubles else (0.0, 0.0)

    def commit(self, batches: Iterable[Iterable[Record]], described: Container[str]) -> None:
        """Apply them, in order; the specs of the jobs ``described`` are not written, as they are there."""
        for batch in batches:
            for record in batch:
                if isinstance(record, Job) and record.id not in described:
                    self._described.add(record.id)
                self._note_end(record)
            self._durable.save(batch)

    def _note_end(self, record: Record) -> None:
        if isinstance(record, Job) and record.state.final:
            self.ended.add(record.id)
        elif isinstance(record, Job) or (isinstance(record, Ref) and record.kind == "job"):
            self.ended.discard(record.id)

    def read(self) -> Loaded:
        """All there is."""
        found: list[Loaded] = []
        self._durable.load().addCallback(found.append)
        jobs = tuple(job for job in found[0].jobs if job.id in self._described)
        keys = tuple(key for key in found[0].keys if key.job_id in self._described or key.removed_at is not None)
        return evolve(found[0], jobs=jobs, keys=keys)

    def restore(self, backup: Loaded) -> None:
        """Be as it was when that was read."""
        self._durable = MemoryStore()
        self._described = {job.id for job in backup.jobs}
        self.ended = {job.id for job in backup.jobs if job.state.final}
        self._durable.save([*backup.workers, *backup.jobs, *backup.keys])


@define(eq=False)
class _Batch:
    """The records of one save."""

    records: list[Record]
    saved: Deferred[None]


@implementer(IStore)
class SimulatedStore:
    """The database as one scheduler process has it: one commit at a time, with all that waits for it."""

    def __init__(self, process: Process, database: Database, random: Random, trace: Trace) -> None:
        self._process = process
        self._database = database
        self._random = random
        self._trace = trace
        self._waiting: list[_Batch] = []
        self._committing: list[_Batch] = []
        # ids of the jobs whose specs it has written, or read
        self._described: set[str] = set()
        process.on_end.append(self._crash)

    def load(self) -> Deferred[Loaded]:
        loaded: Deferred[Loaded] = Deferred()

        def read() -> None:
            found = self._database.read()
            self._described = {job.id for job in found.jobs}
            loaded.callback(found)

        self._process.after(self._seconds(), read)
        return loaded

    def save(self, records: Iterable[Record]) -> Deferred[None]:
        batch = _Batch(list(records), Deferred())
        self._waiting.append(batch)
        if not self._committing:
            self._process.after(0, self._begin)
        return batch.saved

    def close(self) -> Deferred[None]:
        """Fires once all that was to be saved is, or could not be."""
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
        group, self._committing = self._committing, []
        failure: StoreFailed | None = None
        committed = True
        failing, though_committed = self._database.trouble
        if self._random.random() < failing:
            failure = StoreFailed("disk full")
            committed = self._random.random() < though_committed
            self._trace.add("store", f"a commit fails{', though it is durable' if committed else ''}")
        if committed:
            self._database.commit((batch.records for batch in group), self._described)
        for batch in group if failure is None else ():
            self._note(batch.records)
        for batch in group:
            batch.saved.callback(None if failure is None else Failure(failure))
        self._process.after(0, self._begin)

    def _note(self, records: Iterable[Record]) -> None:
        for record in records:
            if isinstance(record, Job):
                self._described.add(record.id)
            elif isinstance(record, Ref) and record.kind == "job":
                self._described.discard(record.id)

    def _crash(self) -> None:
        """Of what was under way a prefix is durable."""
        under_way = [*self._committing, *self._waiting] if self._committing else []
        kept = self._random.randint(0, len(under_way)) if under_way else 0
        self._database.commit((batch.records for batch in under_way[:kept]), self._described)
        if under_way:
            self._trace.add("store", f"of {len(under_way)} saves under way {kept} are durable")
