"""How full the disk is that spools are on, for heartbeats: looked at in a thread, since a disk may not answer."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from scheduler.model import Disk
from scheduler.threads import Pool

#: Seconds between two looks at least, and after which what was seen tells nothing any more.
CHECK_INTERVAL_SECONDS, VALID_SECONDS = 10.0, 60.0


class DiskGauge:
    """One look at a time. ``clock`` tells how old the last one is."""

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
