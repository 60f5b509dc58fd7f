"""What is left on the disk after a run: the lines the jobs wrote themselves, and the workers' spools."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.faults import job as load_job


@frozen
class Run:
    """One process of one job, by its own account."""

    ticket: str
    job: str
    pid: int
    #: ``None``: it did not come to its end.
    code: int | None = None


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


@frozen
class Evidence:
    """All of it."""

    runs: tuple[Run, ...] = ()
    spools: tuple[Spool, ...] = ()


def runs(folder: Path) -> list[Run]:
    """What the jobs wrote; a file is named after its ticket."""
    found = []
    for file in sorted(folder.iterdir()):
        ends: dict[tuple[str, int], int] = {}
        begun: list[tuple[str, int]] = []
        for line in file.read_text().splitlines():
            word, job, pid, number = line.split()
            if word == "run":
                begun.append((job, int(pid)))
            else:
                ends[job, int(pid)] = int(number)
        found += [Run(file.name, job, pid, ends.get((job, pid))) for job, pid in begun]
    return found


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
    stdout = (folder / "stdout").read_bytes() if (folder / "stdout").exists() else b""
    good = len(stdout) if expected is None else common(stdout, load_job.output(*expected))
    return Spool(folder.name, worker, exit_record(folder), len(stdout), good)


def common(one: bytes, other: bytes) -> int:
    """Length of what both begin with."""
    if other.startswith(one):
        return len(one)
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
