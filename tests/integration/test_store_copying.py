"""Copying a database into another one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Invalid
from scheduler.interfaces import Loaded
from scheduler.model import JobSpec, JobState
from scheduler.security.audit import Act, Entry, verify
from scheduler.store import copying
from scheduler.store.copying import copy, main
from scheduler.store.databases import prepare
from scheduler.store.writer import Writer
from tests import postgres
from tests.integration.test_databases import HELD
from tests.unit.cluster.values import a_job, a_token


class CopyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.source = self.new_file()
        database = self.use(self.source)
        writer = Writer(database)
        writer.write_thd([*HELD, a_token()], False)
        writer.close_thd()
        database.release()

    def new_file(self) -> str:
        return f"sqlite:///{Path(self.mktemp()).absolute()}"

    def use(self, url: str):
        database = prepare(url)
        assert database is not None
        return database

    def held(self, url: str) -> Loaded:
        database = self.use(url)
        writer = Writer(database)
        loaded = writer.load_thd()
        writer.close_thd()
        database.release()
        return loaded

    def test_to_a_file(self) -> None:
        """The copy has all records of the original, which is unchanged."""
        target = self.new_file()
        self.assertEqual(copy(self.source, target), self.held(self.source))
        self.assertEqual(self.held(target), Loaded(HELD[:2], HELD[2:], tokens=(a_token(),)))

    def test_audit(self) -> None:
        """The copy has the whole audit, which goes on there; a database with an audit alone is not empty."""
        self.patch(copying, "ENTRIES_PER_TRANSACTION", 3)
        acts = [Act(float(number), "token:ci", "start", f"j-{number}") for number in range(7)]
        audit_alone = self.new_file()
        written = self.with_acts(self.source, acts)
        self.with_acts(audit_alone, acts)
        self.assertRaises(Invalid, copy, self.source, audit_alone)
        target = self.new_file()
        copy(self.source, target)
        more = self.with_acts(target, [Act(9.0, "token:ci", "stop")])
        self.assertEqual((more[:-1], more[-1].seq), (written, 8))
        self.assertTrue(verify(more[::-1]).intact)

    def with_acts(self, url: str, acts: Sequence[Act]) -> list[Entry]:
        """Save acts in a database; all its entries."""
        database = self.use(url)
        writer = Writer(database)
        writer.load_thd()
        writer.write_thd(acts)
        entries = writer.entries_after_thd(0, 100)
        writer.close_thd()
        database.release()
        return entries

    def test_large_arguments(self) -> None:
        """Jobs of which only a part is loaded are copied completely, a few in each transaction."""
        self.patch(copying, "CHARACTERS_PER_TRANSACTION", 10_000)
        specs = {f"large-{number}": JobSpec(command="x", args=(f"{number}" * 9000,)) for number in range(5)}
        database = self.use(self.source)
        writer = Writer(database)
        writer.write_thd([a_job(job_id, JobState.FAILED, spec=spec) for job_id, spec in specs.items()], False)
        writer.close_thd()
        database.release()
        target = self.new_file()
        copy(self.source, target)
        writer = Writer(self.use(target))
        self.addCleanup(writer.close_thd)
        self.assertEqual(writer.read_specs_thd(list(specs)), specs)

    def test_to_a_server_and_back(self) -> None:
        """A copy between the two kinds of database loses nothing."""
        target = postgres.server().url()
        copy(self.source, target)
        back = self.new_file()
        copy(target, back)
        self.assertEqual(self.held(back), self.held(self.source))

    test_to_a_server_and_back.skip = postgres.why_not() or None

    def test_refused(self) -> None:
        """A target with data is refused, and so is a source that a scheduler uses."""
        self.assertEqual(self.assertRaises(Invalid, copy, self.source, self.source).field, "TO")
        target = self.new_file()
        copy(self.source, target)
        self.assertIn("must hold nothing yet", str(self.assertRaises(SystemExit, main, [self.source, target])))
        self.addCleanup(self.use(self.source).release)
        refused = self.assertRaises(SystemExit, main, [self.source, self.new_file()])
        self.assertIn("FROM: is in use by a running scheduler", str(refused))
        self.assertEqual(self.assertRaises(Invalid, copy, "memory:", target).field, "FROM")

    def test_mistyped(self) -> None:
        """A missing source is not created, and a file that is no database is refused in one line."""
        absent = self.new_file()
        refused = self.assertRaises(SystemExit, main, [absent, self.new_file()])
        self.assertIn("FROM: must be there", str(refused))
        self.assertFalse(Path(absent.removeprefix("sqlite:///")).exists())
        for wrong in ("nonsense", "mysql://host/db", "sqlite://", "postgresql+psycopg://"):
            refused = self.assertRaises(SystemExit, main, [self.source, wrong])
            self.assertIn('TO: must be "sqlite:////FILE"', str(refused))
