"""What is left on the disk after a run: the lines the jobs wrote themselves, and the workers' spools."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
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


@frozen
class Evidence:
    """All of it."""

    runs: tuple[Run, ...] = ()
    spools: tuple[Spool, ...] = ()


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
                made.append(Run(file.name, job, int(pid)))
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


def common(one: bytes, other: bytes) -> int:
    """Length of what both begin with."""
    if other.startswith(one):
        return len(one)
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
