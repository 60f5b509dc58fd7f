"""The retention of spools with a disk in memory, for its tests."""

import errno
from collections.abc import Iterable
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from scheduler.model import Disk
from scheduler.units import Share
from scheduler.worker.clearing import DiskUse, Remains
from scheduler.worker.retention import RetentionLimits, SpoolRetention
from scheduler.worker.trees import Amount, Left
from tests.doubles.pools import InlinePool

HOUR = 3600.0

STRIPPED = 10


class FakeSpools:
    """A disk of 1000 bytes and inodes, of which ``other`` are somebody else's. One byte is one inode."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        #: So much of the size is in the work folder.
        self.work: dict[str, int] = {}
        self.running: dict[str, int] = {}
        self.other = 0
        self.inodes = 0
        self.measured: list[str] = []
        self.cleaned: list[str] = []
        self.stripped: list[str] = []
        #: Can't be renamed; can be renamed, and so much of it can't be removed.
        self.resisting: set[str] = set()
        self.remaining: dict[str, int] = {}
        #: Takes several tries.
        self.slow: set[str] = set()
        self.tries: list[str] = []
        self.left: dict[str, int] = {}
        self.error: OSError | None = None

    @property
    def clearing(self) -> "FakeSpools":
        return self

    def look_thd(self, running: Iterable[str]) -> tuple[Disk, dict[str, int]]:
        if self.error:
            raise self.error
        taken = sum([*self.sizes.values(), *self.running.values(), *self.left.values(), self.other])
        return Disk(1000, 1000 - taken, self.inodes, self.inodes - taken), dict.fromkeys(running, 0)

    def measure_thd(self, job_id: str, running: bool) -> DiskUse:
        self.measured.append(job_id)
        return DiskUse(work=both(self.running[job_id])) if running else self.taken(job_id)

    def taken(self, job_id: str) -> DiskUse:
        work = self.work.get(job_id, 0)
        output = self.sizes[job_id] - work
        if job_id in self.stripped:
            return DiskUse(work=both(work), records=both(output))
        return DiskUse(both(output), both(work))

    def clean_thd(self, job_id: str, output: bool) -> tuple[DiskUse, Left | None]:
        self.cleaned.append(job_id)
        if job_id in self.resisting:
            return self.taken(job_id), Left("work/x", "resists")
        self.sizes[job_id] -= self.work.pop(job_id, 0)
        if output:
            self.stripped.append(job_id)
            self.sizes[job_id] = STRIPPED
        return self.taken(job_id), None

    def use_up_thd(self, job_ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(job_ids)

    def remove_thd(self, job_id: str) -> Remains | None:
        self.tries.append(job_id)
        if job_id in self.resisting:
            raise OSError(errno.EPERM, "resists")
        del self.sizes[job_id]
        name = f".gone-{job_id}"
        self.left[name] = self.remaining.get(job_id, 0)
        return self.clear_thd(name)

    def clear_thd(self, name: str) -> Remains | None:
        self.tries.append(name)
        unfinished = name in self.slow
        self.slow.discard(name)
        if self.left[name] or unfinished:
            return Remains(name, Left("work/x", "resists", unfinished=unfinished), both(self.left[name]))
        del self.left[name]
        return None

    def leftovers(self) -> tuple[str, ...]:
        return tuple(self.left)


def both(number: int) -> Amount:
    return Amount(number, number)


class RetentionCase(SynchronousTestCase):
    """All limits are far away, unless a test says otherwise."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.pool = InlinePool()
        self.spools = FakeSpools()
        self.forgotten: list[str] = []
        #: Each time whether starts are refused has changed.
        self.told: list[str] = []
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.use()

    def use(
        self,
        keep_spool: float = HOUR,
        spool_max: int = 1000,
        spool_min_free: Share = Share(0),  # noqa: B008
    ) -> None:
        limits = RetentionLimits(keep_spool, Share(spool_max), spool_min_free)
        self.retention = SpoolRetention(
            self.clock,
            self.pool,
            self.spools,
            limits,
            lambda: self.spools.running,
            self.forgotten.append,
            lambda: self.told.append(self.retention.refusing),
        )
        self.retention.startService()
        self.addCleanup(self.retention.stopService)

    def end(self, job_id: str, size: int = 100, acknowledged: bool = True, age: float = 0.0, work: int = 0) -> None:
        """A job ends, and the scheduler keeps its end, or not."""
        self.spools.sizes[job_id] = size
        self.spools.work[job_id] = work
        self.retention.ended.add(job_id, age)
        if acknowledged:
            self.retention.ended.acknowledged(job_id, self.spools.taken(job_id))

    def later(self, seconds: float = 2.0) -> None:
        """Time for a sweep, or more."""
        self.clock.advance(seconds)

    @property
    def kept(self) -> list[str]:
        self.assertEqual(set(self.forgotten) & set(self.spools.sizes), set())
        return sorted(self.spools.sizes)

    @property
    def errors(self) -> list[str]:
        """Answer the errors in the log."""
        return [formatEvent(event) for event in self.events if event["log_level"] is LogLevel.error]
