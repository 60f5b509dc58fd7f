"""Tables, JSON lines and formats."""

import contextlib
import io
import json
import os

import click
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cli import drawing
from scheduler.cli.tables import Column, Format, coloured, draw, json_line, paint, terminal

COLUMNS = (
    Column("ID", lambda row: row["id"]),
    Column("STATE", lambda row: row["state"], lambda row: "red"),
    Column("N", lambda row: str(row["n"]), right=True),
    Column("COMMAND", lambda row: row["command"], shrinks=True),
)
ROW = {
    "id": "abc",
    "state": "failed",
    "n": 7,
    "command": "make [bold]-C[/bold] /srv/a/rather/long/path all \x1b[2J日本",
}


class TerminalOut(io.StringIO):
    """A stdout that is a terminal."""

    def isatty(self) -> bool:
        return True


class DrawTests(SynchronousTestCase):
    def test_whole(self) -> None:
        """Without a width nothing is shortened, coloured, or read as markup; each row is one line without padding."""
        self.assertEqual(
            drawing.draw(COLUMNS, [ROW], None, False),
            "ID   STATE   N  COMMAND\nabc  failed  7  make [bold]-C[/bold] /srv/a/rather/long/path all \\x1b[2J日本\n",
        )
        wide = {**ROW, "command": "x" * 5000}
        self.assertEqual(len(drawing.draw(COLUMNS, [wide], None, False).splitlines()[1]), 5000 + 16)

    def test_narrow(self) -> None:
        """On a terminal only the long column is shortened to fit."""
        for width in (40, 60):
            lines = drawing.draw(COLUMNS, [ROW], width, False).splitlines()
            self.assertEqual(len(lines), 2)
            self.assertEqual(len(lines[1]), width)
            self.assertTrue(lines[1].startswith("abc  failed  7  make [bold]") and lines[1].endswith("…"), lines[1])

    def test_other_columns_stay(self) -> None:
        """A long text in another column is not shortened, and the long column keeps a few characters."""
        row = {**ROW, "state": "s" * 30}
        self.assertIn(f"abc  {'s' * 30}  7  make [bol…\n", drawing.draw(COLUMNS, [row], 30, False))

    def test_coloured(self) -> None:
        """Colours, if requested, are those of the column."""
        self.assertIn("\x1b[31mfailed\x1b[0m", drawing.draw(COLUMNS, [ROW], 80, True))

    def test_empty(self) -> None:
        """An empty table has only its titles."""
        self.assertEqual(drawing.draw(COLUMNS, [], None, False), "ID  STATE  N  COMMAND\n")

    def test_only_on_a_terminal(self) -> None:
        """Colours need a terminal that supports them, and no NO_COLOR; a width needs a terminal."""
        self.patch(os, "environ", {"TERM": "xterm", "COLUMNS": "40"})
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertFalse(terminal() or coloured())
            self.assertEqual(paint("x", "red"), "x")
            self.assertNotIn("…", draw(COLUMNS, [ROW]))
        with contextlib.redirect_stdout(TerminalOut()):
            self.assertTrue(terminal() and coloured())
            self.assertEqual(paint("x", "red"), "\x1b[31mx\x1b[0m")
            self.assertEqual(paint("x", ""), "x")
            self.assertIn("…", draw(COLUMNS, [ROW]))
            for environ in ({"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}):
                self.patch(os, "environ", environ)
                self.assertFalse(coloured())
                self.assertNotIn("\x1b[", draw(COLUMNS, [ROW]))


class FormatTests(SynchronousTestCase):
    FIELDS = ("id", "labels", "n", "args")
    JOB = {"id": "abc", "labels": {"team": "web", "a.b": "c", "nest": {"x": 1}}, "n": None, "args": ["x y", 1]}

    def line(self, text: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()):
            return Format(text, self.FIELDS).line(self.JOB)

    def refused(self, text: str) -> str:
        with self.assertRaises(click.UsageError) as caught:
            Format(text, self.FIELDS)
        return caught.exception.format_message()

    def test_fields(self) -> None:
        """Texts are printed as they are, null is empty, and other values are JSON; dots reach parts."""
        self.assertEqual(self.line("{id} {n}|{args}"), 'abc |["x y", 1]')
        self.assertEqual(self.line("{labels.team} {labels.a.b} {labels.nest.x} {labels.none}{id.x}"), "web c 1 ")

    def test_form(self) -> None:
        r"""Widths pad, ``\t`` and ``\n`` are escapes, and doubled braces are braces."""
        self.assertEqual(self.line(r"{id:>5}|{id:<5}|\t\n{{}}\\t"), "  abc|abc  |\t\n{}\\t")

    def test_mistakes(self) -> None:
        """An unknown field is an error that lists the known ones, even if no object is listed."""
        self.assertIn("no field {state}; there are: id, labels, n, args", self.refused("{id} {state}"))
        self.assertIn("no field {}", self.refused("{}"))
        self.assertIn("no field {id!r}", self.refused("{id!r}"))
        self.assertIn("no field {__class__.x}", self.refused("{__class__.x}"))
        self.assertIn("--format:", self.refused("{id"))
        self.assertIn("--format: {id:d}", self.refused("{id:d}"))

    def test_terminal(self) -> None:
        """On a terminal a value can't control it; elsewhere the value is unchanged."""
        job = {"id": "a\x1b[2J"}
        with contextlib.redirect_stdout(TerminalOut()):
            self.assertEqual(Format("{id}", self.FIELDS).line(job), r"a\x1b[2J")
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(Format("{id}", self.FIELDS).line(job), "a\x1b[2J")


class JsonTests(SynchronousTestCase):
    def test_line(self) -> None:
        """The line is the same object, readable, and without a control character."""
        document = {"a": "Müller\n\x1b\x9b\x7f\ud800", "b": [1, None]}
        line = json_line(document)
        self.assertEqual(json.loads(line), document)
        self.assertIn("Müller", line)
        self.assertEqual([each for each in line if ord(each) < 32 or 0x7F <= ord(each) < 0xA0 or each == "\ud800"], [])
