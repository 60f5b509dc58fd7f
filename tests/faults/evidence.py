"""The evidence on the disk after a run: the lines written by the jobs themselves, and the workers' spools."""

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
    """A process of a job, by its own account."""

    ticket: str
    job: str
    pid: int
    #: ``None``: it did not reach its end.
    code: int | None = None
    #: The number of SIGUSR1 that it counted.
    signals: int = 0
    #: The time on the monotonic clock until which it counted signals; ``None``: it did not reach its end.
    ended: float | None = None
    #: The beginning on the same clock; ``None``: not recorded.
    began: float | None = None
    #: The sha256 of everything that it read from stdin, in hexadecimal; ``None``: it did not reach the end of stdin.
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
    #: The number of leading bytes that agree with the job's output.
    good: int
    #: The same for stderr.
    error_size: int = 0
    error_good: int = 0

    @property
    def streams(self) -> tuple[tuple[str, int, int], ...]:
        """The name, size and good bytes of each stream."""
        return ("stdout", self.size, self.good), ("stderr", self.error_size, self.error_good)

    def size_of(self, stream: str) -> int:
        """The size of that stream in bytes."""
        return self.size if stream == "stdout" else self.error_size


@frozen
class Evidence:
    """All evidence of a run."""

    runs: tuple[Run, ...] = ()
    spools: tuple[Spool, ...] = ()
    #: (daemon, error) for each unexpected error in a log.
    errors: tuple[tuple[str, str], ...] = ()


def runs(folder: Path) -> list[Run]:
    """The accounts of the jobs. A file is named after its ticket."""
    return [run for file in sorted(folder.iterdir()) for run in runs_of(file)]


def runs_of(file: Path) -> list[Run]:
    """The accounts of the jobs of one ticket; empty if none began."""
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
    """All spools; ``states`` has workers and their state folders, ``expected`` the seed and the lines of each job."""
    return [
        _spool(worker, folder, expected.get(folder.name))
        for worker, state in states.items()
        for folder in spool_folders(state)
    ]


def spool_folders(state: Path) -> Iterable[Path]:
    """The spools in a worker's state folder that a shim has taken, or whose job has ended.

    Any other spool was refused before a shim was asked to start it: it is a folder, but no job.
    """
    for folder in sorted((state / "jobs").glob("*")):
        with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
            if (folder / "lock").read_bytes().strip(b"\0") or (folder / "exit.json").exists():
                yield folder


def exit_record(folder: Path) -> dict[str, Any] | None:
    """The exit record in a job's spool."""
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
    """Each unexpected error in a daemon's log: a traceback, or a request that was answered with 500."""
    lines = log.splitlines()
    for at, line in enumerate(lines):
        if _TRACEBACK in line:
            after = itertools.takewhile(lambda line: not _LOGGED.match(line), lines[at + 1 : at + _TRACEBACK_MAX_LINES])
            *_, last = [line, *after]
            yield f"{lines[at - 1] if at else ''} ... {last.strip()}"
        elif _UNEXPECTED.search(line) and not any(_TRACEBACK in following for following in lines[at + 1 : at + 2]):
            yield line


#: The first line of a traceback, the number of its lines that are looked at, the beginning of a log line, and an error
#: in one line: a line that only ``Logger.failure`` and the interpreter write, or an answer in the access log.
_TRACEBACK = "Traceback (most recent call last)"
_TRACEBACK_MAX_LINES = 200
_LOGGED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T")
_UNEXPECTED = re.compile(
    r"^\S+ critical |Exception ignored in|Fatal Python error|scheduler\.api\.request: \S+ [A-Z]+ \S+ 500 "
)


def common(one: bytes, other: bytes) -> int:
    """The length of the common prefix."""
    if other.startswith(one):
        return len(one)
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
