"""The figures of many runs as a table for people, and their place in a document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import define, field

from tests.simulation.search import Result

_BEGIN, _END = "<!-- simulation -->", "<!-- end of simulation -->"

HEAD = ("profile", "runs", "jobs", "events", "faults", "known violations", "new violations")


@define
class Row:
    """The sums of one profile."""

    runs: int = 0
    jobs: int = 0
    events: int = 0
    faults: int = 0
    known: int = 0
    new: int = 0

    def add(self, other: Row) -> None:
        """Count another one in."""
        for name in ("runs", "jobs", "events", "faults", "known", "new"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def cells(self) -> tuple[int, ...]:
        """As ``HEAD`` has them, without the profile."""
        return self.runs, self.jobs, self.events, self.faults, self.known, self.new


@define
class Summary:
    """Of all runs so far; each row's order is that in which its profile came first."""

    rows: dict[str, Row] = field(factory=dict)
    #: How many faults struck, by kind.
    faults: Counter[str] = field(factory=Counter)
    #: How often each known fault showed, by name.
    known: Counter[str] = field(factory=Counter)

    def add(self, result: Result) -> None:
        """Count one in."""
        new = sum(not finding.known for finding in result.findings)
        row = Row(1, result.jobs, result.events, sum(result.faults.values()), len(result.findings) - new, new)
        self.rows.setdefault(result.profile, Row()).add(row)
        self.faults.update(result.faults)
        self.known.update(finding.known for finding in result.findings if finding.known)

    @property
    def total(self) -> Row:
        """The sums of all."""
        total = Row()
        for row in self.rows.values():
            total.add(row)
        return total

    def markdown(self) -> str:
        """A table, and what struck and what showed how often."""
        lines = [_line(HEAD), _line(["---"] * len(HEAD))]
        lines += [_line((profile, *row.cells())) for profile, row in self.rows.items()]
        lines += [_line(("sum", *self.total.cells())), ""]
        lines.append(f"Faults that struck: {_counts(self.faults.items())}.")
        lines.append("")
        lines.append(f"Known violations: {_counts(self.known.items())}.")
        return "\n".join(lines)


def record(file: Path, text: str) -> None:
    """Put it into a document, between the marks of the last one."""
    before, mark, rest = file.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (mark and end):
        raise ValueError(f"{file} has no {_BEGIN} ... {_END}")
    file.write_text(f"{before}{mark}\n{text}\n{end}{after}", encoding="utf-8")


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _counts(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts)) or "none"
