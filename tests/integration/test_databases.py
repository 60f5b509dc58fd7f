"""A database before its use: owner, fitness, and upgrades."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from twisted.trial.unittest import SynchronousTestCase, TestCase

from scheduler.errors import Invalid
from scheduler.interfaces import Loaded, Record
from scheduler.model import JobSpec, JobState, RemovedJob
from scheduler.request_keys import RequestKey
from scheduler.store.databases import Database, PostgresServer, SqliteFile, prepare
from scheduler.store.schema import STEPS
from scheduler.store.writer import Writer
from scheduler.terms import QueueTerms, Retry, Target
from tests import postgres
from tests.unit.cluster.values import a_job, a_worker

FIXTURES = Path(__file__).parents[1] / "fixtures"

_SPEC = JobSpec(
    command="cat",
    args=("-n", "é"),
    path="/etc/hosts",
    env={"A": "b"},
    cwd="/tmp",
    stdin=b"\xff\0",
    timeout=1.5,
    labels={"team": "blue"},
    merge_stderr=True,
    output_limit=10,
)

#: The records in tests/fixtures/store-1.sql.
HELD: tuple[Record, ...] = (
    a_job(
        "j-1",
        JobState.FAILED,
        spec=_SPEC.trimmed(),
        target=None,
        exit_code=3,
        reason="exit status 3",
        finished_at=1001.25,
    ),
    a_job(
        "j-2",
        spec=_SPEC,
        target=Target(selector={"gpu": "yes"}),
        terms=QueueTerms(60.0, 5, Retry(2, 1.5)),
        promised=True,
        key=RequestKey("k", "f" * 64),
    ),
    a_worker(features=frozenset()),
)


def _key(name: str) -> RequestKey:
    return RequestKey(name, "f" * 64)


#: The records in tests/fixtures/store-5.sql, store-5-postgresql.sql and store-6.sql.
HELD_5 = Loaded(
    (
        a_job("j-back", JobState.LOST, reason="forgotten", orphan=True),
        a_job("j-ended", JobState.FAILED, exit_code=3, reason="exit status 3", key=_key("k-ended")),
        a_job("j-plain"),
        a_job("j-queued", JobState.QUEUED, None, promised=True, terms=QueueTerms(60.0), key=_key("k-queued")),
        a_job("j-running", started_at=1000.5, key=_key("k-running")),
        a_job("j-unanswered", JobState.UNKNOWN, unknown_since=1001.0, key=_key("k-unanswered")),
    ),
    (a_worker(),),
    (
        RemovedJob("j-back", 1004.0, _key("k-back")),
        RemovedJob("j-keyless", 1003.0),
        RemovedJob("j-removed", 1002.0, _key("k-removed")),
    ),
)

#: Columns that version 1 lacks, by the version that added them.
VERSION_2 = {
    "jobs": ("output_error", "leftover", "background_ended", "retried_by"),
    "job_specs": ("linger", "stop_signal", "stop_mode", "umask", "script_summary"),
    "workers": ("features",),
}
VERSION_3 = {"jobs": ("usage", "remove_requested_at", "stop_reason"), "idempotency_keys": ("removed_at",)}
VERSION_4 = {"scheduler_schema": ("commits", "set_back_to"), "workers": ("folder", "nonce", "deregistered_at")}
VERSION_5 = {"scheduler_schema": ("transactions",)}

#: Rows of workers as version 5 wrote them, and these workers, by id.
WORKERS_5 = """
delete from workers;
insert into workers (id, name, address, state, labels, slots, draining, last_seen, boot_id, features, folder, nonce,
    deregistered_at) values
('core', 'core', '127.0.0.1:30425', 'online', '{"name":"core"}', null, false, null, '', null, null, null, null),
('draining', 'draining', '127.0.0.1:30844', 'unreachable', '{"name":"draining"}', 4, true, 1001.5, 'boot',
    '["linger","stop_mode","stop_signal","umask"]', 'folder-2', 'nonce-2', null),
