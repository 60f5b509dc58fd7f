"""The part of the durable store that runs in its thread: one connection, and the transactions on it.

All functions and methods run in the one thread of a pool, except ``Writer.__init__``. They raise ``StoreFailed`` if the
database fails.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from attrs import evolve, field, frozen
from sqlalchemy import Connection, Table, bindparam, delete, func, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from twisted.logger import Logger

from scheduler.daemon import failpoints
from scheduler.errors import StoreFailed
from scheduler.interfaces import Loaded, Record
from scheduler.model import Job, JobSpec, Ref
from scheduler.security.audit import Act, Anchor, AuditFilter, AuditPage, Entry
from scheduler.store import entries, rows
from scheduler.store.databases import Database, why
from scheduler.store.schema import JOBS, REMOVED, SPECS, TOKENS, VERSIONS, WORKERS

T = TypeVar("T")


class SetBack(Exception):
    """The database has counted fewer transactions than the last known number."""


@frozen
class Written:
    """The result of a transaction: the count of commits, and the new entries of the audit."""

    commits: int = 0
    entries: Sequence[Entry] = ()


@frozen
class _Counts:
    """Counts of commits, which workers are told, and of all transactions. ``count_commits`` begins to count commits."""

    commits: int
    transactions: int


class Writer:
    """The connection, and what is known of the database. Used only by the one thread of a pool."""

    _log = Logger()

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        # the counts as last read; ``None`` before the load
        self._counts: _Counts | None = None
        # kind -> ids of the records that have their row in ``Kind.once``
        self._begun: dict[str, set[str]] = {name: set() for name, kind in KINDS.items() if kind.once is not None}
        # ids of jobs whose arguments and variables were lost when the database was set back
        self._lost: set[str] = set()
        # the end of the audit
        self._chain = entries.Chain()
        self._put = {table: _upsert(database, table) for kind in KINDS.values() for table in kind.tables}

    def load_thd(self) -> Loaded:
        """Load everything."""
        (found, begun, counts, set_back_to), head = self._try_thd(
            lambda connection: (_load_thd(connection), entries.head_of(connection))
        )
        # a missing spec is not written again from the job in memory, which lacks parts of it
        self._begun = {kind: ids.union(record.ref.id for record in found[kind]) for kind, ids in begun.items()}
        self._lost = {job.id for job in found["job"] if rows.lacks_args(job)}
        self._counts = counts
        self._chain.begin(head)
        jobs, workers, removed, tokens = (tuple(found[kind]) for kind in ("job", "worker", "removed", "token"))
        return Loaded(jobs, workers, removed, counts.commits, set_back_to, head, tokens=tokens)

    def write_thd(self, records: Sequence[Record | Act], probe: bool = False, commits: bool = False) -> Written:
        """Write all records in one transaction.

        With ``probe``, the transaction writes something even without records. With ``commits``, a transaction that
        writes counts as a commit. Raises ``SetBack``, and writes nothing, if there are fewer transactions than before.
        """
        batch = _Batch.of(records)
        last = self._counts

        def write_thd(connection: Connection) -> tuple[_Counts | None, Sequence[Entry]]:
            counts = None
            if last is not None:
                counts = _counted_thd(connection, last, bool(records) or probe, commits)
            elif probe:
                connection.execute(update(VERSIONS).values(version=VERSIONS.c.version))
            self._write_thd(connection, batch)
            appended = self._chain.append(connection, batch.acts)
            if appended:
                failpoints.hit("scheduler.before-audit-commit")
            return counts, appended

        self._counts, appended = self._try_thd(write_thd, batch.acts)
        self._note(batch)
        self._chain.done(appended)
        return Written(0 if self._counts is None else self._counts.commits, appended)

    def read_specs_thd(self, job_ids: Collection[str]) -> Mapping[str, JobSpec]:
        wanted = [job_id for job_id in job_ids if job_id not in self._lost]
        return self._try_thd(lambda connection: rows.load_specs(connection, wanted))

    def read_audit_thd(self, which: AuditFilter, limit: int, before: int | None) -> AuditPage:
        """See ``IStore.read_audit``."""
        return self._try_thd(lambda connection: entries.page(connection, which, limit, before))

    def entries_after_thd(self, seq: int, limit: int) -> list[Entry]:
        """At most ``limit`` entries of the audit numbered above ``seq``, in order."""
        return self._try_thd(lambda connection: entries.after(connection, seq, limit))

    def put_entries_thd(self, copied: Sequence[Entry]) -> None:
        """Write entries of the audit as they are."""
        self._try_thd(lambda connection: entries.put(connection, copied))

    def restore_audit_thd(self) -> tuple[Anchor, Anchor | None]:
        """Write the entries again that a database lacks because it was set back.

        Returns the last entry that it had and, if some could not be written again, the last of those.
        """
        there, again = self._try_thd(self._chain.restore)
        return there, self._chain.restored(there, again)

    def begin_timeline_thd(self, count: int, set_back_to: int) -> None:
        """Continue with the count ``count``, and record the count to which the store was set back."""
        timeline = update(VERSIONS).values(commits=count, set_back_to=set_back_to)
        self._try_thd(lambda connection: connection.execute(timeline))
        if self._counts is not None:
            self._counts = evolve(self._counts, commits=count)

    def restore_thd(self, records: Sequence[Record]) -> None:
        """Write records to a database that was set back. The count stays too low until ``put_counts_thd``."""
        batch = _Batch.of(records)
        self._try_thd(lambda connection: self._write_thd(connection, batch))
        self._note(batch)

    def put_counts_thd(self, commits: int, set_back_to: int | None) -> None:
        """Note that the database is complete: set its count of commits, and raise its count of transactions."""
        transactions = 1 + (0 if self._counts is None else self._counts.transactions)
        counts = update(VERSIONS).values(commits=commits, transactions=transactions, set_back_to=set_back_to)
        self._try_thd(lambda connection: connection.execute(counts))
        self._counts = _Counts(commits, transactions)

    def keep_thd(self, refs: Sequence[Ref]) -> None:
        """Remove all records but these."""
        kept = {name: {ref.id for ref in refs if ref.kind == name} for name in KINDS}

        def keep_thd(connection: Connection) -> dict[str, set[str]]:
            for name, kind in KINDS.items():
                for table in kind.tables:
                    _delete_thd(connection, table, _ids_thd(connection, table) - kept[name])
            return _begun_thd(connection)

        self._begun = self._try_thd(keep_thd)

    def close_thd(self) -> None:
        """Close the connection, in whatever state it is."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception as error:  # nothing depends on it
                self._log.debug("closing the database: {why}", why=why(error))

    def _try_thd(self, work_thd: Callable[[Connection], T], acts: Sequence[Act] = ()) -> T:
        try:
            try:
                return self._transact_thd(work_thd)
            except DBAPIError as error:
                self._chain.failed(acts)
                if not error.connection_invalidated:
                    raise
                self.close_thd()  # the server was restarted since the last transaction
                return self._transact_thd(work_thd)
        except SetBack:
            raise  # the connection still works
        except StoreFailed:
            self.close_thd()
            raise
        except Exception as error:
            self._chain.failed(acts)
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
                _delete_thd(connection, table, removed)
            if kind.once is not None:
                table, row_of = kind.once
                begun = self._begun[name]
                new = [record for record_id, record in put.items() if record_id not in begun or record_id in removed]
                self._lost.difference_update(removed)
                self._lost.update(record.id for record in new if isinstance(record, Job) and record.spec.stored)
                self._put_thd(connection, table, map(row_of, new))
            self._put_thd(connection, kind.table, map(kind.to_row, map(self._as_kept, put.values())))

    def _as_kept(self, record: Record) -> Record:
        return rows.without_args(record) if isinstance(record, Job) and record.id in self._lost else record

    def _note(self, batch: _Batch) -> None:
        for kind, begun in self._begun.items():
            begun.difference_update(batch.removed[kind])
            begun.update(batch.put[kind])

    def _put_thd(self, connection: Connection, table: Table, values: Iterable[rows.Row]) -> None:
        if listed := list(values):
            connection.execute(self._put[table], listed)


