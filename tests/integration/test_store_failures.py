"""Databases that fail: the answers meanwhile, and the store's recovery by itself."""

from __future__ import annotations

import signal
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from scheduler.errors import StoreFailed
from scheduler.model import JobSpec
from scheduler.store.databases import Database, PostgresServer, SqliteFile
from scheduler.store.sql import SqlStore
from tests import postgres
from tests.unit.cluster.values import a_job


class StoreCase(TestCase):
    timeout = 90

    def open(self, database: Any, **limits: Any) -> SqlStore:
        database.prepare()
        store = SqlStore(reactor, database, **limits)
        store.startService()
        self.addCleanup(store.stopService)
        return store

    async def until_saved(self, store: SqlStore) -> None:
        """Save repeatedly until it succeeds."""
        while True:
            try:
                return await store.save([a_job("j-after")])
            except StoreFailed:
                await deferLater(reactor, 0.1)

    async def refusal(self, saved: Deferred[None]) -> str:
        failure: Any = await self.assertFailure(saved, StoreFailed)
        return str(failure)


class HeldDatabase(SqliteFile):
    """``release_thd`` lets the waiting thread connect."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.go_on = threading.Event()
        self.go_on.set()
        self.interrupts = 0

    def connect_thd(self) -> Connection:
        self.go_on.wait(60)
        return super().connect_thd()

    def interrupt(self) -> None:
        self.interrupts += 1


class GroupTests(StoreCase):
    def setUp(self) -> None:
        self.database = HeldDatabase(str(Path(self.mktemp()).absolute()))
        self.addCleanup(self.database.go_on.set)

    async def test_one_commit_for_all_that_waits(self) -> None:
        """Saves of one turn share a transaction, and all that arrive while it is written share the next."""
        store = self.open(self.database)
        commits: list[Connection] = []
        event.listen(self.database.engine, "commit", commits.append)
        self.database.go_on.clear()
        saves = [store.save([a_job(f"j-{number}")]) for number in range(250)]
        await deferLater(reactor, 0)
        saves += [store.save([a_job(f"j-{number}")]) for number in range(250, 500)]
        self.database.go_on.set()
        await gatherResults(saves)
        self.assertEqual(len(commits), 2)
        self.assertEqual(len((await store.load()).jobs), 500)

    async def test_bounded(self) -> None:
        """The number of waiting saves is limited; further ones fail at once, and the store continues."""
        store = self.open(self.database, most_waiting=3)
        self.database.go_on.clear()
        saves = [store.save([a_job(f"j-{number}")]) for number in range(6)]
        for saved in saves[3:]:
            self.assertIn("3 changes wait", await self.refusal(saved))
        self.database.go_on.set()
        await gatherResults(saves[:3])
        await store.save([a_job()])

    async def test_no_answer(self) -> None:
        """A transaction that misses its deadline fails with all waiting saves, and later ones fail until its thread is
        back.
        """
        store = self.open(self.database, deadline=0.2)
        self.database.go_on.clear()
        saves = [store.save([a_job("j-1")]), store.save([a_job("j-2")])]
        for saved in saves:
            self.assertIn("did not answer within 0.2 s", await self.refusal(saved))
        self.assertIn("did not answer", await self.refusal(store.save([a_job("j-3")])))
        self.assertEqual(self.database.interrupts, 1)
        self.database.go_on.set()
        await self.until_saved(store)

    async def test_no_space(self) -> None:
        """On a full disk saves fail and reads succeed; with space again saves succeed."""
        pages = 40
        event.listen(self.database.engine, "connect", lambda raw, _: raw.execute(f"pragma max_page_count = {pages}"))
        store = self.open(self.database)
        await store.save([a_job("j-small")])
        big = a_job("j-big", spec=JobSpec(stdin=bytes(1 << 20)))
        self.assertIn("database or disk is full", await self.refusal(store.save([big])))
        self.assertEqual([job.id for job in (await store.load()).jobs], ["j-small"])
        self.assertIn("database or disk is full", await self.refusal(store.save([big])))
        pages = 4000
        await store.save([big])
        self.assertEqual(len((await store.load()).jobs), 2)

    async def test_somebody_else_writes(self) -> None:
        """Saves fail while another program locks the file for too long."""
        store = self.open(self.database)
        with closing(self.database.engine.connect()) as blocker:
            event.listen(self.database.engine, "connect", lambda raw, _: raw.execute("pragma busy_timeout = 1"))
            blocker.exec_driver_sql("select 1")  # begins, and takes the write lock
            self.assertIn("database is locked", await self.refusal(store.save([a_job()])))
        await store.save([a_job()])


class PostgresTests(StoreCase):
    skip = postgres.why_not() or None

    def setUp(self) -> None:
        self.server = postgres.server()
        self.url = self.server.url()

    async def test_frozen(self) -> None:
        """While the server is frozen saves fail in time, and the store uses it again as soon as it continues."""
        store = self.open(PostgresServer(self.url), deadline=1.0)
        await store.save([a_job("j-1")])
        self.addCleanup(self.server.signal, signal.SIGCONT)
        self.server.signal(signal.SIGSTOP)
        saves = [store.save([a_job("j-2")]), store.save([a_job("j-3")])]
        for saved in saves:
            self.assertIn("did not answer within 1 s", await self.refusal(saved))
        self.server.signal(signal.SIGCONT)
        await self.until_saved(store)
        self.assertIn("j-after", [job.id for job in (await store.load()).jobs])

    async def test_nothing_tells_whether_it_works(self) -> None:
        """After a failure even a save of nothing succeeds only if something could be written."""
        store = self.open(PostgresServer(self.url))
        await store.save([])
        name = self.url.rpartition("/")[2]
        self.server.sql(f"alter database {name} set default_transaction_read_only = on")
        self.server.sql(f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")
        for records in ([a_job()], []):
            self.assertIn("read-only", await self.refusal(store.save(records)))
        self.server.sql(f"alter database {name} reset default_transaction_read_only")
        await store.save([])

    async def test_killed(self) -> None:
        """While the server is down saves fail; once it is back they succeed, with everything ever committed."""
        store = self.open(PostgresServer(self.url))
        await store.save([a_job("j-1")])
        self.server.kill()
        self.addCleanup(lambda: self.server.process.poll() is not None and self.server.start())
        for _ in range(2):
            self.assertIn("refused", await self.refusal(store.save([a_job("j-2")])))
        self.server.start()
        await self.until_saved(store)
        self.assertEqual({job.id for job in (await store.load()).jobs}, {"j-1", "j-after"})

    async def test_restarted_at_rest(self) -> None:
        """A restart of the server between two saves fails neither."""
        store = self.open(PostgresServer(self.url))
        await store.save([a_job("j-1")])
        self.server.kill()
        self.server.start()
        await store.save([a_job("j-2")])
        self.assertEqual(len((await store.load()).jobs), 2)

    async def test_the_lock_goes_with_the_session(self) -> None:
        """A scheduler that lost its session writes nothing while another has the database, and then again."""
        store = self.open(PostgresServer(self.url), deadline=30.0)
        await store.save([a_job("j-1")])
        other = PostgresServer(self.url)
        self.take_over(other)
        with closing(self.took):
            self.assertIn("another running scheduler has the database", await self.refusal(store.save([a_job("j-2")])))
        await self.until_saved(store)
        self.assertEqual({job.id for job in (await store.load()).jobs}, {"j-1", "j-after"})

    def take_over(self, other: Database) -> None:
        self.server.sql(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
            " and pid <> pg_backend_pid()",
            self.url.rpartition("/")[2],
        )
        self.took = other.connect_thd()

    async def test_a_session_believed_alive(self) -> None:
        """The lock of a session that only the server believes alive is taken back."""
        database = PostgresServer(self.url)
        await self.open(database).save([a_job("j-1")])
        again = SqlStore(reactor, database)  # as if the connection had broken, and the server had not noticed
        again.startService()
        self.addCleanup(again.stopService)
        await again.save([a_job("j-2")])
