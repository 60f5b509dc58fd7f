"""The durable store: a database, written by one thread, many saves in one transaction.

Theory of operation. A commit waits for the disk, so it is the number of commits
that limits how much can be saved, not the number of records. While one
transaction runs, all saves that arrive wait, and go together into the next one
(group commit): at rest a save takes as long as one commit, under load each
commit serves more of them. They are written in the order of the calls, and each
is answered once its transaction is durable.

All that is written is whole records by their id, so writing the same twice is
harmless. A transaction whose connection broke is tried once more on a new one;
then all of its saves fail. One that has not ended by its deadline fails too,
whatever its thread is still doing: that is interrupted, and until it is back
nothing waits for it, but fails at once. After a failure the next transaction
always writes something, so that it tells whether writing works again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from attrs import field, frozen
from sqlalchemy import Connection, Table, bindparam, delete, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from scheduler.errors import ShuttingDown, StoreFailed
from scheduler.interfaces import IStore, Loaded, Record
from scheduler.model import Ref
from scheduler.store import rows
from scheduler.store.database import Database, why
from scheduler.store.memory import MemoryStore
from scheduler.store.schema import JOBS, KEYS, SPECS, VERSIONS, WORKERS
from scheduler.threads import Pool

T = TypeVar("T")

#: Seconds until a transaction has failed.
TRANSACTION_DEADLINE_SECONDS = 10.0

#: Seconds until reading everything has failed.
LOAD_DEADLINE_SECONDS = 120.0

#: Saves that may wait for the next transaction.
MAX_WAITING_SAVES = 10_000


@frozen
class _Save:
    records: Sequence[Record]
    saved: Deferred[None] = field(factory=Deferred)


@implementer(IStore)
class SqlStore(Service):
    """Of one database, which is let go of when this service has stopped."""

    def __init__(
        self,
        reactor: Any,
        database: Database,
        deadline: float = TRANSACTION_DEADLINE_SECONDS,
        most_waiting: int = MAX_WAITING_SAVES,
    ) -> None:
        """``deadline`` in seconds; ``most_waiting`` saves wait, and more fail."""
        self._reactor = reactor
        self._database = database
        self._deadline = deadline
        self._most_waiting = most_waiting
        self._pool = Pool(reactor, "store", 1)
        self._writer = Writer(database)
        self._waiting: list[_Save] = []
        self._writing: Deferred[None] | None = None
        self._failing = False
        # why nothing can be saved before the thread is back
        self._stuck = ""

    def startService(self) -> None:
        super().startService()
        self._pool.startService()

    def stopService(self) -> Deferred[None]:
        """Fires when all that was to be saved is, or failed, and the database is free."""
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
        return self._pool.run(self._writer.load_thd).addBoth(_calm, expiry)

    def save(self, records: Iterable[Record]) -> Deferred[None]:
        save = _Save(tuple(records))
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
        """Group after group, until nothing waits."""
        while self._waiting:
            group, self._waiting = self._waiting, []
            records = [record for save in group for record in save.records]
            if records or self._failing:
                expiry = self._reactor.callLater(self._deadline, self._expired, group)
                try:
                    await self._pool.run(self._writer.write_thd, records, self._failing).addBoth(_calm, expiry)
                except (StoreFailed, ShuttingDown) as error:
                    self._failing = True
                    _fail(group, str(error))
                else:
                    self._failing = False
                self._stuck = ""
            for save in group:
                if not save.saved.called:
                    save.saved.callback(None)

    def _expired(self, group: list[_Save]) -> None:
        self._stuck = f"the database did not answer within {self._deadline:g} s"
        self._database.interrupt()
        waiting, self._waiting = self._waiting, []
        _fail([*group, *waiting], self._stuck)


def make_store(reactor: Any, database: Database | None) -> SqlStore | MemoryStore:
    """The store for what ``database.prepare`` returned."""
    return MemoryStore() if database is None else SqlStore(reactor, database)


def _calm(result: T, expiry: IDelayedCall) -> T:
    if expiry.active():
        expiry.cancel()
    return result


def _fail(saves: Iterable[_Save], problem: str) -> None:
    for save in saves:
        if not save.saved.called:
            save.saved.errback(StoreFailed(problem))


class Writer:
    """The connection, and what is known of what it leads to: the one thread of a pool has it."""

    _log = Logger()

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        # of the kinds with a row that is written once: ids of the records that have it
        self._begun: dict[str, set[str]] = {name: set() for name, kind in KINDS.items() if kind.once is not None}
        self._put = {table: _upsert(database, table) for kind in KINDS.values() for table in kind.tables}

    def load_thd(self) -> Loaded:
        """Everything; ``StoreFailed``."""
        found = self._try_thd(_load_thd)
        self._begun = {kind: {record.ref.id for record in found[kind]} for kind in self._begun}
        return Loaded(*(tuple(found[kind]) for kind in ("job", "worker", "key")))

    def write_thd(self, records: Sequence[Record], probe: bool) -> None:
        """All of them, in one transaction; ``StoreFailed``. With ``probe`` even none of them is something to write."""
        batch = _Batch.of(records)

        def write_thd(connection: Connection) -> None:
            if probe:
                connection.execute(update(VERSIONS).values(version=VERSIONS.c.version))
            self._write_thd(connection, batch)

        self._try_thd(write_thd)
        for kind, begun in self._begun.items():
            begun.difference_update(batch.removed[kind])
            begun.update(batch.put[kind])

    def close_thd(self) -> None:
        """Give the connection back, in whatever state it is."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception as error:  # nothing hangs on it
                self._log.debug("closing the database: {why}", why=why(error))

    def _try_thd(self, work_thd: Callable[[Connection], T]) -> T:
        try:
            try:
                return self._transact_thd(work_thd)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                self.close_thd()  # the server was restarted since
                return self._transact_thd(work_thd)
        except StoreFailed:
            self.close_thd()
            raise
        except Exception as error:
            self.close_thd()
            if not isinstance(error, SQLAlchemyError):
                self._log.failure("a bug in the store")
            raise StoreFailed(why(error)) from error

    def _transact_thd(self, work_thd: Callable[[Connection], T]) -> T:
        if self._connection is None:
            self._connection = self._database.connect_thd()
        with self._connection.begin():
            return work_thd(self._connection)

    def _write_thd(self, connection: Connection, batch: _Batch) -> None:
        for name, kind in KINDS.items():
            removed, put = batch.removed[name], batch.put[name]
            for table in kind.tables if removed else ():
                (key,) = table.primary_key
                connection.execute(delete(table).where(key == bindparam("gone")), [{"gone": each} for each in removed])
            if kind.once is not None:
                table, row_of = kind.once
                begun = self._begun[name]
                new = [record for record_id, record in put.items() if record_id not in begun or record_id in removed]
                self._put_thd(connection, table, map(row_of, new))
            self._put_thd(connection, kind.table, map(kind.to_row, put.values()))

    def _put_thd(self, connection: Connection, table: Table, values: Iterable[rows.Row]) -> None:
        if listed := list(values):
            connection.execute(self._put[table], listed)


