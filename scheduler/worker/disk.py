"""The disk of the spools: its free space, the space that a start needs, and a gauge for heartbeats."""

from __future__ import annotations

import os

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from scheduler.model import Disk
from scheduler.threads import Pool
from scheduler.units import Share
from scheduler.worker.trees import Amount

#: Inodes that must be free for a start: the spool takes about ten, and the job some more.
INODES_FOR_START = 64

#: Space that is freed for a start that a quota or the file system refused although enough looked free.
ROOM_AFTER_REFUSAL = Amount(1 << 20, INODES_FOR_START)

#: Space that one start takes, generously: its records, stdin and script.
ROOM_FOR_START = Amount(1 << 20, 16)

#: Seconds between two looks, at least; and after which a look is too old to be told.
CHECK_INTERVAL_SECONDS, VALID_SECONDS = 10.0, 60.0


class DiskFull(Exception):
    """The disk has less free than a start needs, and nothing was started; ``str()`` is a sentence that says so."""

    def __init__(self, reason: str, refused: bool = False) -> None:
        """``refused``: the disk itself refused a write, however much it says is free."""
        super().__init__(reason)
        self.refused = refused


def disk_of(folder: str) -> Disk:
    """Look at the disk of a folder. Raises ``OSError`` if that is not possible."""
    found = os.statvfs(folder)
    return Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize, found.f_files, found.f_favail)


def needed(found: Disk, min_free: Share) -> Amount:
    """Answer the space that must be free for a start. An absolute ``min_free`` does not apply to inodes."""
    inodes = max(INODES_FOR_START, int(found.inodes * min_free.percent / 100)) if found.inodes else 0
    return Amount(min_free.of(found.size), inodes)


def shortage(found: Disk, min_free: Share, starts: int = 0) -> Amount:
    """Answer how much is missing for a start, once ``starts`` others have taken their part; at most 0: nothing."""
    least = needed(found, min_free)
    size = least.size - found.free + starts * ROOM_FOR_START.size
    inodes = least.entries - found.inodes_free + starts * ROOM_FOR_START.entries
    return Amount(size, inodes if found.inodes else 0)


def lack(found: Disk, min_free: Share) -> str:
    """Say in a sentence what is missing for a start; ``""``: nothing."""
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


class DiskGauge:
    """Looks at the disk in a thread, as a disk may not answer, one look at a time.

    ``clock`` tells the age of the last look.
    """

    def __init__(self, clock: IReactorTime, pool: Pool, folder: str) -> None:
        """``folder`` is on the disk."""
        self._clock = clock
        self._pool = pool
        self._folder = folder
        self._seen: Disk | None = None
        self._seen_at = 0.0
        #: When the last look began, and whether it still goes on.
        self._began: float | None = None
        self._looking = False

    def read(self) -> Disk | None:
        """Answer the disk as last seen, or ``None``. Begins another look if the last one was a while ago."""
        now = self._clock.seconds()
        if not self._looking and (self._began is None or now - self._began >= CHECK_INTERVAL_SECONDS):
            self._began, self._looking = now, True
            self._pool.run(disk_of, self._folder).addCallbacks(self._look_done, self._look_failed)
        return self._seen if now - self._seen_at <= VALID_SECONDS else None

    def _look_done(self, disk: Disk) -> None:
        self._looking = False
        self._seen, self._seen_at = disk, self._clock.seconds()

    def _look_failed(self, _: Failure) -> None:
        self._looking = False  # the reason is not logged: each start of a job fails with it
        self._seen = None
