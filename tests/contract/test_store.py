"""The contract of every store: in memory, in a SQLite file, on a PostgreSQL server, and simulated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from threading import Event
from typing import Any

from attrs import evolve, fields
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from scheduler.commits import next_timeline
from scheduler.errors import StoreFailed
from scheduler.interfaces import IStore, Loaded, Record
from scheduler.model import SPEC_KEPT_MAX_CHARACTERS, Job, JobSpec, JobState, Ref, RemovedJob, Worker
from scheduler.request_keys import RequestKey
from scheduler.security.audit import Anchor, chained
from scheduler.security.token import Token
from scheduler.store.databases import prepare
from scheduler.store.memory import MemoryStore
from scheduler.store.rows import NO_SPEC
from scheduler.store.schema import JOBS, REMOVED, SPECS, TOKENS, WORKERS
from scheduler.store.sql import SqlStore, make_store
from scheduler.store.writer import Writer
from scheduler.terms import Target
from tests import postgres
from tests.contract.any_records import ANY_JOBS, ANY_REMOVED, ANY_TOKENS, ANY_WORKERS, LARGE
from tests.contract.simulated import SimulatedCase, StoreOfProcess
from tests.contract.store_audit import AuditContract, SqlAuditContract, TwoWriters, an_act
from tests.contract.store_set_back import SetBackContract
from tests.simulation.store import Backup, Database
from tests.unit.cluster.values import a_job, a_token, a_worker


class StoreContract(AuditContract):
    """Mixed into a ``TestCase`` that has ``make``."""

    url: str

    async def setUp(self) -> None:
        self.url = self.new_url()
        self.store: Any = self.open()
        self.store.startService()
        self.addCleanup(lambda: self.store.stopService())  # noqa: PLW0108 - of the store there is by then

    def new_url(self) -> str:
        raise NotImplementedError

    def open(self) -> Any:
        return make_store(reactor, prepare(self.url))

    async def again(self) -> Loaded:
        """The records for the next process."""
        if not isinstance(self.store, MemoryStore):
            await self.store.stopService()
            self.store = self.open()
            self.store.startService()
        loaded: Loaded = await self.store.load()
        return loaded

    def test_interface(self) -> None:
        """The store provides its whole interface."""
        self.assertTrue(verifyObject(IStore, self.store))

    async def test_empty(self) -> None:
        """A new store holds nothing."""
        self.assertEqual(await self.store.load(), Loaded())

    async def test_saved_is_loaded(self) -> None:
        """Jobs, workers, the rests of removed jobs and tokens come back as they were saved."""
        job, removed = (
            a_job(key=RequestKey("k", "f" * 64, "token:ci")),
            RemovedJob("j-0", 1.0, RequestKey("l", "f" * 64)),
        )
        await self.store.save([job, a_worker(), removed, a_token(expires_at=9.5)])
        self.assertEqual(
            await self.again(), Loaded((job,), (a_worker(),), (removed,), tokens=(a_token(expires_at=9.5),))
        )

    async def test_the_last_one_counts(self) -> None:
        """A record saved again replaces the one before, also within one save."""
        ended = a_job(state=JobState.SUCCEEDED)
        removed = RemovedJob("j-0", 1.0)
        used = a_token(last_used_at=3.0)
        await self.store.save([a_job(), a_token(), removed, ended, evolve(removed, removed_at=2.0), used])
        await self.store.save([evolve(a_worker(), draining=True)])
        await self.store.save([a_worker()])
        self.assertEqual(await self.again(), Loaded((ended,), (a_worker(),), (RemovedJob("j-0", 2.0),), tokens=(used,)))

    async def test_removed(self) -> None:
        """A removed record is gone; removing an unknown one does nothing."""
        await self.store.save([a_job(), a_worker(), RemovedJob("j-0", 1.0), a_token()])
        gone = [Ref("job", "j-1"), Ref("worker", "w-1"), Ref("removed", "j-0"), Ref("token", "abcd2345")]
        await self.store.save(gone)
        await self.store.save(gone)
        self.assertEqual(await self.again(), Loaded())

    async def test_removed_and_back(self) -> None:
        """A removed id can be used again, also within one save."""
        await self.store.save([a_job(), a_job("j-2")])
        other = a_job(spec=JobSpec(command="other"))
        await self.store.save([Ref("job", "j-1"), other, Ref("job", "j-2")])
        self.assertEqual((await self.again()).jobs, (other,))

    async def test_a_spec_is_kept_as_first_saved(self) -> None:
        """A job's spec is written once, whatever a later record leaves out."""
        job = a_job(spec=JobSpec(command="cat", stdin=b"\xff\x00", script=b"#!"))
        await self.store.save([job])
        await self.store.save([evolve(job, spec=job.spec.trimmed(), promised=True)])
        self.assertEqual((await self.again()).jobs, (evolve(job, promised=True),))

    async def test_an_ended_job_comes_back_light(self) -> None:
        """The input of an ended job is not loaded; that of a job that may still be started is."""
        spec = JobSpec(command="cat", stdin=b"in")
        done, queued = a_job("j-1", JobState.FAILED, spec=spec), a_job("j-2", JobState.QUEUED, spec=spec)
        await self.store.save([done, queued])
        self.assertEqual((await self.again()).jobs, (evolve(done, spec=spec.trimmed()), queued))

    async def test_large_arguments(self) -> None:
        """Large arguments of an ended job are not loaded, and can be read."""
        done, runs = a_job("j-1", JobState.FAILED, spec=LARGE), a_job("j-2", spec=LARGE)
        await self.store.save([done, runs])
        loaded = await self.again()
        self.assertEqual((loaded.jobs[0].spec.args, dict(loaded.jobs[0].spec.env)), ((), {}))
        self.assertEqual(loaded.jobs, (done.trimmed(), runs))
        self.assertGreater(loaded.jobs[0].spec.stored, SPEC_KEPT_MAX_CHARACTERS)
        whole = evolve(LARGE, stdin=None)
        specs = await self.store.read_specs({"j-1", "j-2"})
        self.assertEqual(dict(specs), {"j-1": whole, "j-2": whole})
        self.assertEqual([spec.stored for spec in specs.values()], [0, 0])

    async def test_read_of_none(self) -> None:
        """A missing or removed spec is left out; a read for no jobs is empty."""
        await self.store.save([a_job(), a_job("j-2")])
        await self.store.save([Ref("job", "j-2")])
        self.assertEqual(list(await self.store.read_specs(["j-1", "j-2", "j-3"])), ["j-1"])
        self.assertEqual(dict(await self.store.read_specs([])), {})

    async def test_a_part_of_a_spec(self) -> None:
        """A job saved with only a part of its spec keeps the first one."""
        job = a_job(spec=LARGE)
        await self.store.save([job])
        await self.store.save([evolve(job, state=JobState.FAILED, finished_at=1.0).trimmed()])
        await self.again()
        specs = await self.store.read_specs(["j-1"])
        self.assertEqual(specs["j-1"].args, LARGE.args)

    async def test_in_the_order_of_calls(self) -> None:
        """Saves made at once are all answered, in order, and the last one counts."""
        answered: list[int] = []
        saves: list[Deferred[None]] = []
        for number in range(50):
            saved = self.store.save([a_job(stdout_bytes=number)])
            saves.append(saved.addCallback(lambda _, number=number: answered.append(number)))
        await gatherResults(saves)
        self.assertEqual(answered, list(range(50)))
        self.assertEqual((await self.again()).jobs, (a_job(stdout_bytes=49),))

    async def test_a_save_of_nothing_waits(self) -> None:
        """A save of nothing is answered after all saves before it."""
        answered: list[str] = []
        self.store.save([a_job()]).addCallback(lambda _: answered.append("job"))
        await self.store.save([])
        self.assertEqual(answered, ["job"])

    async def test_stopping_saves_what_waits(self) -> None:
        """Pending saves are written before the store stops."""
        for number in range(20):
            self.store.save([a_job(f"j-{number:02}")])
        self.assertEqual([job.id for job in (await self.again()).jobs], [f"j-{number:02}" for number in range(20)])

    async def test_the_count_stands_still_at_first(self) -> None:
        """A store counts no commits until it is told to, so an interrupted start leaves no trace."""
        await self.store.load()
        await self.store.save([a_job()])
        self.assertEqual((self.store.commit_count, (await self.again()).commit_count), (0, 0))

    async def test_counted(self) -> None:
        """Each commit has a higher count, from which the next process continues; a save of nothing is no commit."""
        await self.store.load()
        await self.store.count_commits()
        counts = []
        for records in ([a_job()], [], [a_worker()], [Ref("job", "j-1")]):
            await self.store.save(records)
            counts.append(self.store.commit_count)
        self.assertEqual(counts, [2, 2, 3, 4])
        loaded = await self.again()
        self.assertEqual((loaded.commit_count, loaded.set_back_to, self.store.commit_count), (4, None, 4))

    async def test_a_new_timeline(self) -> None:
        """A store that was set back continues above every count that may be known, and records its old count."""
        await self.store.load()
        await self.store.count_commits(7, set_back_to=3)
        await self.store.save([a_job()])
        loaded = await self.again()
        self.assertEqual((loaded.commit_count, loaded.set_back_to), (next_timeline(7) + 1, 3))

    async def test_verified(self) -> None:
        """Verifying a store that was not set back changes nothing."""
        await self.store.load()
        await self.store.count_commits()
        await self.store.save([a_job()])
        await self.store.verify()
        self.assertEqual(((await self.again()).jobs, self.store.commit_count), ((a_job(),), 2))

    async def test_text_no_database_takes(self) -> None:
        """A NUL, or half a surrogate pair, in a worker's texts can't prevent a save."""
        await self.store.save([a_job(reason="a\0\ud800b"), a_worker(version="\0")])
        self.assertEqual(len((await self.again()).jobs), 1)