def _load_thd(connection: Connection) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, kind in KINDS.items():
        found[name] = list(kind.load(connection, found))
    return found


@frozen
class Kind:
    """How the records of one kind are kept. Each table has one column as its primary key: the id of the record."""

    table: Table
    to_row: Callable[[Any], rows.Row]
    #: Reads all of them; it is given the records of the kinds before it.
    load: Callable[[Connection, Mapping[str, Sequence[Any]]], Iterable[Any]]
    #: Of what never changes: a table of its own, which is written with the first save of a record; and its row.
    once: tuple[Table, Callable[[Any], rows.Row]] | None = None

    @property
    def tables(self) -> tuple[Table, ...]:
        """All of it."""
        return (self.table,) if self.once is None else (self.table, self.once[0])


#: By ``Ref.kind``, in the order in which they are loaded.
KINDS: Mapping[str, Kind] = {
    "job": Kind(JOBS, rows.job_row, lambda connection, _: rows.load_jobs(connection), once=(SPECS, rows.spec_row)),
    "worker": Kind(WORKERS, rows.worker_row, lambda connection, _: rows.load_workers(connection)),
    "key": Kind(KEYS, rows.key_row, lambda connection, found: rows.load_keys(connection, found["job"])),
}


def _by_kind() -> dict[str, dict[str, Any]]:
    return {kind: {} for kind in KINDS}


@frozen
class _Batch:
    """What remains of records when of each id the last counts. What was ever removed is so before the rest is put."""

    #: Kind -> id -> record.
    put: dict[str, dict[str, Any]] = field(factory=_by_kind)
    #: Kind -> ids, a dict for its order.
    removed: dict[str, dict[str, None]] = field(factory=_by_kind)

    @classmethod
    def of(cls, records: Iterable[Record]) -> _Batch:
        batch = cls()
        for record in records:
            if isinstance(record, Ref):
                batch.put[record.kind].pop(record.id, None)
                batch.removed[record.kind][record.id] = None
            else:
                ref = record.ref
                batch.put[ref.kind][ref.id] = record
        return batch


def _upsert(database: Database, table: Table) -> Any:
    put = database.insert(table)
    keys = [column.name for column in table.primary_key]
    rest = {column.name: put.excluded[column.name] for column in table.c if column.name not in keys}
    return put.on_conflict_do_update(index_elements=keys, set_=rest)
