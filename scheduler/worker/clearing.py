"""Removing and measuring the folders of jobs, carefully. All of it blocks.

Theory of operation. A folder that is to be removed is first renamed, so it is gone at once for all others, and then
emptied. After a crash the next process finds the rest under that name. A folder that can't be removed stays under it as
a leftover, and may be tried again. Mounts are looked for only when a walk has met one: walks leave them alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

from attrs import frozen

from scheduler.worker import mounts, trees
from scheduler.worker.shim.spool import Spool
from scheduler.worker.trees import NOTHING, Amount, Left

#: Prefixes of the id, in the name of a folder that is being made, or being removed.
MAKING = ".new-"
REMOVING = ".gone-"

#: Seconds for one removal. A longer one goes on in the next sweep.
_REMOVAL_SECONDS = 2.0

#: Seconds that a starting worker process spends on all that the previous one left.
_REMOVAL_AT_START_SECONDS = 2.0

#: Entries that are counted at each look at a folder that changes.
_ENTRIES_MAX = 100_000

_OUTPUT = ("stdout", "stderr")
_WORK = ("work", "stdin", "script")


@frozen
class DiskUse:
    """The disk use of a job's folder."""

    output: Amount = NOTHING
    #: The content of the work folder, stdin and script: no client can read these.
    work: Amount = NOTHING
    records: Amount = NOTHING

    @property
    def all(self) -> Amount:
        return self.output.plus(self.work).plus(self.records)

    @property
    def stripped(self) -> bool:
        return not self.output.entries


class Remains(NamedTuple):
    """The rest of a folder that was to be removed."""

    #: Its name in the folder of all jobs.
    name: str
    left: Left
    #: The disk use; if the removal is unfinished, at least that.
    amount: Amount

    @property
    def job_id(self) -> str:
        return job_of(self.name)


def job_of(name: str) -> str:
    """Answer the id of the job whose folder was renamed to ``name``."""
    return name.removeprefix(MAKING).removeprefix(REMOVING).partition(".")[0]


class Clearing:
    """Removes and measures the spools in one folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._leftovers: set[str] = set()

    def beside(self, job_id: str, prefix: str) -> str:
        """Make a path in the folder that belongs to no spool."""
        return os.path.join(self._folder, prefix + job_id)

    def leftovers(self) -> tuple[str, ...]:
        """Answer the names of folders that could not be removed, or not yet."""
        return tuple(self._leftovers)

    def take_over(self, names: Iterable[str]) -> None:
        """Remove folders that the previous process was making or removing. What can't be removed becomes a leftover."""
        until = time.monotonic() + _REMOVAL_AT_START_SECONDS
        for name in names:
            if trees.remove(self._folder, name, max(until - time.monotonic(), 0)) is None:
                continue
            if name.startswith(MAKING):  # a start of this job would need that name
                gone = self._unused(name.removeprefix(MAKING))
                with contextlib.suppress(OSError):
                    os.rename(os.path.join(self._folder, name), os.path.join(self._folder, gone))
                    self._leftovers.add(gone)
                    continue
            self._leftovers.add(name)

    def discard(self, folder: str) -> None:
        """Remove a folder in which no job ever ran."""
        trees.remove(self._folder, os.path.basename(folder))

    def move_away(self, job_id: str) -> Remains | None:
        """Remove the spool of a job; answers what is left of it. Raises ``OSError`` if the spool is still in place."""
        if os.path.lexists(self.beside(job_id, REMOVING)):
            self.clear_thd(REMOVING + job_id)  # left by a refused start of that id
        name = self._unused(job_id)
        source, target = os.path.join(self._folder, job_id), os.path.join(self._folder, name)
        try:
            os.rename(source, target)
        except FileNotFoundError:  # removed by hand
            return None
        except OSError as error:
            if error.errno != errno.EBUSY or not mounts.detach(self._folder, job_id):
                raise
            os.rename(source, target)
        self._leftovers.add(name)
        return self.clear_thd(name)

    def _unused(self, job_id: str) -> str:
        name, number = REMOVING + job_id, 0
        while os.path.lexists(os.path.join(self._folder, name)):
            number += 1
            name = f"{REMOVING}{job_id}.{number}"  # an id has no dot
        return name

    def clear_thd(self, name: str) -> Remains | None:
        """Remove a folder that was renamed to be removed; answers what is left of it."""
        left = self._remove(name)
        if left is None:
            self._leftovers.discard(name)
            return None
        self._leftovers.add(name)
        taken = trees.measure(self._folder, name, _ENTRIES_MAX if left.unfinished else None, unlock=True)
        return Remains(name, left, _sum(taken.values()))

    def clean(self, spool: Spool, output: bool = False) -> Left | None:
        """Remove work folder, stdin and script, with ``output`` the output, too; answers an entry that is left."""
        found = None
        for each in (*_WORK, *(_OUTPUT if output else ())):
            found = self._remove(f"{os.path.basename(spool.folder)}/{each}") or found
        return found

    def _remove(self, path: str) -> Left | None:
        left = trees.remove(self._folder, path, _REMOVAL_SECONDS)
        if left is None or left.unfinished or not left.mounted:
            return left
        try:
            if mounts.detach(self._folder, path):
                return trees.remove(self._folder, path, _REMOVAL_SECONDS)
        except OSError as error:
            return left._replace(why=f"something is mounted there and can't be detached: {error.strerror}")
        return left

    def taken(self, spool: Spool, running: bool = False) -> DiskUse:
        """Measure a spool. If the job is ``running``, nothing is changed; ``_ENTRIES_MAX`` entries count at most."""
        most = _ENTRIES_MAX if running else None
        found = trees.measure(self._folder, os.path.basename(spool.folder), most, unlock=not running)
        output, work = (_sum(found.pop(name, NOTHING) for name in names) for names in (_OUTPUT, _WORK))
        return DiskUse(output, work, _sum(found.values()))

    def written(self, spool: Spool) -> int:
        """Measure the bytes that the output takes now; 0 if it has just been removed."""
        size = 0
        for stream in _OUTPUT:
            with contextlib.suppress(OSError):
                size += trees.size_of(self._folder, f"{os.path.basename(spool.folder)}/{stream}")
        return size


def _sum(amounts: Iterable[Amount]) -> Amount:
    return reduce(Amount.plus, amounts, NOTHING)
