"""The durable store: a database, written by one thread, with many saves in one transaction.

Theory of operation. A commit waits for the disk, so the number of commits limits how much can be saved, not the number
of records. While one transaction runs, all saves that arrive wait, and go together into the next one (group commit).
When nothing else is saved, a save takes as long as one commit. Under load each commit serves more saves. They are
written in the order of the calls, and each is answered once its transaction is durable.

Only whole records are written, by their id, so writing one twice is harmless. A transaction whose connection broke is
tried once more on a new connection; then all of its saves fail. A transaction that has not ended by its deadline fails,
too. Its thread is interrupted, and until it returns, new saves fail at once instead of waiting. After a failure the
next transaction always writes something, which shows whether writing works again.

Each transaction counts itself in the database. If this count is lower than it was, the database was set back, for
example to a standby that was behind. It is then made to hold everything that is in memory, in as many transactions as
that takes. The last of them corrects the count. If the process is killed meanwhile, the next start still finds a count
that is too low. Workers are told another count, of commits, because it does not change until ``count_commits``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.commits import next_timeline
from scheduler.deferreds import shielded
from scheduler.errors import ShuttingDown, StoreFailed
from scheduler.interfaces import IStore, Loaded, Record
from scheduler.model import JobSpec, Ref
from scheduler.security.audit import Act, AuditFilter, AuditPage, Entry
from scheduler.store.databases import Database
from scheduler.store.memory import MemoryStore
from scheduler.store.writer import SetBack, Writer
from scheduler.threads import Pool
from scheduler.turns import Turns

T = TypeVar("T")

#: Seconds after which a transaction has failed.
TRANSACTION_DEADLINE_SECONDS = 10.0

#: Seconds after which the load has failed.
LOAD_DEADLINE_SECONDS = 120.0

#: Saves that may wait for the next transaction.
MAX_WAITING_SAVES = 10_000


#: Records written in one transaction to a database that was set back.
RESTORED_PER_TRANSACTION = 1000


@frozen
class _Save:
    records: Sequence[Record | Act] = ()
    #: Count a transaction even if there is nothing to write.
    count: bool = False
    #: Check the count even if there is nothing to write.
    verify: bool = False
    #: Begin a new timeline: the count to exceed, and the count to which the store was set back.
    timeline: tuple[int, int] | None = None
    saved: Deferred[None] = field(factory=Deferred)


@implementer(IStore)
@define(eq=False, slots=False)
class SqlStore(Service):
    """The store in one database, which is released when this service has stopped."""

    _log = Logger()

    _reactor: Any
    _database: Database
    #: Seconds for a transaction.
    _deadline: float = TRANSACTION_DEADLINE_SECONDS
    #: Saves that may wait; further ones fail.
    _most_waiting: int = MAX_WAITING_SAVES

    def __attrs_post_init__(self) -> None:
        self._pool = Pool(self._reactor, "store", 1)
        self._writer = Writer(self._database)
        self._waiting: list[_Save] = []
        self._writing: Deferred[None] | None = None
        self._failing = False
        self._slow = f"the database did not answer within {self._deadline:g} s"
        # why nothing can be saved until the thread returns; ``""``: saves are possible
        self._stuck = ""
        # one read at a time, so that reads delay no save for long
        self._reads = Turns(1)
        self.commit_count = 0
        self._counting = False
        self._set_back_to: int | None = None
        self._everything: Callable[[], Loaded] = Loaded
        self._heard: Callable[[Sequence[Entry]], None] = lambda _: None

    def startService(self) -> None:
        super().startService()
        self._pool.startService()

    def stopService(self) -> Deferred[None]:
        """Stop the store. Fires when every save has succeeded or failed and the database is released."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        at_rest: Deferred[None] = Deferred()
        if self._writing is not None:
            self._writing.addCallback(at_rest.callback)
            await at_rest
        await self._pool.run(self._writer.close_thd)
        await self._pool.stopService()
        self._database.release()

    def load(self) -> Deferred[Loaded]:
        expiry = self._reactor.callLater(LOAD_DEADLINE_SECONDS, self._database.interrupt)

        def note(loaded: Loaded) -> Loaded:
            self.commit_count, self._set_back_to = loaded.commit_count, loaded.set_back_to
            return loaded

        loading: Deferred[Loaded] = self._pool.run(self._writer.load_thd).addBoth(_calm, expiry)
        return loading.addCallback(note)

    def count_commits(self, above: int = 0, set_back_to: int | None = None) -> Deferred[None]:
        if set_back_to is not None:
            return self._enter(_Save(timeline=(above, set_back_to)))
        self._counting = True
        return self._enter(_Save(count=True))

    def restore_from(self, everything: Callable[[], Loaded]) -> None:
        self._everything = everything

    def verify(self) -> Deferred[None]:
        return self._enter(_Save(verify=True))

    def on_entries(self, heard: Callable[[Sequence[Entry]], None]) -> None:
        self._heard = heard

    def save(self, records: Iterable[Record | Act]) -> Deferred[None]:
        return self._enter(_Save(tuple(records)))

    def read_specs(self, job_ids: Collection[str]) -> Deferred[Mapping[str, JobSpec]]:
        return self._read(self._writer.read_specs_thd, tuple(job_ids))

    def read_audit(self, which: AuditFilter, limit: int, before: int | None = None) -> Deferred[AuditPage]:
        return self._read(self._writer.read_audit_thd, which, limit, before)

    def _read(self, read_thd: Callable[..., T], *facts: Any) -> Deferred[T]:
        async def read() -> T:
            if self._stuck:
                raise StoreFailed(self._stuck)
            return await self._pool.run(read_thd, *facts)

        reading = shielded(Deferred.fromCoroutine(self._reads.run(read)))
        return reading.addTimeout(self._deadline, self._reactor, lambda *_: Failure(StoreFailed(self._slow)))

    def _enter(self, save: _Save) -> Deferred[None]:
        if self._stuck:
            return fail(StoreFailed(self._stuck))
        if len(self._waiting) >= self._most_waiting:
            return fail(StoreFailed(f"{self._most_waiting} changes wait to be saved, and no more may"))
        self._waiting.append(save)
        if self._writing is None:
            self._writing = Deferred.fromCoroutine(self._write())
            self._writing.addBoth(self._at_rest)
        return save.saved

    def _at_rest(self, _: object) -> None:
        self._writing = None

    async def _write(self) -> None:
        """Write the waiting saves, group after group, until none waits."""
        await deferLater(self._reactor, 0)  # all saves of one turn of the reactor are one group
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                await self._write_group(group)
            except (StoreFailed, ShuttingDown) as error:
                self._failing = True
                _fail(group, str(error))
            self._stuck = ""
            for save in group:
                if not save.saved.called:
                    save.saved.callback(None)

    async def _write_group(self, group: list[_Save]) -> None:
        timelines = [save.timeline for save in group if save.timeline is not None]
        if timelines:
            count = next_timeline(max(self.commit_count, *(above for above, _ in timelines)))
            set_back_to = min(set_back_to for _, set_back_to in timelines)
            await self._run(group, self._writer.begin_timeline_thd, count, set_back_to)
            self.commit_count, self._set_back_to, self._counting = count, set_back_to, True
        records = [record for save in group for record in save.records]
        if not (records or self._failing or any(save.verify or save.count for save in group)):
            return
        try:
            await self._write_records(group, records)
        except SetBack:
            self._log.error("the database was set back while it was in use: all that is in memory is saved again")
            await self._restore(group)
            await self._write_records(group, records)
        self._failing = False

    async def _write_records(self, group: list[_Save], records: Sequence[Record | Act]) -> None:
        probe = self._failing or any(save.count for save in group)
        written = await self._run(group, self._writer.write_thd, records, probe, self._counting)
        self.commit_count = written.commits
        if written.entries:
            self._heard(written.entries)

    async def _restore(self, group: list[_Save]) -> None:
        """Make the database hold exactly the records that are in memory."""
        held = self._everything()
        records: list[Record] = [*held.jobs, *held.workers, *held.removed, *held.tokens]
        await self._run(group, self._writer.keep_thd, [record.ref for record in records if not isinstance(record, Ref)])
        for first in range(0, len(records), RESTORED_PER_TRANSACTION):
            part = records[first : first + RESTORED_PER_TRANSACTION]
            await self._run(group, self._writer.restore_thd, part)
        there, lost = await self._run(group, self._writer.restore_audit_thd)
        if lost is not None:
            self._log.error(
                "the audit was set back from {lost} to {there}: the log alone has the entries in between",
                lost=str(lost),
                there=str(there),
            )
        count = self.commit_count + self._counting
        await self._run(group, self._writer.put_counts_thd, count, self._set_back_to)
        self.commit_count = count
        self._log.info("the database holds all {count} records again", count=len(records))

    async def _run(self, group: list[_Save], work_thd: Callable[..., T], *facts: Any) -> T:
        """Run ``work_thd`` in the thread. If it takes longer than the deadline, all saves of the group fail."""
        expiry = self._reactor.callLater(self._deadline, self._expired, group)
        return await self._pool.run(work_thd, *facts).addBoth(_calm, expiry)

    def _expired(self, group: list[_Save]) -> None:
        self._stuck = self._slow
        self._database.interrupt()
        waiting, self._waiting = self._waiting, []
        _fail([*group, *waiting], self._stuck)


def make_store(reactor: Any, database: Database | None) -> SqlStore | MemoryStore:
    """The store for the result of ``database.prepare``."""
    return MemoryStore() if database is None else SqlStore(reactor, database)


def _calm(result: T, expiry: IDelayedCall) -> T:
    if expiry.active():
        expiry.cancel()
    return result


def _fail(saves: Iterable[_Save], problem: str) -> None:
    for save in saves:
        if not save.saved.called:
            save.saved.errback(StoreFailed(problem))
