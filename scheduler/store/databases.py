"""The two kinds of database: how to connect to one, reserve it for one scheduler, and interrupt it.

A SQLite file belongs to the process that holds the ``flock`` on the lock file beside it, from before that process
daemonizes until it ends, however it ends. A database on a PostgreSQL server belongs to the session that holds an
advisory lock. The same session writes: if it breaks, nothing is written until a new session has the lock, so two
schedulers can never both write.

``prepare`` is called before the process daemonizes, so that a refusal appears on the terminal. It takes the lock, or
tests whether the lock can be taken, and makes the tables, or upgrades tables of an older version.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import logging
import os
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from scheduler.daemon import drafts
from scheduler.errors import Invalid, StoreFailed
from scheduler.store import schema

#: Seconds that a write waits for another program that uses the file.
BUSY_TIMEOUT_SECONDS = 5.0

#: Seconds for connecting to a server, and for one statement on it.
CONNECT_TIMEOUT_SECONDS = 4
STATEMENT_TIMEOUT_SECONDS = 8

#: Seconds to wait for the lock of a scheduler that has just ended; the server may notice its end late.
LOCK_WAIT_MAX_SECONDS = 2.0

#: Bytes of the largest file that is checked for damage at every start. Damage in a larger file shows when it is read.
FULL_CHECK_MAX_BYTES = 1 << 30

_IN_USE = "is in use by a running scheduler; each needs a database of its own"

#: Distinguishes our advisory locks from those of other programs.
_LOCK_SPACE = 0x5C4ED


class Database(Protocol):
    """A database, as the store uses it."""

    #: The dialect's ``insert``, which can also update.
    insert: Callable[..., Any]

    def prepare(self, steps: Sequence[schema.Step] = schema.STEPS) -> None:
        """Make the database ready for use. Raises ``Invalid`` of ``url`` that says why it can't be used."""

    def connect_thd(self) -> Connection:
        """Connect this thread, for writing. Raises ``SQLAlchemyError``, or ``StoreFailed`` if others use it."""

    def interrupt(self) -> None:
        """Make the connection's present operation fail. Called from another thread."""

    def release(self) -> None:
        """Release the database for other processes."""