def _load_thd(connection: Connection) -> tuple[dict[str, list[Any]], dict[str, set[str]], _Counts, int | None]:
    """The records by kind, the ids with a row in ``Kind.once``, the counts, and ``set_back_to``."""
    found = {name: list(kind.load(connection)) for name, kind in KINDS.items()}
    columns = (VERSIONS.c.commits, VERSIONS.c.transactions, VERSIONS.c.set_back_to)
    commits, transactions, set_back_to = connection.execute(select(*columns)).one()
    return found, _begun_thd(connection), _Counts(commits or 0, transactions or 0), set_back_to


def _begun_thd(connection: Connection) -> dict[str, set[str]]:
    """Kind -> ids of the records that have their row in ``Kind.once``, for kinds with such a table."""
    return {name: _ids_thd(connection, kind.once[0]) for name, kind in KINDS.items() if kind.once is not None}


def _ids_thd(connection: Connection, table: Table) -> set[str]:
    (key,) = table.primary_key
    return set(connection.execute(select(key)).scalars())


def _delete_thd(connection: Connection, table: Table, ids: Collection[str]) -> None:
    (key,) = table.primary_key
    if ids:
        connection.execute(delete(table).where(key == bindparam("gone")), [{"gone": each} for each in ids])


# Statements are built once: building one takes as long as a transaction.
_PRESENT = (func.coalesce(VERSIONS.c.commits, 0), func.coalesce(VERSIONS.c.transactions, 0))
_LOOK = select(*_PRESENT)
_COUNT = update(VERSIONS).values(
    commits=_PRESENT[0] + bindparam("more_commits"), transactions=_PRESENT[1] + bindparam("more_transactions")
)
_COUNT_AND_LOOK = _COUNT.returning(VERSIONS.c.commits, VERSIONS.c.transactions)


