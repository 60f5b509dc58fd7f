"""The tables, and the numbered steps from each version of them to the next.

A new database gets the tables as they are described here, at the latest version. An older database goes through the
steps that it lacks, each in a transaction of its own. A database of a later version is refused, because this program
can't know what it would destroy.

The spec of a job is written once, to ``job_specs``. Its changing fields are a narrow row of ``jobs``. Times are POSIX
times (seconds, UTC). Columns that hold a mapping or a list are JSON, ``NULL`` if it is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    case,
    delete,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.schema import CreateColumn

from scheduler.errors import SchedulerError

METADATA = MetaData()

VERSIONS = Table(
    "scheduler_schema",
    METADATA,
    Column("version", BigInteger, nullable=False),
    # since version 4; the count that workers are told; NULL is 0
    Column("commits", BigInteger),
    # since version 4; NULL: the store was never set back
    Column("set_back_to", BigInteger),
    # since version 5; NULL is 0
    Column("transactions", BigInteger),
)

JOBS = Table(
    "jobs",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("worker_name", Text),
    Column("exit_code", BigInteger),
    Column("signal", Text),
    Column("reason", Text),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("unknown_since", Double),
    Column("stop_requested_at", Double),
    Column("created_by", Text),
    Column("worker_id", Text),
    Column("remote_id", Text),
    Column("stdout_bytes", BigInteger),
    Column("stderr_bytes", BigInteger),
    Column("group_id", Text),
    Column("retry_of", Text),
    Column("promised", Boolean, nullable=False),
    Column("orphan", Boolean, nullable=False),
    Column("target", Text),
    Column("terms", Text),
    # since version 2
    Column("output_error", Text),
    Column("leftover", Text),
    Column("background_ended", BigInteger),
    Column("retried_by", Text),
    # since version 3
    Column("usage", Text),
    Column("remove_requested_at", Double),
    Column("stop_reason", Text),
    # since version 6; both NULL: its request had no key
    Column("request_key", Text),
    Column("request_fingerprint", Text),
    # since version 8; NULL: not known
    Column("request_principal", Text),
)

SPECS = Table(
    "job_specs",
    METADATA,
    Column("job_id", Text, primary_key=True),
    Column("command", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("args", Text),
    Column("env", Text),
    Column("cwd", Text, nullable=False),
    Column("labels", Text),
    Column("timeout", Double),
    Column("stop_grace", Double, nullable=False),
    Column("merge_stderr", Boolean, nullable=False),
    Column("output_limit", BigInteger),
    Column("stdin", LargeBinary),
    Column("script", LargeBinary),
    # since version 2; NULL is the model's default
    Column("linger", Double),
    Column("stop_signal", Text),
    Column("stop_mode", Text),
    Column("umask", BigInteger),
    Column("script_summary", Text),
)

WORKERS = Table(
    "workers",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("labels", Text),
    Column("slots", BigInteger),
    Column("draining", Boolean, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("version", Text),
    # since version 2
    Column("features", Text),
    # since version 4; NULL is none
    Column("folder", Text),
    Column("nonce", Text),
    Column("deregistered_at", Double),
)

# since version 6
REMOVED = Table(
    "removed_jobs",
    METADATA,
    Column("job_id", Text, primary_key=True),
    Column("removed_at", Double, nullable=False),
    # both NULL: its request had no key
    Column("request_key", Text),
    Column("request_fingerprint", Text),
    # since version 8; NULL: not known
    Column("request_principal", Text),
)

# since version 8
TOKENS = Table(
    "tokens",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("reach", Text),
    # of the token's text, which is kept nowhere
    Column("digest", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("created_by", Text, nullable=False),
    # NULL: never
    Column("expires_at", Double),
    Column("last_used_at", Double),
)

# since version 8; rows are only ever added
AUDIT = Table(
    "audit",
    METADATA,
    # SQLite needs no index for a key of this type
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("time", Double, nullable=False),
    Column("who", Text, nullable=False),
    # the address that the request came from
    Column("origin", Text, nullable=False),
    Column("uid", BigInteger),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("worker", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("details", Text, nullable=False),
    # of the row and of the hash of the row before, in hexadecimal
    Column("hash", Text, nullable=False),
)

#: A step upgrades the tables by one version; the first step makes version 2.
Step = Callable[[Connection], Any]


def _add_columns(connection: Connection, table: Table, *names: str) -> None:
    """Add columns as ``table`` describes them. ``NULL`` must be right for every existing row."""
    for name in names:
        column = CreateColumn(table.c[name]).compile(dialect=connection.dialect)
        connection.execute(DDL(f"ALTER TABLE {table.name} ADD COLUMN {column}"))


def _to_version_2(connection: Connection) -> None:
    """Add the fate of a job's output and processes, the way its tree is ended, and a worker's features."""
    _add_columns(connection, JOBS, "output_error", "leftover", "background_ended", "retried_by")
    _add_columns(connection, SPECS, "linger", "stop_signal", "stop_mode", "umask", "script_summary")
    _add_columns(connection, WORKERS, "features")


def _to_version_3(connection: Connection) -> None:
    """Add a job's usage, the reason of its stop, and removals by clients."""
    _add_columns(connection, JOBS, "usage", "remove_requested_at", "stop_reason")
    connection.execute(DDL("ALTER TABLE idempotency_keys ADD COLUMN removed_at DOUBLE PRECISION"))