('offline', 'offline', '127.0.0.1:30739', 'offline', '{"name":"offline"}', 4, true, 1002.0, 'boot',
    '["linger","stop_mode","stop_signal","umask"]', null, 'nonce-3', 1002.0),
('online', 'online', '127.0.0.1:30645', 'online', '{"name":"online"}', 4, false, 1000.0, 'boot',
    '["linger","stop_mode","stop_signal","umask"]', 'online', 'nonce-1', null);
"""
WORKERS = (
    a_worker("core", boot_id="", slots=None, features=()),
    a_worker("draining", draining=True, folder="folder-2", nonce="nonce-2"),
    a_worker("offline", draining=True, deregistered_at=1002.0, nonce="nonce-3"),
    a_worker("online", folder="online", nonce="nonce-1"),
)


def _add_a_column(connection: Connection) -> None:
    connection.execute(text("alter table jobs add column note text"))
    connection.execute(text("update jobs set note = 'old'"))


def _fail(connection: Connection) -> None:
    connection.execute(text("alter table jobs add column other text"))
    connection.execute(text("insert into no_such_table values (1)"))


class DatabaseTests:
    """Mixed into a test case of one kind of database."""

    of_version_5 = "store-5.sql"

    def use(self) -> Database:
        """The same database, for another process."""
        raise NotImplementedError

    def run_sql(self, statement: str) -> None:
        raise NotImplementedError

    def refusal(self, act: Callable[[], object]) -> str:
        error = self.assertRaises(Invalid, act)
        self.assertEqual(error.field, "url")
        self.assertNotIn("\n", error.problem)
        self.assertNotIn("secret", error.problem)
        return error.problem

    def read(self, database: Database, statement: str) -> list[tuple[object, ...]]:
        with closing(database.connect_thd()) as connection:
            return [tuple(row) for row in connection.execute(text(statement))]

    def test_new(self) -> None:
        """A new database gets the tables, at the latest version, and preparing it again changes nothing."""
        for _ in range(2):
            database = self.use()
            database.prepare()
            self.assertEqual(self.read(database, "select version from scheduler_schema"), [(1 + len(STEPS),)])
            database.release()

    def test_upgrade(self) -> None:
        """Each missing step is taken once, in order, and existing data stays."""
        database = self.use()
        database.prepare()
        writer = Writer(database)
        writer.write_thd(HELD, False)
        writer.close_thd()
        for _ in range(2):
            database.release()
            database = self.use()
            database.prepare([*STEPS, _add_a_column])
        self.assertEqual(self.read(database, "select version from scheduler_schema"), [(2 + len(STEPS),)])
        self.assertEqual(self.read(database, "select id, note from jobs order by id"), [("j-1", "old"), ("j-2", "old")])

    def test_failed_upgrade(self) -> None:
        """A step that fails leaves the state after the step before."""
        database = self.use()
        database.prepare()
        database.release()
        database = self.use()
        self.assertIn("no_such_table", self.refusal(lambda: database.prepare([*STEPS, _add_a_column, _fail])))
        database = self.use()
        database.prepare([*STEPS, _add_a_column])
        self.assertEqual(self.read(database, "select version from scheduler_schema"), [(2 + len(STEPS),)])
        self.assertNotIn("other", self.columns(database)["jobs"])

    def test_workers_of_version_5(self) -> None:
        """Workers that are online, draining or deregistered keep their records, without what was momentary."""
        self.run_sql((FIXTURES / self.of_version_5).read_text() + WORKERS_5)
        database = self.use()
        database.prepare()
        writer = Writer(database)
        self.assertEqual(writer.load_thd().workers, WORKERS)
        writer.close_thd()
        self.assertFalse({"state", "last_seen"} & set(self.columns(database)["workers"]))

    def columns(self, database: Database) -> dict[str, list[str]]:
        with closing(database.connect_thd()) as connection:
            there = inspect(connection)
            return {name: [column["name"] for column in there.get_columns(name)] for name in there.get_table_names()}

    def test_from_the_future(self) -> None:
        """A database of a later version is refused, with both versions, and not changed."""
        database = self.use()
        database.prepare()
        database.release()
        self.run_sql("update scheduler_schema set version = 99")
        ours = 1 + len(STEPS)
        self.assertEqual(
            self.refusal(lambda: self.use().prepare()),
            f"is of version 99; this program knows versions up to {ours}, so it is too old",
        )

    def test_foreign(self) -> None:
        """A database with tables of another program is refused and unchanged."""
        self.run_sql("create table jobs (title text)")
        self.assertEqual(self.refusal(lambda: self.use().prepare()), "holds tables of another program (jobs)")

    def test_without_a_version(self) -> None:
        database = self.use()
        database.prepare()
        database.release()
        self.run_sql("delete from scheduler_schema")
        self.assertIn("does not say its version", self.refusal(lambda: self.use().prepare()))


class SqliteTests(DatabaseTests, SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp()).absolute()

    def use(self) -> Database:
        return SqliteFile(str(self.file))

    def run_sql(self, statement: str) -> None:
        with closing(sqlite3.connect(self.file)) as connection:
            connection.executescript(statement)

    def test_alone(self) -> None:
        """A second scheduler is refused until the first has released the database, also through a link to the file."""
        first = self.use()
        first.prepare()
        link = self.file.with_suffix(".link")
        link.symlink_to(self.file)
        for path in (self.file, link):
            self.assertEqual(
                self.refusal(lambda path=path: SqliteFile(str(path)).prepare()),
                "is in use by a running scheduler; each needs a database of its own",
            )
        first.release()
        self.use().prepare()

    def test_for_its_owner_alone(self) -> None:
        """Other users can't read it, because it contains data of jobs."""
        os.umask(os.umask(0o022))
        self.use().prepare()
        for path in (self.file, self.file.with_name(f"{self.file.name}.lock")):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)

    def test_survives_power_loss(self) -> None:
        """A commit is on the disk when it is answered, and readers do not delay it."""
        database = self.use()
        database.prepare()
        self.assertEqual(self.read(database, "pragma synchronous"), [(2,)])
        self.assertEqual(self.read(database, "pragma journal_mode"), [("wal",)])

    def test_no_place(self) -> None:
        """A path that can't be a file of ours is refused with the reason."""
        for path, problem in {
            "/no/such/folder/x.db": "No such file or directory",
            str(Path(self.mktemp()).absolute().parent): "Is a directory",
        }.items():
            self.assertIn(problem, self.refusal(lambda path=path: SqliteFile(path).prepare()))

    def test_no_database(self) -> None:
        """A file that is no database is refused and unchanged."""
        self.file.write_bytes(b"#!/bin/sh\n" * 1000)
        self.assertEqual(self.refusal(lambda: self.use().prepare()), "can't be used: file is not a database")
        self.assertEqual(self.file.read_bytes(), b"#!/bin/sh\n" * 1000)

    def test_damaged(self) -> None:
        """A database that is damaged inside is refused before it answers anything."""
        database = self.use()
        database.prepare()
        writer = Writer(database)
        writer.write_thd([a_job(f"j-{number}") for number in range(2000)], False)
        writer.close_thd()
        database.release()
        with self.file.open("r+b") as opened:
            opened.seek(self.file.stat().st_size // 2)
            opened.write(b"\xa5" * 8192)
        problem = self.refusal(lambda: self.use().prepare())
        self.assertTrue("is damaged" in problem or "malformed" in problem, problem)

    def test_of_earlier_versions(self) -> None:
        """A database of an earlier version is read, and becomes like a new one; one of the present version is read."""
        held_1 = Loaded(HELD[:2], HELD[2:])
        for version, held in ((1, held_1), (5, HELD_5), (6, HELD_5)):
            self.setUp()
            self.run_sql((FIXTURES / f"store-{version}.sql").read_text())
            database = self.use()
            database.prepare()
            writer = Writer(database)
            self.assertEqual(writer.load_thd(), held)
            writer.close_thd()
            fresh = SqliteFile(str(Path(self.mktemp()).absolute()))
            fresh.prepare()
            self.assertEqual(self.columns(database), self.columns(fresh))

    def test_backup(self) -> None:
        """Before the first step a complete copy is made beside the file, which can replace it."""
        self.run_sql((FIXTURES / "store-1.sql").read_text())
        self.use().prepare([*STEPS, _add_a_column])
        copy = self.file.with_name(f"{self.file.name}.v1.bak")
        self.assertEqual(stat.S_IMODE(copy.stat().st_mode), 0o600)
        old = SqliteFile(str(copy))
        old.prepare()
        writer = Writer(old)
        self.assertEqual(writer.load_thd(), Loaded(HELD[:2], HELD[2:]))
        writer.close_thd()
        self.assertEqual(list(self.file.parent.glob(f"{self.file.name}*.tmp")), [])


class PostgresTests(DatabaseTests, TestCase):
    skip = postgres.why_not() or None
    of_version_5 = "store-5-postgresql.sql"

    def setUp(self) -> None:
        self.server = postgres.server()
        self.url = self.server.url()

    def use(self) -> Database:
        return PostgresServer(self.url)

    def run_sql(self, statement: str) -> None:
        self.server.sql(statement, self.url.rpartition("/")[2])

    def test_of_earlier_versions(self) -> None:
        """A database of an earlier version is read; columns that it lacks have their defaults."""
        held_1 = Loaded(HELD_5.jobs, (a_worker(features=frozenset()),))
        for lacking, held in (((), HELD_5), ((VERSION_2, VERSION_3, VERSION_4, VERSION_5), held_1)):
            self.url = self.server.url()
            self.run_sql((FIXTURES / "store-5-postgresql.sql").read_text())
            if lacking:
                self.run_sql("delete from idempotency_keys where removed_at is not null")
                self.run_sql("update scheduler_schema set version = 1")
            for version in lacking:
                for table, columns in version.items():
                    for column in columns:
                        self.run_sql(f"alter table {table} drop column {column}")
            database = self.use()
            database.prepare()
            writer = Writer(database)
            self.assertEqual(writer.load_thd(), held)
            writer.close_thd()
            database.release()

    def test_alone(self) -> None:
        """A second scheduler is refused until the session of the first has ended."""
        first = self.use()
        first.prepare()
        with closing(first.connect_thd()):
            self.assertEqual(
                self.refusal(lambda: self.use().prepare()),
                "is in use by a running scheduler; each needs a database of its own",
            )
        self.use().prepare()

    def test_beside_others(self) -> None:
        """Tables with other names are ignored."""
        self.run_sql("create table invoices (id int)")
        self.use().prepare()

    def test_no_server(self) -> None:
        """A server that can't be reached is refused with the driver's message, in one line."""
        url = f"postgresql+psycopg://me:secret@127.0.0.1:{self.server.port}/none"
        self.assertIn("can't be used: ", self.refusal(lambda: prepare(url)))
        self.assertIn("can't be used: ", self.refusal(lambda: prepare("postgresql+psycopg://me:secret@127.0.0.1:1/x")))

    def test_no_driver(self) -> None:
        """Without the driver the refusal names the package to install."""
        modules = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "psycopg"}
        self.addCleanup(sys.modules.update, modules)
        sys.modules["psycopg"] = None  # type: ignore[assignment]
        self.assertIn("pip install 'scheduler-gateway[postgresql]'", self.refusal(lambda: prepare(self.url)))
