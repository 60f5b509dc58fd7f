"""The entries of the audit as rows of their table, and the chain's end as the writing thread knows it.

All functions run in the store's thread. Rows are only ever added. Their numbers are given here, inside the transaction,
which only one thread makes. The end of the chain is read once, at the load. It is not read again before each entry: if
somebody removes the last rows while the scheduler runs, the next entry must not close the gap.

There are two exceptions. After a transaction that failed, its rows may be there all the same, so they are looked for.
And if the database was set back, the lost rows are written again, as far as they are remembered (``RECENT_ENTRIES``);
otherwise the chain continues from the last row that is there.

An act that is saved again, because its save seemed to have failed, is recognized by the remembered entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select

from scheduler.security.audit import Act, Anchor, AuditFilter, AuditPage, Entry, chained
from scheduler.store.schema import AUDIT

#: Entries that are remembered.
RECENT_ENTRIES = 2000

#: Rows that one read looks at.
EXAMINED_PER_READ = 10_000

_INSERT = insert(AUDIT)


class Chain:
    """The end of the chain: ``head``, and the last entries of this process."""

    def __init__(self) -> None:
        self.head = Anchor()
        # in order
        self._recent: dict[Act, Entry] = {}
        # whether a transaction failed that may have written entries
        self._doubt = False

    def begin(self, head: Anchor) -> None:
        """Continue after ``head``, which was just read."""
        self.head = head
        self._recent.clear()

    def append(self, connection: Connection, acts: Sequence[Act]) -> Sequence[Entry]:
        """Write entries for these acts. Returns them, after those that a failed transaction had written.

        Call ``done`` once the transaction is committed, ``failed`` if it was not, or if that is not known.
        """
        if not (acts or self._doubt):
            return ()
        there = list(_read(connection, _ENTRIES.where(AUDIT.c.seq > self.head.seq))) if self._doubt else []
        known = self._recent.keys() | {entry.act for entry in there} if there else self._recent.keys()
        head = there[-1].anchor if there else self.head
        new = chained(head, (act for act in dict.fromkeys(acts) if act not in known))
        put(connection, new)
        return (*there, *new)

    def done(self, appended: Sequence[Entry]) -> None:
        """Note that a transaction is committed which appended these."""
        self._doubt = False
        if not appended:
            return
        self.head = appended[-1].anchor
        self._recent.update((entry.act, entry) for entry in appended)
        while len(self._recent) > RECENT_ENTRIES:
            del self._recent[next(iter(self._recent))]

    def failed(self, acts: Sequence[Act]) -> None:
        """Note that a transaction with these acts has failed, though it may be durable."""
        self._doubt = self._doubt or bool(acts)

    def restore(self, connection: Connection) -> tuple[Anchor, Sequence[Entry]]:
        """The last row of a database that was set back, and the remembered entries after it, which are written again.

        There are none if ``head`` is the last row, or if the rows are of another chain.
        """
        there = head_of(connection)
        lost = [entry for entry in self._recent.values() if entry.seq > there.seq]
        if not lost or lost[0].seq != there.seq + 1 or not lost[0].follows(there.hash):
            return there, ()
        put(connection, lost)
        return there, lost

    def restored(self, there: Anchor, again: Sequence[Entry]) -> Anchor | None:
        """Note that ``restore`` is committed. Returns the former head if entries are lost for good."""
        before, self.head = self.head, again[-1].anchor if again else there
        if self.head == before:
            return None
        self._recent.clear()
        return before


_ENTRIES = select(AUDIT).order_by(AUDIT.c.seq)


def put(connection: Connection, entries: Iterable[Entry]) -> None:
    """Write entries as they are."""
    if rows := [_row(entry) for entry in entries]:
        connection.execute(_INSERT, rows)


def head_of(connection: Connection) -> Anchor:
    """The last row's number and hash."""
    found = connection.execute(select(AUDIT.c.seq, AUDIT.c.hash).order_by(AUDIT.c.seq.desc()).limit(1)).one_or_none()
    return Anchor() if found is None else Anchor(*found)


def after(connection: Connection, seq: int, limit: int) -> list[Entry]:
    """At most ``limit`` entries numbered above ``seq``, in order."""
    return list(_read(connection, _ENTRIES.where(AUDIT.c.seq > seq).limit(limit)))


def page(connection: Connection, which: AuditFilter, limit: int, before: int | None) -> AuditPage:
    """See ``IStore.read_audit``."""
    seq = AUDIT.c.seq
    top = connection.execute(select(func.coalesce(func.max(seq), 0))).scalar_one() + 1
    end = top if before is None else min(before, top)
    first = end - EXAMINED_PER_READ
    query = select(AUDIT).where(seq < end, seq >= first).order_by(seq.desc()).limit(limit)
    for column, value in ((AUDIT.c.who, which.who), (AUDIT.c.action, which.action)):
        query = query if value is None else query.where(column == value)
    if which.since is not None:
        query = query.where(AUDIT.c.time >= which.since)
    if which.until is not None:
        query = query.where(AUDIT.c.time < which.until)
    found = tuple(_read(connection, query))
    if len(found) == limit:
        return AuditPage(found, found[-1].seq if found[-1].seq > 1 else None)
    if first <= 1 or _all_older(connection, first, end, which.since):
        return AuditPage(found)
    return AuditPage(found, first)


def _all_older(connection: Connection, first: int, end: int, since: float | None) -> bool:
    if since is None:
        return False
    newer = select(AUDIT.c.seq).where(AUDIT.c.seq < end, AUDIT.c.seq >= first, AUDIT.c.time >= since).limit(1)
    return connection.execute(newer).first() is None


def _read(connection: Connection, query: Select[Any]) -> Iterable[Entry]:
    for row in connection.execute(query):
        values = row._asdict()
        seq, digest = values.pop("seq"), values.pop("hash")
        yield Entry(seq, Act(**values), digest)


def _row(entry: Entry) -> dict[str, Any]:
    act = entry.act
    return {
        "seq": entry.seq,
        "hash": entry.hash,
        "time": act.time,
        "who": act.who,
        "origin": act.origin,
        "uid": act.uid,
        "action": act.action,
        "target": act.target,
        "worker": act.worker,
        "result": act.result,
        "request_id": act.request_id,
        "details": act.details,
    }
