"""The chain of the audit, and the check that finds what was done to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler.security.audit import (
    DETAILS_MAX_CHARACTERS,
    GENESIS,
    TEXT_MAX_BYTES,
    Act,
    Anchor,
    Entry,
    chained,
    compact,
    entry_of,
    verify,
)
from tests.contract.any_records import ANY_ACTS


def acts(count: int) -> list[Act]:
    return [Act(1000.0 + number, "token:ci", "start", f"j-{number}") for number in range(1, count + 1)]


def newest_first(entries: list[Entry]) -> list[Entry]:
    return entries[::-1]


class VerifyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.chain = chained(Anchor(), acts(5))

    def assert_broken(self, entries: list[Entry], seq: int, says: str) -> None:
        verdict = verify(newest_first(entries))
        self.assertFalse(verdict.intact)
        self.assertEqual((verdict.broken, verdict.why), (seq, says))

    def test_changed(self) -> None:
        """A changed row does not follow from the one before."""
        self.chain[2] = evolve(self.chain[2], act=evolve(self.chain[2].act, who="token:other"))
        self.assert_broken(self.chain, 3, "row 3 does not follow from row 2")

    def test_changed_with_its_hash(self) -> None:
        """If the hash of a changed row is made anew, the next row shows it."""
        changed = evolve(self.chain[2].act, target="j-9")
        self.chain[2] = chained(self.chain[1].anchor, [changed])[0]
        self.assert_broken(self.chain, 4, "row 4 does not follow from row 3")

    def test_first_changed(self) -> None:
        """The first row is checked like the others, and the first broken row of several is told."""
        for index in (0, 3):
            self.chain[index] = evolve(self.chain[index], act=evolve(self.chain[index].act, result="not-found"))
        self.assert_broken(self.chain, 1, "row 1 does not follow from the beginning")

    def test_removed(self) -> None:
        """A gap is told, at the beginning, too."""
        self.assert_broken([self.chain[0], *self.chain[3:]], 2, "rows 2 to 3 missing")
        self.assert_broken(self.chain[1:], 1, "row 1 missing")

    def test_removed_and_renumbered(self) -> None:
        """Rows that were renumbered over a gap have the wrong hash."""
        moved = [evolve(entry, seq=entry.seq - 1) for entry in self.chain[2:]]
        self.assert_broken([self.chain[0], *moved], 2, "row 2 does not follow from row 1")

    def test_inserted(self) -> None:
        """A row that was put in between is told, with the number of another or with one of its own."""
        extra = chained(self.chain[1].anchor, [Act(1.0, "token:evil", "stop")])
        self.assert_broken([*self.chain[:2], *extra, *self.chain[2:]], 3, "row 3 comes after row 3")
        later = [evolve(entry, seq=entry.seq + 1) for entry in self.chain[2:]]
        self.assert_broken([*self.chain[:2], *extra, *later], 4, "row 4 does not follow from row 3")

    def test_reordered(self) -> None:
        """Rows that changed places are told, with their numbers or without."""
        second, third = self.chain[1:3]
        self.assert_broken([self.chain[0], third, second, *self.chain[3:]], 2, "row 2 missing")
        swapped = [evolve(third, seq=2), evolve(second, seq=3)]
        self.assert_broken([self.chain[0], *swapped, *self.chain[3:]], 2, "row 2 does not follow from row 1")

    def test_cut(self) -> None:
        """Only an anchor shows that the last rows are gone."""
        self.assertTrue(verify(newest_first(self.chain[:3])).intact)
        verdict = verify(newest_first(self.chain[:3]), self.chain[4].anchor)
        self.assertEqual((verdict.intact, verdict.anchored, verdict.head.seq), (False, False, 3))

    def test_made_anew(self) -> None:
        """Only an anchor shows that all rows from one on were made anew."""
        anew = chained(Anchor(), [*acts(2), Act(1.0, "token:nobody", "start"), *acts(5)[3:]])
        self.assertTrue(verify(newest_first(anew)).intact)
        self.assertFalse(verify(newest_first(anew), self.chain[3].anchor).intact)
        self.assertTrue(verify(newest_first(anew), self.chain[1].anchor).intact)

    def test_whole(self) -> None:
        """A chain that nobody changed is intact, and has each of its rows as an anchor."""
        for entry in self.chain:
            verdict = verify(newest_first(self.chain), entry.anchor)
            self.assertEqual((verdict.intact, verdict.count, verdict.head), (True, 5, self.chain[4].anchor))
        self.assertIsNone(verify(newest_first(self.chain)).anchored)

    def test_empty(self) -> None:
        """A chain without rows is intact, and has no anchor but the one before the first row."""
        self.assertTrue(verify([]).intact)
        self.assertTrue(verify([], Anchor()).intact)
        self.assertFalse(verify([], self.chain[0].anchor).intact)


class PropertyTests(SynchronousTestCase):
    @given(st.lists(ANY_ACTS, max_size=6))
    def test_chain(self, several: list[Act]) -> None:
        """Any acts make a chain that can be checked, also after its rows went through JSON."""
        chain = chained(Anchor(), several)
        self.assertTrue(verify(newest_first(chain)).intact)
        sent = [entry_of(json.loads(json.dumps({**entry.row(), "hash": entry.hash}))) for entry in chain]
        self.assertEqual([entry.act for entry in sent], several)
        self.assertTrue(verify(newest_first(sent)).intact)

    @given(st.lists(ANY_ACTS, min_size=1, max_size=6), st.data())
    def test_tampering(self, several: list[Act], data: st.DataObject) -> None:
        """No row can be replaced by another, removed, repeated or swapped without a trace."""
        chain = chained(Anchor(), several)
        index = data.draw(st.integers(0, len(chain) - 1))
        other = data.draw(ANY_ACTS)

        def replace(rows: list[Entry]) -> None:
            assume(other != rows[index].act)
            rows[index] = evolve(rows[index], act=other)

        def remove(rows: list[Entry]) -> None:
            assume(index < len(rows) - 1)
            del rows[index]

        def repeat(rows: list[Entry]) -> None:
            rows.insert(index, rows[index])

        def swap(rows: list[Entry]) -> None:
            assume(index > 0)
            rows[index - 1], rows[index] = rows[index], rows[index - 1]

        changes: list[Callable[[list[Entry]], None]] = [replace, remove, repeat, swap]
        data.draw(st.sampled_from(changes))(chain)
        self.assertFalse(verify(newest_first(chain)).intact)


class EntryTests(SynchronousTestCase):
    def test_no_entry(self) -> None:
        """JSON that is no entry is refused."""
        row = {**chained(Anchor(), acts(1))[0].row(), "hash": GENESIS}
        for name, value in (("seq", "x"), ("who", 5), ("time", "yesterday"), ("hash", None), ("details", {1, 2})):
            with self.assertRaises((ValueError,)):
                found = entry_of({**row, name: value})
                if found.hash == "None":
                    raise ValueError
            with self.assertRaises(ValueError):
                entry_of({key: row[key] for key in row if key != name})

    def test_hash(self) -> None:
        """The hash is that of the previous hash, a line end, and the row as JSON with sorted names: as documented."""
        (entry,) = chained(Anchor(), [Act(0.5, "token:ci", "start", "j", details='{"args":["a b"]}', uid=7)])
        row = (
            '{"action":"start","details":{"args":["a b"]},"from":"","request_id":"","result":"ok","seq":1,"target":"j",'
            '"time":"1970-01-01T00:00:00.500Z","uid":7,"who":"token:ci","worker":""}'
        )
        self.assertEqual(entry.hash, hashlib.sha256(f"{GENESIS}\n{row}".encode()).hexdigest())

    @given(ANY_ACTS)
    def test_canonical(self, act: Act) -> None:
        """The hash is that of the row which ``Entry.row`` shows."""
        (entry,) = chained(Anchor(), [act])
        shown = f"{GENESIS}\n{compact(entry.row())}"
        self.assertEqual(entry.hash, hashlib.sha256(shown.encode("ascii")).hexdigest())

    def test_texts(self) -> None:
        """No text of an act can forge a line of the log, nor be without end."""
        act = Act(1.0, "a\nb\x1b\0\ud800", "x" * 9999, details={"args": "y" * DETAILS_MAX_CHARACTERS})
        self.assertEqual(act.who, "a\ufffdb\ufffd\ufffd\ufffd")
        self.assertEqual(len(act.action), TEXT_MAX_BYTES)
        self.assertEqual(list(json.loads(act.details)), ["omitted"])

    def test_anchor(self) -> None:
        """An anchor is read as the log has it; anything else is refused, with what is wanted."""
        anchor = chained(Anchor(), acts(1))[0].anchor
        self.assertEqual(Anchor.parse(f" {anchor}\n"), anchor)
        self.assertEqual(Anchor.parse(str(anchor).upper()), anchor)
        for text in (
            "",
            "1",
            "1:",
            f"x:{GENESIS}",
            f"1:{GENESIS[1:]}",
            f"1:{GENESIS[1:]}g",
            f"-1:{GENESIS}",
            f"²:{GENESIS}",
        ):
            with self.assertRaisesRegex(ValueError, "SEQ:HASH"):
                Anchor.parse(text)
