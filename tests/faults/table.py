"""The figures of all experiments as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.faults.run import Figures

_BEGIN, _END = "<!-- figures -->", "<!-- end of figures -->"

HEAD = ("#", "experiment", "rounds", "jobs", "acknowledged", "lost", "duplicated", "serving", "taken back", "converged")


def markdown(rows: Sequence[tuple[int, str, Figures]]) -> str:
    """A row for each experiment, and the sums."""
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    for number, name, figures in rows:
        lines.append(_line((number, name, *_counts(figures), *_times(figures))))
    total = Figures()
    for _, _, figures in rows:
        for name in ("rounds", "jobs", "acknowledged", "lost", "duplicated"):
            setattr(total, name, getattr(total, name) + getattr(figures, name))
        for name in ("serving", "taken_back", "converged"):
            getattr(total, name).extend(getattr(figures, name))
    lines.append(_line(("", "all", *_counts(total), *_times(total))))
    lines += ["", "Times in seconds, median / longest.", ""]
    for _, name, figures in rows:
        lines += [f"- {name}: {what} {_spread(times)}" for what, times in figures.measured.items()]
        lines += [f"- {name}: {note}" for note in figures.notes]
    return "\n".join(lines)


def record(file: Path, text: str) -> None:
    """Put the figures into a document, between the marks of the last ones."""
    before, mark, rest = file.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (mark and end):
        raise ValueError(f"{file} has no {_BEGIN} ... {_END}")
    file.write_text(f"{before}{mark}\n{text}\n{end}{after}")


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _counts(figures: Figures) -> tuple[int, ...]:
    return figures.rounds, figures.jobs, figures.acknowledged, figures.lost, figures.duplicated


def _times(figures: Figures) -> tuple[str, ...]:
    return tuple(_spread(times) for times in (figures.serving, figures.taken_back, figures.converged))


def _spread(times: Sequence[float]) -> str:
    if not times:
        return ""
    return f"{median(times):.2g} / {max(times):.2g}"
