"""What is left on the disk after a run: the lines the jobs wrote themselves, and the workers' spools."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from tests.faults import job as load_job


@frozen
class Run:
    """One process of one job, by its own account."""

    ticket: str
    job: str
    pid: int
    #: ``None``: it did not come to its end.
    code: int | None = None
    #: SIGUSR1 that it counted.
    signals: int = 0
    #: Seconds by the monotonic clock, up to which it counted them; ``None``: it did not come to its end.
    ended: float | None = None
    #: By the same clock; ``None``: it was not written down.
    began: float | None = None
    #: The sha256 of all that it read from its stdin, in hexadecimal; ``None``: it did not come to the end of that.
    stdin: str | None = None


@frozen
class Spool:
    """A job's folder on its worker."""

    job: str
    worker: str
    #: The exit record; ``None``: there is none.
    exit: Mapping[str, Any] | None
    #: Bytes of stdout.
    size: int
    #: How many of them, from the first on, are what the job prints.
    good: int
    #: The same of stderr.
    error_size: int = 0
    error_good: int = 0

    @property
    def streams(self) -> tuple[tuple[str, int, int], ...]:
        """Name, size and the good bytes of each."""
        return ("stdout", self.size, self.good), ("stderr", self.error_size, self.error_good)

    def size_of(self, stream: str) -> int:
        """Bytes of that stream."""
        return self.size if stream == "stdout" else self.error_size


@frozen
class Evidence:
    """All of it."""

    runs: tuple[Run, ...] = ()
    spools: tuple[Spool, ...] = ()
    #: Of each daemon that logged an error that nobody had expected, its name and that.
    errors: tuple[tuple[str, str], ...] = ()


def runs(folder: Path) -> list[Run]:
    """What the jobs wrote; a file is named after its ticket."""
    return [run for file in sorted(folder.iterdir()) for run in runs_of(file)]


def runs_of(file: Path) -> list[Run]:
    """What the job, or the jobs, of one ticket wrote; nothing, if none began."""
    found: dict[tuple[str, int], list[Run]] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in file.read_text().splitlines():
            word, job, pid, time, *code = line.split()
            made = found.setdefault((job, int(pid)), [])
            if word == "run":
                made.append(Run(file.name, job, int(pid), began=int(time) / 1e9))
            elif word == "in":
                made[-1] = evolve(made[-1], stdin=code[0])
            elif word == "usr1":
                made[-1] = evolve(made[-1], signals=made[-1].signals + 1)
            else:
                made[-1] = evolve(made[-1], code=int(code[0]), ended=int(time) / 1e9)
    return [run for made in found.values() for run in made]


def spools(states: Mapping[str, Path], expected: Mapping[str, tuple[int, int]]) -> list[Spool]:
    """All spools of workers by name and state folder; ``expected`` has the seed and the lines of each job."""
    return [
        _spool(worker, folder, expected.get(folder.name))
        for worker, state in states.items()
        for folder in spool_folders(state)
    ]


def spool_folders(state: Path) -> Iterable[Path]:
    """Those of the jobs in a worker's state folder that a shim took on, or that have ended.

    What neither is true of was refused before anybody was asked to start it: a folder, and no job.
    """
    for folder in sorted((state / "jobs").glob("*")):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            if (folder / "lock").read_bytes().strip(b"\0") or (folder / "exit.json").exists():
                yield folder


def exit_record(folder: Path) -> dict[str, Any] | None:
    """How a job ended, as its spool says."""
    try:
        record: dict[str, Any] = json.loads((folder / "exit.json").read_text())
    except FileNotFoundError:
        return None
    return record


def _spool(worker: str, folder: Path, expected: tuple[int, int] | None) -> Spool:
    sizes = []
    for name, printed in (("stdout", load_job.output), ("stderr", load_job.error_output)):
        kept = (folder / name).read_bytes() if (folder / name).exists() else b""
        sizes += [len(kept), len(kept) if expected is None else common(kept, printed(*expected))]
    return Spool(folder.name, worker, exit_record(folder), *sizes)


def log_errors(log: str) -> Iterator[str]:
    """Each error in a daemon's log that nobody had expected: a traceback, or a request that was answered by 500."""
    lines = log.splitlines()
    for at, line in enumerate(lines):
        if _TRACEBACK in line:
            after = itertools.takewhile(lambda line: not _LOGGED.match(line), lines[at + 1 : at + _TRACEBACK_MAX_LINES])
            *_, last = [line, *after]
            yield f"{lines[at - 1] if at else ''} ... {last.strip()}"
        elif _UNEXPECTED.search(line) and not any(_TRACEBACK in following for following in lines[at + 1 : at + 2]):
            yield line


#: The first line of a traceback, how many lines of it are looked at, how each line begins that is logged, and what is
#: an error in one line: what only ``Logger.failure`` and the interpreter write, and an answer in the access log.
_TRACEBACK = "Traceback (most recent call last)"
_TRACEBACK_MAX_LINES = 200
_LOGGED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T")
_UNEXPECTED = re.compile(
    r"^\S+ critical |Exception ignored in|Fatal Python error|scheduler\.api\.request: \S+ [A-Z]+ \S+ 500 "
)


def common(one: bytes, other: bytes) -> int:
    """Length of what both begin with."""
    if other.startswith(one):
        return len(one)
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