def _counted_thd(connection: Connection, last: _Counts, writes: bool, commits: bool) -> _Counts:
    """The counts, with this transaction if it ``writes``. Raises ``SetBack`` if they are lower than ``last`` allows.

    ``commits``: the transaction also counts as a commit.
    """
    more = _Counts(int(writes and commits), int(writes))
    values = {"more_commits": more.commits, "more_transactions": more.transactions}
    if writes and connection.dialect.update_returning:
        found = _Counts(*connection.execute(_COUNT_AND_LOOK, values).one())
    else:
        if writes:  # SQLite before 3.35
            connection.execute(_COUNT, values)
        found = _Counts(*connection.execute(_LOOK).one())
    if found.commits < last.commits + more.commits or found.transactions < last.transactions + more.transactions:
        raise SetBack
    return found


@frozen
class Kind:
    """Storage of the records of one kind. Each table has one primary key column: the id of the record."""

    table: Table
    to_row: Callable[[Any], rows.Row]
    #: Reads all records.
    load: Callable[[Connection], Iterable[Any]]
    #: A table for the fields that never change, written with the first save of a record, and the function for its row.
    once: tuple[Table, Callable[[Any], rows.Row]] | None = None

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.table,) if self.once is None else (self.table, self.once[0])


#: By ``Ref.kind``.
KINDS: Mapping[str, Kind] = {
    "job": Kind(JOBS, rows.job_row, rows.load_jobs, once=(SPECS, rows.spec_row)),
    "worker": Kind(WORKERS, rows.worker_row, rows.load_workers),
    "removed": Kind(REMOVED, rows.removed_row, rows.load_removed),
    "token": Kind(TOKENS, rows.token_row, rows.load_tokens),
}


def _by_kind() -> dict[str, dict[str, Any]]:
    return {kind: {} for kind in KINDS}


@frozen
class _Batch:
    """The net effect of a sequence of records: the last record of each id. Removals are executed first."""

    #: Kind -> id -> record.
    put: dict[str, dict[str, Any]] = field(factory=_by_kind)
    #: Kind -> ids to remove. A dict keeps their order.
    removed: dict[str, dict[str, None]] = field(factory=_by_kind)
    acts: list[Act] = field(factory=list)

    @classmethod
    def of(cls, records: Iterable[Record | Act]) -> _Batch:
        batch = cls()
        for record in records:
            if isinstance(record, Act):
                batch.acts.append(record)
            elif isinstance(record, Ref):
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
