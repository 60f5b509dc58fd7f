"""The contract of a store's audit."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from sqlalchemy import delete, update
from twisted.logger import capturedLogs, formatEvent

from scheduler.errors import StoreFailed
from scheduler.interfaces import Loaded
from scheduler.model import Ref
from scheduler.security.audit import Act, Anchor, AuditFilter, Entry, chained, verify
from scheduler.store import entries as rows
from scheduler.store.schema import AUDIT
from scheduler.store.writer import Writer
from tests.unit.cluster.values import a_job

ALL = AuditFilter()


def an_act(number: int, **changes: Any) -> Act:
    facts: dict[str, Any] = {"who": "token:ci", "action": "start", "origin": "10.0.0.1", "uid": 1000}
    return Act(1000.0 + number, **{**facts, "target": f"j-{number}", "details": {"args": ["ä\n"]}, **changes})


class AuditContract:
    """Mixed into the contract of stores."""

    store: Any

    async def again(self) -> Loaded:
        raise NotImplementedError

    async def entries(self) -> list[Entry]:
        """All entries, in order."""
        found: list[Entry] = []
        before: int | None = None
        while True:
            page = await self.store.read_audit(ALL, 3, before)
            found += page.entries
            before = page.before
            if before is None:
                return found[::-1]

    async def test_acts_become_a_chain(self) -> None:
        """Acts are numbered in the order of their saves, each after the hash of the one before, by all processes."""
        await self.store.load()
        acts = [an_act(number) for number in range(1, 6)]
        await self.store.save([acts[0], a_job(), acts[1]])
        await self.store.save([acts[2]])
        loaded = await self.again()
        self.assertEqual((loaded.jobs, loaded.audit_head), ((a_job(),), chained(Anchor(), acts)[2].anchor))
        await self.store.save([acts[3]])
        await self.store.save([acts[4]])
        found = await self.entries()
        self.assertEqual(found, chained(Anchor(), acts))
        self.assertTrue(verify(found[::-1], found[2].anchor).intact)

    async def test_entries_are_heard(self) -> None:
        """The entries of a commit are heard before its saves are answered; the next process begins after them."""
        await self.store.load()
        heard: list[Any] = []
        self.store.on_entries(heard.extend)
        saves = [self.store.save([an_act(number)]) for number in (1, 2)]
        for number, save in enumerate(saves):
            save.addCallback(lambda _, number=number: heard.append(number))
        for save in saves:
            await save
        self.assertEqual([each.act for each in heard[:2]], [an_act(1), an_act(2)])
        self.assertEqual(heard[2:], [0, 1])

    async def test_saved_again(self) -> None:
        """An act that is saved again has one entry, also within one save."""
        await self.store.load()
        await self.store.save([an_act(1), an_act(2), an_act(1)])
        await self.store.save([an_act(2), an_act(3)])
        self.assertEqual([entry.act for entry in await self.entries()], [an_act(n) for n in (1, 2, 3)])

    async def test_pages(self) -> None:
        """Entries are read newest first, those that match, from a number down."""
        await self.store.load()
        others = [an_act(4, who="local:root"), an_act(5, action="stop")]
        await self.store.save([*(an_act(number) for number in (1, 2, 3)), *others, an_act(6)])

        async def numbers(limit: int = 10, before: int | None = None, **which: Any) -> list[int]:
            page = await self.store.read_audit(AuditFilter(**which), limit, before)
            return [entry.seq for entry in page.entries]

        self.assertEqual(await numbers(), [6, 5, 4, 3, 2, 1])
        self.assertEqual(await numbers(2, 4), [3, 2])
        self.assertEqual(await numbers(before=1), [])
        self.assertEqual(await numbers(before=99), [6, 5, 4, 3, 2, 1])
        self.assertEqual(await numbers(who="local:root"), [4])
        self.assertEqual(await numbers(action="start", before=4), [3, 2, 1])
        self.assertEqual(await numbers(since=1003.0, until=1005.0), [4, 3])
        self.assertEqual(await numbers(who="nobody"), [])
        self.assertIsNone((await self.store.read_audit(ALL, 10)).before)

    async def test_empty_audit(self) -> None:
        """A new store has no entries, and an anchor before the first."""
        self.assertEqual((await self.store.load()).audit_head, Anchor())
        self.assertEqual(await self.entries(), [])


class SqlAuditContract(AuditContract):
    """The contract of an audit in a database that others can write to."""

    database: Any

    def change(self, statement: Any) -> None:
        """Execute a statement like another program."""
        with self.database.engine.begin() as connection:
            connection.execute(statement)

    async def test_rows_removed_meanwhile(self) -> None:
        """If somebody removes the last rows, the next entry does not close the gap."""
        await self.store.load()
        await self.store.save([an_act(number) for number in (1, 2, 3)])
        self.change(delete(AUDIT).where(AUDIT.c.seq > 1))
        await self.store.save([an_act(4)])
        found = await self.entries()
        self.assertEqual([entry.seq for entry in found], [1, 4])
        self.assertEqual(verify(found[::-1]).why, "rows 2 to 3 missing")

    async def test_row_changed(self) -> None:
        """A row that somebody changes is found."""
        await self.store.load()
        await self.store.save([an_act(number) for number in (1, 2, 3)])
        for values in ({"who": "token:evil"}, {"details": "{"}, {"uid": None}, {"hash": "0" * 64}, {"time": 1.0}):
            found = (await self.entries())[1]
            self.change(update(AUDIT).where(AUDIT.c.seq == 2).values(values))
            self.assertEqual(verify((await self.entries())[::-1]).broken, 2)
            original = {name: getattr(found.act, name) for name in ("who", "details", "uid", "time")}
            self.change(update(AUDIT).where(AUDIT.c.seq == 2).values(hash=found.hash, **original))
        self.assertTrue(verify((await self.entries())[::-1]).intact)

    async def test_few_rows_in_a_read(self) -> None:
        """A read looks at a bounded number of rows; one that finds no row so young ends the list."""
        self.patch(rows, "EXAMINED_PER_READ", 2)
        await self.store.load()
        await self.store.save([an_act(number, who=f"token:{number}") for number in range(1, 8)])
        page = await self.store.read_audit(AuditFilter(who="token:1"), 10)
        self.assertEqual((page.entries, page.before), ((), 6))
        page = await self.store.read_audit(AuditFilter(since=1007.0), 10)
        self.assertEqual(([entry.seq for entry in page.entries], page.before), ([7], 6))
        self.assertIsNone((await self.store.read_audit(AuditFilter(since=1007.0), 10, 6)).before)
        page = await self.store.read_audit(AuditFilter(who="token:1"), 10, 3)
        self.assertEqual(([entry.seq for entry in page.entries], page.before), ([1], None))

    async def test_audit_set_back(self) -> None:
        """Rows that a database lacks because it was set back are written again, before those of a pending save."""
        await self.in_use()
        await self.store.verify()
        await self.store.save([an_act(number) for number in (1, 2, 3)])
        self.change(delete(AUDIT).where(AUDIT.c.seq > 1))
        await self.set_back()
        await self.store.save([an_act(4), Ref("job", "j-9")])
        self.assertEqual(await self.entries(), chained(Anchor(), [an_act(n) for n in (1, 2, 3, 4)]))

    async def test_audit_of_another_timeline(self) -> None:
        """If the last row is of another chain, the audit goes on after it, and the log says that rows are lost."""
        await self.in_use()
        await self.store.verify()
        await self.store.save([an_act(number) for number in (1, 2, 3)])
        head = (await self.entries())[-1].anchor
        (other,) = chained(Anchor(), [evolve(an_act(1), who="token:before")])
        self.change(delete(AUDIT).where(AUDIT.c.seq > 1))
        self.change(update(AUDIT).values(who="token:before", hash=other.hash))
        await self.set_back()
        with capturedLogs() as logged:
            await self.store.save([an_act(4)])
        told = [text for text in map(formatEvent, logged) if text.startswith("the audit was set back")]
        self.assertEqual(
            told, [f"the audit was set back from {head} to {other.anchor}: the log alone has the entries in between"]
        )
        found = await self.entries()
        self.assertEqual([entry.seq for entry in found], [1, 2])
        self.assertTrue(verify(found[::-1]).intact)
        self.assertFalse(verify(found[::-1], head).intact)


class TwoWriters:
    """Tests of a file that a second writer can change. On a server, only one session may write."""

    database: Any

    async def test_both_or_none(self) -> None:
        """If an entry can't be written, neither is the change that it belongs to; afterwards the chain goes on."""
        writer = Writer(self.database)
        self.addCleanup(writer.close_thd)
        writer.load_thd()
        other = Writer(self.database)
        other.load_thd()
        other.write_thd([an_act(1)])
        other.close_thd()
        self.assertRaises(StoreFailed, writer.write_thd, [a_job(), an_act(2)])
        self.assertEqual(writer.load_thd().jobs, ())
        writer.write_thd([a_job(), an_act(2)])
        self.assertEqual([entry.seq for entry in writer.entries_after_thd(0, 10)], [1, 2])

    async def test_durable_though_failed(self) -> None:
        """An act whose transaction seemed to fail, and is durable, has one entry; the chain goes on after it."""
        writer, same = Writer(self.database), Writer(self.database)
        self.addCleanup(writer.close_thd)
        writer.load_thd()
        same.load_thd()
        same.write_thd([an_act(1), an_act(2)])
        same.close_thd()
        self.assertRaises(StoreFailed, writer.write_thd, [an_act(1), an_act(2)])
        written = writer.write_thd([an_act(3)])
        self.assertEqual([entry.act for entry in written.entries], [an_act(n) for n in (1, 2, 3)])
        writer.write_thd([an_act(2), an_act(4)])
        found = writer.entries_after_thd(0, 10)
        self.assertEqual(found, chained(Anchor(), [an_act(n) for n in (1, 2, 3, 4)]))
