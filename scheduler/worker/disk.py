"""The disk that spools are on: what is free, what a start needs of it, and what heartbeats tell of it."""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from scheduler.model import Disk
from scheduler.threads import Pool
from scheduler.units import Share
from scheduler.worker.trees import Amount

#: Inodes that must be free for a start: it takes about ten, and its job some more.
INODES_FOR_START = 64

#: What is freed for a start that a quota or the file system refused although enough looked free.
ROOM_AFTER_REFUSAL = Amount(1 << 20, INODES_FOR_START)

#: What one start takes of the disk, generously: its records, stdin and script.
ROOM_FOR_START = Amount(1 << 20, 16)

#: Seconds between two looks at least, and after which what was seen tells nothing any more.
CHECK_INTERVAL_SECONDS, VALID_SECONDS = 10.0, 60.0


class DiskFull(Exception):
    """The disk has less free than a start needs, and nothing was started; ``str()`` is a sentence that says so."""

    def __init__(self, reason: str, refused: bool = False) -> None:
        """``refused``: by the disk itself, whatever it says of what is free."""
        super().__init__(reason)
        self.refused = refused


def disk_of(folder: str) -> Disk:
    """The disk that a folder is on; ``OSError``."""
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


class DiskGauge:
    """How full the disk is, looked at in a thread, as a disk may not answer; one look at a time.

    ``clock`` tells how old the last look is.
    """

    def __init__(self, clock: IReactorTime, pool: Pool, disk_thd: Callable[[], Disk]) -> None:
        """``disk_thd`` looks; it may fail with ``OSError``."""
        self._clock = clock
        self._pool = pool
        self._disk_thd = disk_thd
        self._seen: Disk | None = None
        self._seen_at = 0.0
        # when the last look began, and whether it has not come back
        self._began: float | None = None
        self._looking = False

    def read(self) -> Disk | None:
        """As it was seen last, and have it looked at again, if that was a while ago; ``None``: not known."""
        now = self._clock.seconds()
        if not self._looking and (self._began is None or now - self._began >= CHECK_INTERVAL_SECONDS):
            self._began, self._looking = now, True
            self._pool.run(self._disk_thd).addCallbacks(self._look_done, self._look_failed)
        return self._seen if now - self._seen_at <= VALID_SECONDS else None

    def _look_done(self, disk: Disk) -> None:
        self._looking = False
        self._seen, self._seen_at = disk, self._clock.seconds()

    def _look_failed(self, _: Failure) -> None:
        self._looking = False  # whatever is wrong with it, each start of a job says so
        self._seen = None
