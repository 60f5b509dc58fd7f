"""What is kept of jobs that have ended, and for how long.

Theory of operation. A sweep looks how much all spools take, and removes: what
was acknowledged and kept for ``keep_spool``; beyond ``spool_max``, and for a start
that finds less than ``spool_min_free``, what was acknowledged, the oldest first.
An end that the scheduler does not keep yet is never removed. If nothing else is
left beyond ``spool_max`` its output goes and its record stays. What runs counts,
and is not touched.

How much an ended job takes is looked at once. Its age is measured by the
monotonic clock from its end on, or from the age it had, by the wall clock, when
this process found it. So a step of the clock makes nothing older; a clock that
is wrong when the worker starts does: one that is slow, or was, keeps jobs
longer, and one that is days ahead makes all look old that were acknowledged.

There is one sweep at a time, by a timer and soon after ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from attrs import define, frozen
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.errors import ShuttingDown
from scheduler.services import Periodic
from scheduler.sizes import Share
from scheduler.threads import Pool
from scheduler.worker.room import Disk, Taken

#: Seconds between two sweeps at most, and from an end to the next.
_SWEEP_EVERY = 60.0
_SWEEP_AFTER_END = 1.0


@frozen
class Limits:
    """What ``[worker]`` of the configuration says."""

    #: Seconds.
    keep_spool: float
    #: All spools together, of the disk they are on.
    spool_max: Share
    #: Of the disk, for a start.
    spool_min_free: Share


class Spools(Protocol):
    """``scheduler.worker.spools.Spools``, as far as it is about this."""

    def measure_thd(self, ended: Iterable[str], running: Iterable[str]) -> tuple[Mapping[str, Taken], Disk, int]: ...

    def remove_thd(self, job_ids: Iterable[str]) -> tuple[str, ...]: ...

    def strip_thd(self, job_ids: Iterable[str]) -> Mapping[str, Taken]: ...


@define(eq=False)
class Kept:
    """An ended job."""

    job_id: str
    #: By the monotonic clock.
    ended_at: float
    acknowledged: bool = False
    #: ``None``: not looked at yet.
    taken: Taken | None = None

    @property
    def size(self) -> int:
        return 0 if self.taken is None else self.taken.size


def choose(kept: Iterable[Kept], older_than: float, over: int, short: int) -> tuple[list[str], list[str]]:
    """Which of ``kept``, oldest first, to remove, and which to strip of their output.

    ``over`` bytes are to go, and ``short`` bytes if that can be had from those acknowledged.
    """
    remove, strip = [], []
    unacknowledged = []
    for job in kept:
        if job.ended_at > older_than and max(over, short) <= 0:
            break
        if job.acknowledged:
            remove.append(job.job_id)
            over, short = over - job.size, short - job.size
        else:
            unacknowledged.append(job)
    for job in unacknowledged:
        if over <= 0:
            break
        if job.taken is not None and not job.taken.stripped:
            strip.append(job.job_id)
            over -= job.size
    return remove, strip


class Retention:
    """The ended jobs of this worker."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        pool: Pool,
        spools: Spools,
        limits: Limits,
        running: Callable[[], Iterable[str]],
        forget: Callable[[str], None],
    ) -> None:
        """``running`` says which jobs run; ``forget`` is called with each that is no more."""
        self._clock = clock
        self._pool = pool
        self._spools = spools
        self._limits = limits
        self._running = running
        self._forget = forget
        #: In the order of their ends.
        self._kept: dict[str, Kept] = {}
        self._unmeasured: set[str] = set()
        self._size = 0
        self._lock = DeferredLock()
        self._soon: IDelayedCall | None = None
        self._timer = Periodic(clock, min(_SWEEP_EVERY, limits.keep_spool), self._sweep_now, at_once=True)

    def start(self) -> None:
        """Sweep, now and from time to time."""
        self._timer.startService()

    def stop(self) -> None:
        """Sweep no more."""
        self._timer.stopService()
        soon, self._soon = self._soon, None
        if soon is not None:
            soon.cancel()

    def ended(self, job_id: str, age: float = 0.0, acknowledged: bool = False, size: int | None = None) -> None:
        """One more, which ended ``age`` seconds ago: not before one that was told of earlier."""
        taken = None if size is None else Taken(size)
        self._kept[job_id] = Kept(job_id, self._clock.seconds() - age, acknowledged, taken)
        if size is None:
            self._unmeasured.add(job_id)
        else:
            self._size += size
        self._sweep_soon()

    def acknowledged(self, job_id: str, taken: Taken) -> None:
        """The scheduler keeps its end."""
        job = self._kept.get(job_id)
        if job is not None:
            job.acknowledged = True
            self._measured(job, taken)
            self._sweep_soon()

    def make_room(self) -> Deferred[None]:
        """Have ``spool_min_free`` be free, if what was acknowledged suffices for that. It never fails."""
        return self._run(room=True)

    def _sweep_soon(self) -> None:
        if self._soon is None and self._timer.running:
            self._soon = self._clock.callLater(_SWEEP_AFTER_END, self._sweep_now)

    def _sweep_now(self) -> None:
        if self._soon is not None and self._soon.active():
            self._soon.cancel()
        self._soon = None
        self._run(room=False)

    def _run(self, room: bool) -> Deferred[None]:
        done: Deferred[None] = self._lock.run(lambda: Deferred.fromCoroutine(self._sweep(room)))
        return done.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if failure.check(ShuttingDown) is None:
            self._log.failure("old jobs are not removed", failure)

    async def _sweep(self, room: bool) -> None:
        look = self._spools.measure_thd, tuple(self._unmeasured), tuple(self._running())
        measured, disk, running = await self._pool.run(*look)
        self._take_in(measured)
        over = self._size + running - self._limits.spool_max.of(disk.size)
        short = self._limits.spool_min_free.of(disk.size) - disk.free if room else 0
        older_than = self._clock.seconds() - self._limits.keep_spool
        remove, strip = choose(self._kept.values(), older_than, over, short)
        if remove:
            removed = await self._pool.run(self._spools.remove_thd, remove)
            for job_id in removed:
                self._drop(job_id)
            self._log.info("{count} old jobs removed", count=len(removed))
        if strip:
            self._take_in(await self._pool.run(self._spools.strip_thd, strip))
            self._log.warn("the output of {count} jobs that were not acknowledged is removed", count=len(strip))

    def _take_in(self, measured: Mapping[str, Taken]) -> None:
        for job_id, taken in measured.items():
            if job_id in self._kept:
                self._measured(self._kept[job_id], taken)

    def _measured(self, job: Kept, taken: Taken) -> None:
        self._size += taken.size - job.size
        job.taken = taken
        self._unmeasured.discard(job.job_id)

    def _drop(self, job_id: str) -> None:
        job = self._kept.pop(job_id)
        self._unmeasured.discard(job_id)
        self._size -= job.size
        self._forget(job_id)