def _to_version_4(connection: Connection) -> None:
    """Add a worker's folder, process and deregistration, and the count of commits."""
    _add_columns(connection, WORKERS, "folder", "nonce", "deregistered_at")
    _add_columns(connection, VERSIONS, "commits", "set_back_to")


def _to_version_5(connection: Connection) -> None:
    """Add the count of transactions, which also counts those before any worker was told a count."""
    _add_columns(connection, VERSIONS, "transactions")


def _to_version_6(connection: Connection) -> None:
    """Move the keys of requests to their jobs, and those of removed jobs to a table that lists all removed jobs.

    A removed job whose request had no key has a key of its own, without a fingerprint.
    """
    _add_columns(connection, JOBS, "request_key", "request_fingerprint")
    columns = [
        Column(column.name, column.type, primary_key=column.primary_key, nullable=column.nullable)
        for column in (REMOVED.c.job_id, REMOVED.c.removed_at, REMOVED.c.request_key, REMOVED.c.request_fingerprint)
    ]
    of_removed = Table(REMOVED.name, MetaData(), *columns)
    of_removed.create(connection)
    keys = Table("idempotency_keys", MetaData(), autoload_with=connection)
    of_jobs = select(keys.c.key, keys.c.fingerprint, keys.c.job_id).where(keys.c.removed_at.is_(None))
    if found := [row._asdict() for row in connection.execute(of_jobs)]:
        values: dict[str, Any] = {"request_key": bindparam("key"), "request_fingerprint": bindparam("fingerprint")}
        connection.execute(update(JOBS).where(JOBS.c.id == bindparam("job_id")).values(values), found)
    its_key = (func.max(case((keys.c.fingerprint != "", column))) for column in (keys.c.key, keys.c.fingerprint))
    removed = select(keys.c.job_id, func.max(keys.c.removed_at), *its_key).where(keys.c.removed_at.is_not(None))
    connection.execute(insert(of_removed).from_select(of_removed.c.keys(), removed.group_by(keys.c.job_id)))
    keys.drop(connection)


def _to_version_7(connection: Connection) -> None:
    """Drop a worker's state and the time when it was last seen, which are true for the moment alone."""
    for name in ("state", "last_seen"):
        connection.execute(DDL(f"ALTER TABLE {WORKERS.name} DROP COLUMN {name}"))


def _to_version_8(connection: Connection) -> None:
    """Add tokens, the audit, and the principals whose requests had the keys. Old keys count for every principal."""
    TOKENS.create(connection)
    AUDIT.create(connection)
    _add_columns(connection, JOBS, "request_principal")
    _add_columns(connection, REMOVED, "request_principal")


STEPS: Sequence[Step] = (
    *(_to_version_2, _to_version_3, _to_version_4, _to_version_5, _to_version_6, _to_version_7),
    _to_version_8,
)


class UnfitDatabase(SchedulerError):
    """The database holds data that this program can't use; ``str()`` explains it."""


def version_of(connection: Connection, alone: bool) -> int:
    """The version of the tables, 0 if there are none. Raises ``UnfitDatabase`` for tables of another program.

    ``alone``: the database may hold no table of another program at all.
    """
    there = set(inspect(connection).get_table_names())
    if VERSIONS.name not in there:
        strange = there if alone else there & set(METADATA.tables)
        if strange:
            raise UnfitDatabase(f"holds tables of another program ({', '.join(sorted(strange)[:3])})")
        return 0
    versions = list(connection.execute(select(VERSIONS.c.version)).scalars())
    if len(versions) != 1:
        raise UnfitDatabase(f"does not say its version: {VERSIONS.name} has {len(versions)} rows, not one")
    return int(versions[0])


def check_version(version: int, steps: Sequence[Step] = STEPS) -> None:
    """Raise ``UnfitDatabase`` for a version later than this program's."""
    latest = 1 + len(steps)
    if version > latest:
        raise UnfitDatabase(f"is of version {version}; this program knows versions up to {latest}, so it is too old")


def create(connection: Connection, steps: Sequence[Step] = STEPS) -> None:
    """Create the tables, at the latest version."""
    METADATA.create_all(connection)
    connection.execute(delete(VERSIONS))
    connection.execute(insert(VERSIONS).values(version=1 + len(steps)))


def upgrade(connection: Connection, version: int, steps: Sequence[Step] = STEPS) -> None:
    """Upgrade the tables from ``version``, which is not 0, to the next."""
    steps[version - 1](connection)
    connection.execute(update(VERSIONS).values(version=version + 1))
