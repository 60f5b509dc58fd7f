"""Keeps the spools of ended jobs within limits of age and size.

Theory of operation. A sweep measures all spools. It removes jobs that are acknowledged and older than ``keep_spool``,
and jobs that have to make room: for ``spool_max``, and for a start that finds too little free. ``eviction`` chooses
them. A job whose end the scheduler has not acknowledged is never removed. If the spools exceed ``spool_max`` and
nothing else can be removed, its output is removed and its records stay. A scheduler that knows only the core protocol
acknowledges nothing, so no removal waits for that then. Running jobs count, and are not touched.

A folder that can't be removed still counts, so other jobs are removed instead of it: like a running job, for a quarter
of ``spool_max`` at most. It is logged once, and tried again, later each time. A removal or a measurement that takes
long delays nothing else: the sweep goes on, and leaves that job alone until the operation is over.

An ended job is measured once, a running one once a minute. The age of an ended job is measured by the monotonic clock
from its end on, or from the age that it had, by the wall clock, when this process found it. So a step of the clock
makes no job older. A clock that is wrong when the worker starts does: a slow one keeps jobs longer, and with one that
is days ahead all acknowledged jobs look old.

There is one sweep at a time, by a timer and soon after ends. A removal for a client does not wait for sweeps, only for
an operation on the same job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.daemon.services import Periodic
from scheduler.errors import ShuttingDown, Unavailable
from scheduler.model import Disk
from scheduler.threads import Pool
from scheduler.units import Share
from scheduler.worker.clearing import DiskUse
from scheduler.worker.disk import ROOM_AFTER_REFUSAL, DiskFull, lack, shortage
from scheduler.worker.ended_jobs import EndedJobs
from scheduler.worker.eviction import Demand, Plan, choose, counted
from scheduler.worker.patience import Patience
from scheduler.worker.spools import Spools
from scheduler.worker.trees import NOTHING, Amount

T = TypeVar("T")

#: Seconds between two sweeps, at most: always, and while starts are refused.
_SWEEP_INTERVAL_SECONDS = 60.0
_REFUSING_SWEEP_INTERVAL_SECONDS = 10.0

#: Seconds between two looks into the folder of a job that runs.
_RUNNING_CHECK_INTERVAL_SECONDS = 60.0

#: A running job pushes out at most ``spool_max`` divided by this.
_PUSHED_OUT_DIVISOR = 4


@frozen
class RetentionLimits:
    """The limits in ``[worker]`` of the configuration."""

    #: Seconds.
    keep_spool: float
    #: The most that all spools together may take of their disk.
    spool_max: Share
    #: The part of the disk that must be free for a start.
    spool_min_free: Share


@define(eq=False)
class _Running:
    """The disk use of a running job."""

    looked_at: float
    taken: DiskUse = field(factory=DiskUse)
    #: Bytes of output.
    written: int = 0
    busy: bool = False

    @property
    def amount(self) -> Amount:
        size = self.taken.all.size - self.taken.output.size + self.written
        return Amount(size, self.taken.all.entries)


class SpoolRetention(Periodic):
    """Keeps the spools of this worker within their limits."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        pool: Pool,
        spools: Spools,
        limits: RetentionLimits,
        running: Callable[[], Iterable[str]],
        forget: Callable[[str], None],
        refusing_changed: Callable[[], None],
    ) -> None:
        """``running`` answers the ids of running jobs; ``forget`` is called with each job that is removed."""
        super().__init__(clock, min(_SWEEP_INTERVAL_SECONDS, limits.keep_spool), self._sweep_now, at_once=True)
        self._clock = clock
        self._pool = pool
        self._spools = spools
        self._limits = limits
        self._running_ids = running
        self._refusing_changed = refusing_changed
        self._refusing = ""
        #: Starts that found too little free, until they have been tried once more.
        self._waiting = 0
        self._running: dict[str, _Running] = {}
        self._patience = Patience(clock, self._failed)
        self.ended = EndedJobs(clock, pool, spools, self._patience, forget, self._sweep_soon)
        self._lock = DeferredLock()
        self._soon: IDelayedCall | None = None

    def stopService(self) -> None:
        super().stopService()
        self._cancel_soon()

    # starts

    def make_room(self, refused: bool = False) -> Deferred[None]:
        """Free enough for a start, if the acknowledged jobs suffice for that. Never fails.

        ``refused``: the disk refused a start, however much it says is free.
        """
        return self._run(ROOM_AFTER_REFUSAL if refused else NOTHING)

    async def with_room(self, start: Callable[[], Deferred[T]]) -> T:
        """Call ``start``; if it raises ``DiskFull``, make room and try again. Raises ``Unavailable`` if that fails."""
        try:
            started = await start()
        except DiskFull as lacking:
            self._waiting += 1
            try:
                await self.make_room(lacking.refused)
                started = await start()
            except DiskFull as error:
                self.refusing = str(error)
                raise Unavailable(str(error)) from error
            finally:
                self._waiting -= 1
        self.refusing = ""
        return started

    @property
    def refusing(self) -> str:
        """The reason why starts are refused now, a sentence; ``""``: they are not."""
        return self._refusing

    @refusing.setter
    def refusing(self, why: str) -> None:
        before, self._refusing = self._refusing, why
        if why:
            self._sweep_soon(_REFUSING_SWEEP_INTERVAL_SECONDS)
        if bool(why) != bool(before):  # the free bytes in the sentence change all the time
            if why:
                self._log.warn("no job is started: {why}", why=why)
            else:
                self._log.info("jobs are started again")
            self._refusing_changed()

    # sweeps

    def _sweep_soon(self, seconds: float) -> None:
        due = self._clock.seconds() + seconds
        if self.running and (self._soon is None or due < self._soon.getTime()):
            self._cancel_soon()
            self._soon = self._clock.callLater(seconds, self._sweep_now)

    def _cancel_soon(self) -> None:
        soon, self._soon = self._soon, None
        if soon is not None and soon.active():
            soon.cancel()

    def _sweep_now(self) -> None:
        self._cancel_soon()
        self._run(None)

    def _run(self, room: Amount | None) -> Deferred[None]:
        done: Deferred[None] = self._lock.run(lambda: Deferred.fromCoroutine(self._sweep(room)))
        return done.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if failure.check(ShuttingDown) is None:
            self._log.failure("old jobs are not removed", failure)

    async def _sweep(self, room: Amount | None) -> None:
        """Do one sweep. ``room``: free at least that much for a start; ``None``: there is no start."""
        disk = await self._look()
        plan = self._plan(disk, self._demand(disk, room, self._waiting))
        await self.ended.clean(plan.clean, output=False)
        if going := [*plan.expired, *plan.remove]:
            await self.ended.remove_all(going)
        await self.ended.clean(plan.strip, output=True)
        if plan.clean:
            self._log.info("{count} work folders of ended jobs are removed", count=len(plan.clean))
        if plan.strip:
            self._log.warn("the output of {count} jobs that were not acknowledged is removed", count=len(plan.strip))
        await self.ended.leftovers.try_again()
        await self._judge_starts()

    async def _judge_starts(self) -> None:
        """Refuse starts if one would find too little free, even after all that may be removed for it."""
        disk, _ = await self._pool.run(self._spools.look_thd, ())
        why = lack(disk, self._limits.spool_min_free)
        if why and self._plan(disk, self._demand(disk, NOTHING)._replace(over=0)).rest.short_met:
            why = ""
        self.refusing = why

    def _plan(self, disk: Disk, demand: Demand) -> Plan:
        return choose(self.ended.all(), self._clock.seconds(), self._limits.keep_spool, self._quarter(disk), demand)

    def _quarter(self, disk: Disk) -> int:
        return self._limits.spool_max.of(disk.size) // _PUSHED_OUT_DIVISOR

    def _demand(self, disk: Disk, room: Amount | None, starts: int = 0) -> Demand:
        quarter = self._quarter(disk)
        entries = disk.inodes * quarter // disk.size if disk.size else 0
        short = NOTHING
        if room is not None:
            missing = shortage(disk, self._limits.spool_min_free, starts)
            short = Amount(max(missing.size, room.size), max(missing.entries, room.entries))
        ended = self.ended.size + sum(min(amount.size, quarter) for amount in self.ended.leftovers.amounts())
        running = [each.amount for each in self._running.values()]
        return counted(ended, running, self._limits.spool_max.of(disk.size), short, Amount(quarter, entries))

    # looking

    async def _look(self) -> Disk:
        """Measure the jobs that were not measured, or not lately; answers the disk."""
        now, ids = self._clock.seconds(), tuple(self._running_ids())
        self._running = {
            job_id: self._running.get(job_id) or _Running(now - _RUNNING_CHECK_INTERVAL_SECONDS) for job_id in ids
        }
        disk, written = await self._pool.run(self._spools.look_thd, ids)
        for job_id, size in written.items():
            if job_id in self._running:
                self._running[job_id].written = size
        await self.ended.measure_new()
        for job_id, running in tuple(self._running.items()):
            if not running.busy and now - running.looked_at >= _RUNNING_CHECK_INTERVAL_SECONDS:
                running.looked_at = now
                await self._patience.wait(job_id, self._measure_running(job_id, running))
        return disk

    async def _measure_running(self, job_id: str, running: _Running) -> None:
        running.busy = True
        try:
            running.taken = await self._pool.run(self._spools.measure_thd, job_id, True)
        finally:
            running.busy = False
