"""The figures of many runs as a table, and their place in a document."""

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
        """Add another row."""
        for name in ("runs", "jobs", "events", "faults", "known", "new"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def cells(self) -> tuple[int, ...]:
        """The cells of ``HEAD``, without the profile."""
        return self.runs, self.jobs, self.events, self.faults, self.known, self.new


@define
class Summary:
    """The figures of all runs so far; rows are in the order in which their profiles came first."""

    rows: dict[str, Row] = field(factory=dict)
    #: The numbers of faults, by kind.
    faults: Counter[str] = field(factory=Counter)
    #: The number of runs that showed each known fault, by name.
    known: Counter[str] = field(factory=Counter)

    def add(self, result: Result) -> None:
        """Add a result."""
        new = sum(not finding.known for finding in result.findings)
        row = Row(1, result.jobs, result.events, sum(result.faults.values()), len(result.findings) - new, new)
        self.rows.setdefault(result.profile, Row()).add(row)
        self.faults.update(result.faults)
        self.known.update(finding.known for finding in result.findings if finding.known)

    @property
    def total(self) -> Row:
        """The sums of all rows."""
        total = Row()
        for row in self.rows.values():
            total.add(row)
        return total

    def markdown(self) -> str:
        """A table, and the numbers of faults and of known faults."""
        lines = [_line(HEAD), _line(["---"] * len(HEAD))]
        lines += [_line((profile, *row.cells())) for profile, row in self.rows.items()]
        lines += [_line(("sum", *self.total.cells())), ""]
        lines.append(f"Faults that struck: {_counts(self.faults.items())}.")
        lines.append("")
        lines.append(f"Known violations: {_counts(self.known.items())}.")
        return "\n".join(lines)


def record(file: Path, text: str) -> None:
    """Put the text into a document, between the marks of the last one."""
    before, mark, rest = file.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (mark and end):
        raise ValueError(f"{file} has no {_BEGIN} ... {_END}")
    file.write_text(f"{before}{mark}\n{text}\n{end}{after}", encoding="utf-8")


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _counts(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts)) or "none"
