"""What is free of the disk that spools are on, and what a start needs of it."""

from __future__ import annotations

import os

from attrs import frozen

from scheduler.model import Disk
from scheduler.units import Share
from scheduler.worker.trees import NOTHING, Amount

#: Inodes that must be free for a start: it takes about ten, and its job some more.
INODES_FOR_START = 64

#: What is freed for a start that a quota or the file system refused although enough looked free.
ROOM_AFTER_REFUSAL = Amount(1 << 20, INODES_FOR_START)


#: What one start takes of the disk, generously: its records, stdin and script.
ROOM_FOR_START = Amount(1 << 20, 16)


@frozen
class DiskUse:
    """What the folder of a job takes."""

    output: Amount = NOTHING
    #: What no client can read: the content of the work folder, stdin and script.
    work: Amount = NOTHING
    records: Amount = NOTHING

    @property
    def all(self) -> Amount:
        return self.output.plus(self.work).plus(self.records)

    @property
    def stripped(self) -> bool:
        """Its output is gone already."""
        return not self.output.entries


class DiskFull(Exception):
    """The disk has less free than a start needs, and nothing was started; ``str()`` is a sentence that says so."""

    def __init__(self, reason: str, refused: bool = False) -> None:
        """``refused``: by the disk itself, whatever it says of what is free."""
        super().__init__(reason)
        self.refused = refused


def disk(folder: str) -> Disk:
    """The disk that a folder is on."""
    found = os.statvfs(folder)
    return Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize, found.f_files, found.f_favail)


def needed(found: Disk, min_free: Share) -> Amount:
    """What must be free for a start. An absolute size says nothing of inodes, so only a percentage applies to them."""
    inodes = max(INODES_FOR_START, int(found.inodes * min_free.percent / 100)) if found.inodes else 0
    return Amount(min_free.of(found.size), inodes)


def shortage(found: Disk, min_free: Share, starts: int = 0) -> Amount:
    """How much less is free than a start needs, once ``starts`` others took their part; not positive: it is enough."""
    least = needed(found, min_free)
    size = least.size - found.free + starts * ROOM_FOR_START.size
    inodes = least.entries - found.inodes_free + starts * ROOM_FOR_START.entries
    return Amount(size, inodes if found.inodes else 0)


def lack(found: Disk, min_free: Share) -> str:
    """A sentence that says what is missing for a start; ``""`` if nothing is."""
    short = shortage(found, min_free)
    if short.size > 0:
        free, least = f"{found.free} bytes", f"the {min_free} of spool_min_free"
    elif short.entries > 0:
        percentage = needed(found, min_free).entries > INODES_FOR_START
        free = f"{found.inodes_free} inodes"
        least = f"the {min_free} of spool_min_free" if percentage else f"the {INODES_FOR_START} that a start needs"
    else:
        return ""
    return f"the disk for the output of jobs has {free} free, less than {least}"