def why(error: BaseException) -> str:
    """The error in one line, without the failed statement and its values."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(str(cause).split()) or type(cause).__name__


def _unfit(error: BaseException) -> Invalid:
    return Invalid("url", f"can't be used: {why(error)}" if isinstance(error, SQLAlchemyError) else why(error))


def _bring_up_to_date(
    connection: Connection, steps: Sequence[schema.Step], alone: bool, before: Callable[[int], None]
) -> None:
    """Create or upgrade the tables. Before an upgrade, ``before`` is called with the version of the tables."""
    with connection.begin():
        version = schema.version_of(connection, alone)
        schema.check_version(version, steps)
        if version == 0:
            schema.create(connection, steps)
            return
    if version <= len(steps):
        before(version)
    for present in range(version, len(steps) + 1):
        with connection.begin():
            schema.upgrade(connection, present, steps)


class SqliteFile:
    """A SQLite file on this machine."""

    insert = staticmethod(sqlite.insert)

    def __init__(self, path: str) -> None:
        self._path = Path(os.path.realpath(path))
        self._lock: int | None = None
        self.engine = create_engine(
            f"sqlite:///{self._path}",
            poolclass=NullPool,
            connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        )
        event.listen(self.engine, "connect", self._set_up_thd)
        event.listen(self.engine, "begin", self._begin_thd)
        self._open: sqlite3.Connection | None = None

    def prepare(self, steps: Sequence[schema.Step] = schema.STEPS) -> None:
        try:
            self._take_lock()
        except BlockingIOError:
            raise Invalid("url", _IN_USE) from None
        except OSError as error:
            raise Invalid("url", f"must be a file this process can write, or can make: {error.strerror}") from None
        try:
            with contextlib.closing(self.engine.connect()) as connection:
                self._check_whole(connection)
                _bring_up_to_date(connection, steps, True, lambda version: self._back_up(connection, version))
        except (SQLAlchemyError, schema.UnfitDatabase, OSError) as error:
            self.release()
            raise _unfit(error) from error

    def connect_thd(self) -> Connection:
        connection = self.engine.connect()
        self._open = connection.connection.dbapi_connection  # type: ignore[assignment]
        return connection

    def interrupt(self) -> None:
        if self._open is not None:
            with contextlib.suppress(sqlite3.ProgrammingError):  # it has just been closed
                self._open.interrupt()

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        os.close(self._file(self._path))
        lock = self._file(self._path.with_name(f"{self._path.name}.lock"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise
        self._lock = lock

    @staticmethod
    def _file(path: Path) -> int:
        """Open the file, created for its owner alone if it does not exist."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _check_whole(self, connection: Connection) -> None:
        if self._path.stat().st_size <= FULL_CHECK_MAX_BYTES:
            damage = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
            connection.rollback()
            if damage != "ok":
                raise schema.UnfitDatabase(f"is damaged: {' '.join(str(damage).split())}")

    def _back_up(self, connection: Connection, version: int) -> None:
        """Copy the whole file beside itself. A copy that fails leaves no file behind."""
        copy = self._path.with_name(f"{self._path.name}.v{version}.bak")
        draft = copy.with_name(f"{copy.name}.tmp")
        os.close(drafts.create_anew(str(draft)))
        with contextlib.closing(sqlite3.connect(draft)) as target:
            connection.connection.dbapi_connection.backup(target)  # type: ignore[union-attr]
        draft.replace(copy)

    @staticmethod
    def _set_up_thd(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the engine begins transactions itself, also for DDL
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")

    @staticmethod
    def _begin_thd(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


class PostgresServer:
    """A database on a server; its user owns the tables."""

    insert = staticmethod(postgresql.insert)

    def __init__(self, url: str) -> None:
        if importlib.util.find_spec("psycopg") is None:
            raise Invalid("url", "needs the driver psycopg: pip install 'scheduler-gateway[postgresql]'")
        logging.getLogger("psycopg").addHandler(logging.NullHandler())  # its failures are reported by this store
        self._me = f"scheduler {secrets.token_hex(8)}"
        parsed = make_url(url)
        given = {"connect_timeout"} & set(parsed.query)
        self.engine: Engine = create_engine(
            parsed, poolclass=NullPool, connect_args={} if given else {"connect_timeout": CONNECT_TIMEOUT_SECONDS}
        )
        # protects the descriptor number: after the connection is closed, the number may belong to another file
        self._guard = threading.Lock()
        self._open: Any = None

    def prepare(self, steps: Sequence[schema.Step] = schema.STEPS) -> None:
        try:
            with contextlib.closing(self.connect_thd()) as connection:
                _bring_up_to_date(connection, steps, False, lambda _: None)
        except StoreFailed:
            raise Invalid("url", _IN_USE) from None
        except (SQLAlchemyError, schema.UnfitDatabase) as error:
            raise _unfit(error) from error

    def connect_thd(self) -> Connection:
        connection = self.engine.connect()
        with self._guard:
            self._open = connection.connection.dbapi_connection
        try:
            with connection.begin():
                connection.execute(text(_SESSION), {"me": self._me})
            self._lock_thd(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def interrupt(self) -> None:
        """Shut down this side's socket. A request to the server would not help, because the server may be frozen."""
        with self._guard:
            if self._open is not None and not self._open.closed:
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._open.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)
            self._open = None

    def release(self) -> None:
        """Nothing to do: the end of the session releases the lock."""

    def _lock_thd(self, connection: Connection) -> None:
        """Take the lock. Raises ``StoreFailed`` if another scheduler has it. Ends older sessions of this process."""
        until = time.monotonic() + LOCK_WAIT_MAX_SECONDS
        while True:
            with connection.begin():
                if connection.execute(text(_LOCK), {"space": _LOCK_SPACE}).scalar_one():
                    return
                connection.execute(text(_END_GHOSTS), {"me": self._me})
            if time.monotonic() > until:
                raise StoreFailed("another running scheduler has the database")
            time.sleep(0.05)


# The server must notice when this process is gone, or it would keep the lock for hours. Commits must reach the disk.
_SESSION = f"""
select set_config('application_name', :me, false),
       set_config('statement_timeout', '{STATEMENT_TIMEOUT_SECONDS}s', false),
       set_config('idle_in_transaction_session_timeout', '60s', false),
       set_config('tcp_keepalives_idle', '15', false),
       set_config('tcp_keepalives_interval', '5', false),
       set_config('tcp_keepalives_count', '3', false),
       case when current_setting('synchronous_commit') = 'off'
            then set_config('synchronous_commit', 'on', false) end
"""
_LOCK = "select pg_try_advisory_lock(:space, hashtext(current_schema()))"
_END_GHOSTS = """
select pg_terminate_backend(pid) from pg_stat_activity
where application_name = :me and datname = current_database() and pid <> pg_backend_pid()
"""


def prepare(url: str) -> Database | None:
    """Make the database for a checked ``url`` ready for use; ``None`` for ``memory:``. Raises ``Invalid``."""
    if url == "memory:":
        return None
    database: Database = (
        SqliteFile(url.removeprefix("sqlite:///")) if url.startswith("sqlite:") else PostgresServer(url)
    )
    database.prepare()
    return database
