"""Draws the tables of ``scheduler.cli.tables``. rich measures how many columns of a terminal a text needs.

rich's own tables are not used: they take 0.4 ms a row, and a list of jobs may have a hundred thousand.
"""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.cells import cell_len, set_cell_size

from scheduler.cli.tables import Column
from scheduler.cli.wording import Object, printable

#: Characters between two columns of a table.
_GAP = "  "

#: Characters that the shrinking column keeps, however narrow the terminal is.
_SHRUNK_MIN_COLUMNS = 10


def draw(columns: Sequence[Column], rows: Sequence[Object], width: int | None, coloured: bool) -> str:
    """Draw a table, each line with its newline. ``width``: columns of the terminal; ``None``: no limit."""
    texts = [[printable(column.text(row)) for column in columns] for row in rows]
    widths = [max(map(cell_len, [column.title, *cells])) for column, *cells in zip(columns, *texts, strict=True)]
    if width is not None:
        _shrink(columns, widths, width)
    colours = [[column.colour(row) for column in columns] for row in rows] if coloured else []
    lines = [_line(columns, widths, [column.title for column in columns], ["bold"] * len(columns) if coloured else ())]
    lines += [_line(columns, widths, cells, colours[at] if coloured else ()) for at, cells in enumerate(texts)]
    return "".join(lines)


def _shrink(columns: Sequence[Column], widths: list[int], width: int) -> None:
    """Make the shrinking columns narrow enough for the terminal, if possible."""
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    for at, column in enumerate(columns):
        if column.shrinks and excess > 0:
            kept = max(widths[at] - excess, min(widths[at], _SHRUNK_MIN_COLUMNS))
            excess -= widths[at] - kept
            widths[at] = kept


def _line(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str], styles: Sequence[str]) -> str:
    made = []
    for at, (column, width, cell) in enumerate(zip(columns, widths, cells, strict=True)):
        length = cell_len(cell)
        text = cell if length <= width else f"{set_cell_size(cell, width - 1)}…"
        padding = " " * (width - min(length, width))
        style = styles[at] if styles else ""
        if style:
            text = click.style(text, bold=True) if style == "bold" else click.style(text, fg=style)
        made.append(padding + text if column.right else text + padding)
    return _GAP.join(made).rstrip() + "\n"
