"""Prints results of commands: a table for people, JSON lines or a custom format for programs.

A table is as wide as the terminal, and its longest column is shortened to fit. In a pipe or a file nothing is shortened
or coloured.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import string
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click
from attrs import frozen

from scheduler.cli.wording import Object, printable

# These characters control some terminals, and JSON does not escape them. Half a surrogate pair can't be encoded.
_UNESCAPED = re.compile(r"[\x7f-\x9f\ud800-\udfff]")

_ESCAPES = {r"\t": "\t", r"\n": "\n", r"\\": "\\"}


@frozen
class Column:
    """A column of a table."""

    title: str
    text: Callable[[Object], str]
    #: Returns the colour of the text, by a name that click and rich share; ``""``: none.
    colour: Callable[[Object], str] = lambda _: ""
    right: bool = False
    #: Whether the column is shortened if the terminal is too narrow.
    shrinks: bool = False


def terminal() -> bool:
    """Whether the output goes to a terminal."""
    return sys.stdout.isatty()


def redrawn() -> bool:
    """Whether the output goes to a terminal that understands control sequences."""
    return terminal() and os.environ.get("TERM") != "dumb"


def coloured() -> bool:
    """Whether the output may be coloured: only on a terminal that supports it, and not with ``NO_COLOR``."""
    return redrawn() and not os.environ.get("NO_COLOR")


def paint(text: str, colour: str) -> str:
    """The text in that colour, if the output may be coloured."""
    return click.style(text, fg=colour) if colour and coloured() else text


def json_line(document: Object) -> str:
    """A JSON object of the API on one line."""
    encoding = sys.stdout.encoding or "utf-8"
    text = json.dumps(dict(document), ensure_ascii=not encoding.lower().startswith("utf"), separators=(",", ":"))
    return _UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class Format:
    """A format such as ``{id} {labels.team} {state:<9}``, for the fields of a JSON object."""

    def __init__(self, text: str, fields: Sequence[str]) -> None:
        """Raises ``click.UsageError`` for an invalid format, and for a field that is not in ``fields``."""
        try:
            self._parts = list(string.Formatter().parse(re.sub(r"\\[tn\\]", lambda found: _ESCAPES[found[0]], text)))
        except ValueError as error:
            raise click.UsageError(f"--format: {error}; a field is written {{id}}, a brace {{{{.") from None
        for _, name, spec, conversion in self._parts:
            if name is None:
                continue
            if name.partition(".")[0] not in fields or conversion:
                given = f"{name}!{conversion}" if conversion else name
                raise click.UsageError(f"--format has no field {{{printable(given)}}}; there are: {', '.join(fields)}.")
            try:
                format("", spec or "")
            except ValueError as error:
                raise click.UsageError(f"--format: {{{name}:{spec}}}: {error}.") from None

    def line(self, document: Object) -> str:
        """The format, filled with an object's fields. An absent field, or ``null``, becomes ``""``."""
        made = ""
        for literal, name, spec, _ in self._parts:
            made += literal
            if name is not None:
                made += format(_text(_look_up(document, name)), spec or "")
        return made


def _look_up(document: Any, name: str) -> Any:
    """The field of that name, or a part of a field: ``labels.team``. Names that contain dots are found, too."""
    first, dot, rest = name.partition(".")
    value = document.get(first)
    if not dot:
        return value
    if not isinstance(value, dict):
        return None
    return value[rest] if rest in value else _look_up(value, rest) if "." in rest else None


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return printable(value) if terminal() else value
    return json.dumps(value, ensure_ascii=False)


def draw(columns: Sequence[Column], rows: Sequence[Object]) -> str:
    """Draw a table, each line with its newline. rich is imported only now."""
    drawing = importlib.import_module("scheduler.cli.drawing")
    made: str = drawing.draw(columns, rows, shutil.get_terminal_size().columns if terminal() else None, coloured())
    return made