class MemoryTests(StoreContract, TestCase):
    def new_url(self) -> str:
        return "memory:"


class SimulatedTests(SetBackContract, StoreContract, SimulatedCase):
    async def setUp(self) -> None:
        SimulatedCase.setUp(self)
        self.database = Database()
        await super().setUp()

    def new_url(self) -> str:
        return ""

    def open(self) -> StoreOfProcess:
        return StoreOfProcess(self.process("scheduler"), self.database, self.trace)

    async def set_back(self) -> None:
        kept = Loaded(self.kept[:2], self.kept[2:3], self.kept[3:], self.kept_commits)  # type: ignore[arg-type]
        self.database.restore(Backup(kept, self.kept_transactions))


class SqlContract(SetBackContract, SqlAuditContract, StoreContract):
    def open(self) -> SqlStore:
        self.database = prepare(self.url)
        store: SqlStore = make_store(reactor, self.database)
        return store

    async def set_back(self) -> None:
        """Set the database back like another program; the store does not know."""
        other = Writer(self.database)
        other.restore_thd([Ref("job", "j-3"), *self.kept])
        for _ in range(self.kept_transactions):
            other.put_counts_thd(self.kept_commits, None)
        other.close_thd()

    async def test_a_job_without_its_spec(self) -> None:
        """A job without its spec is shown, and is not started any more; a spec alone is no job."""
        running, queued = a_job("j-2", JobState.RUNNING, reason="why", promised=True), a_job("j-3", JobState.QUEUED)
        await self.store.save([a_job(), running, queued])
        with self.database.engine.begin() as connection:
            connection.execute(delete(SPECS).where(SPECS.c.job_id != "j-1"))
            connection.execute(delete(JOBS).where(JOBS.c.id == "j-1"))
        loaded = await self.again()
        self.assertEqual(
            {job.id: (job.state, job.spec, job.reason) for job in loaded.jobs},
            {"j-2": (JobState.RUNNING, JobSpec(), f"why; {NO_SPEC}"), "j-3": (JobState.FAILED, JobSpec(), NO_SPEC)},
        )
        self.assertFalse(any(job.promised for job in loaded.jobs))
        await self.store.save([evolve(loaded.jobs[0], reason=None), loaded.jobs[1]])  # no spec is made up by this save
        reasons = {job.id: job.reason for job in (await self.again()).jobs}
        self.assertEqual(reasons, {loaded.jobs[0].id: NO_SPEC, loaded.jobs[1].id: loaded.jobs[1].reason})

    async def test_counted_without_returning(self) -> None:
        """A database that can't return updated values, like SQLite before 3.35, is queried for them."""
        self.patch(type(self.database.engine.dialect), "update_returning", False)
        await self.test_counted()
        await self.test_set_back_at_rest()

    async def test_a_read_that_hangs(self) -> None:
        """A read that misses its deadline fails, and so does one that waits for it; a save succeeds afterwards."""
        await self.store.stopService()
        self.store = SqlStore(reactor, prepare(self.url), deadline=1.0)
        self.store.startService()
        await self.store.save([a_job()])
        going_on = Event()
        read_thd = Writer.read_specs_thd

        def hang_thd(writer: Writer, job_ids: Sequence[str]) -> Any:
            going_on.wait(60)
            return read_thd(writer, job_ids)

        self.patch(Writer, "read_specs_thd", hang_thd)
        reads = [self.store.read_specs(["j-1"]) for _ in range(2)]
        for read in reads:
            await self.assertFailure(read, StoreFailed)
        going_on.set()
        await self.store.save([a_job("j-2")])
        self.assertEqual(list(await self.store.read_specs(["j-2"])), ["j-2"])

    def test_every_field_has_its_column(self) -> None:
        key = {"key", "request_key", "request_fingerprint", "request_principal"}
        for record, table, beside in (
            (Job, JOBS, {"spec", *key}),
            (JobSpec, SPECS, {"job_id", "stored"}),
            (Worker, WORKERS, set()),
            (RemovedJob, REMOVED, key),
            (Token, TOKENS, set()),
        ):
            names = {field.name for field in fields(record)}
            self.assertEqual(names ^ {column.name for column in table.c}, beside)
        self.assertEqual([field.name for field in fields(Target)], ["worker", "selector"])

    def test_property(self) -> None:
        """Every field of every record is loaded exactly."""
        writer = Writer(self.database)
        self.addCleanup(writer.close_thd)

        @settings(max_examples=60)
        @given(*(st.lists(each, max_size=3) for each in (ANY_JOBS, ANY_REMOVED, ANY_WORKERS, ANY_TOKENS)))
        def come_back(jobs: list[Job], removed: list[RemovedJob], workers: list[Worker], tokens: list[Token]) -> None:
            writer.write_thd([*jobs, *removed, *workers, *tokens], False)
            loaded = writer.load_thd()
            self.assertEqual({job.id: job for job in loaded.jobs}, {job.id: job.trimmed() for job in jobs})
            self.assertEqual({worker.id: worker for worker in loaded.workers}, {each.id: each for each in workers})
            self.assertEqual({each.job_id: each for each in loaded.removed}, {each.job_id: each for each in removed})
            self.assertEqual({each.id: each for each in loaded.tokens}, {each.id: each for each in tokens})
            gone: list[Record] = [each.ref for each in (*removed, *tokens)]
            gone += [Ref("job", job.id) for job in jobs] + [Ref("worker", worker.id) for worker in workers]
            writer.write_thd(gone, False)
            self.assertEqual(writer.load_thd(), Loaded())

        come_back()


class SqliteTests(TwoWriters, SqlContract, TestCase):
    def new_url(self) -> str:
        return f"sqlite:///{os.path.abspath(self.mktemp())}"


class PostgresTests(SqlContract, TestCase):
    skip = postgres.why_not() or None

    def new_url(self) -> str:
        return postgres.server().url()

    def test_entries_after_a_broken_connection(self) -> None:
        """A transaction that is made again, because its connection broke when it was durable, adds no entry twice."""
        writer, same = Writer(self.database), Writer(self.database)
        writer.load_thd()
        same.load_thd()  # it ends the session of the other
        acts = [an_act(number) for number in (1, 2, 3)]
        same.write_thd(acts[:2])
        self.assertEqual([entry.act for entry in writer.write_thd([acts[1], acts[2], acts[0]]).entries], acts)
        self.assertEqual(writer.entries_after_thd(0, 10), chained(Anchor(), acts))
        for each in (writer, same):
            each.close_thd()
