"""What is kept of jobs that have ended, and for how long.

Theory of operation. A sweep looks how much all spools take, and removes: what was
acknowledged and kept for ``keep_spool``; and what has to make room, beyond ``spool_max``
and for a start that finds too little free. ``scheduler.worker.eviction`` says which goes.
An end that the scheduler does not keep yet is never removed. If nothing else is left
beyond ``spool_max`` its output goes and its record stays. Under a scheduler with only
the core protocol, which acknowledges nothing, no acknowledgement is waited for. What runs counts, and is not
touched.

What could not be removed still counts, so others go instead: for a quarter of ``spool_max``
at most, as for one job that runs. It is logged once, and tried again, later each time. A
removal or a look that takes long holds up nothing else: the sweep goes on without it, and
leaves that job alone until it is over.

How much an ended job takes is looked at once; a job that runs, once a minute. The age of
an ended job is measured by the monotonic clock from its end on, or from the age it had, by
the wall clock, when this process found it. So a step of the clock makes nothing older; a
clock that is wrong when the worker starts does: one that is slow, or was, keeps jobs
longer, and one that is days ahead makes all look old that were acknowledged.

There is one sweep at a time, by a timer and soon after ends. A removal that a client asks
for does not wait for sweeps, only for what is being done to that job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, TypeVar

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
from scheduler.worker import leftovers
from scheduler.worker.clearing import Remains
from scheduler.worker.eviction import Demand, Kept, choose, counted
from scheduler.worker.leftovers import Leftovers, retry_delay
from scheduler.worker.patience import Patience
from scheduler.worker.room import ROOM_AFTER_REFUSAL, DiskFull, DiskUse, lack, shortage
from scheduler.worker.trees import NOTHING, Amount, Left

T = TypeVar("T")

#: Seconds between two sweeps at most; from an end, or an unfinished removal, to the next; and while starts are refused.
_SWEEP_INTERVAL_SECONDS = 60.0
_SWEEP_AFTER_END_SECONDS = 1.0
_REFUSING_SWEEP_INTERVAL_SECONDS = 10.0

#: Seconds between two looks into the folder of a job that runs.
_RUNNING_CHECK_INTERVAL_SECONDS = 60.0

#: One job that runs pushes out so much of ``spool_max``.
_PUSHED_OUT_DIVISOR = 4


@frozen
class RetentionLimits:
    """What ``[worker]`` of the configuration says."""

    #: Seconds.
    keep_spool: float
    #: All spools together, of the disk they are on.
    spool_max: Share
    #: Of the disk, for a start.
    spool_min_free: Share


class SpoolsLike(leftovers.LeftoverSpoolsLike, Protocol):
    """``scheduler.worker.spools.Spools``, as far as it is about this."""

    def look_thd(self, running: Iterable[str]) -> tuple[Disk, Mapping[str, int]]: ...

    def measure_thd(self, job_id: str, running: bool) -> DiskUse: ...

    def clean_thd(self, job_id: str, output: bool) -> tuple[DiskUse, Left | None]: ...

    def use_up_thd(self, job_ids: Iterable[str]) -> tuple[str, ...]: ...

    def remove_thd(self, job_id: str) -> Remains | None: ...


@define(eq=False)
class _Running:
    """What is known of the folder of a job that runs."""

    looked_at: float
    taken: DiskUse = field(factory=DiskUse)
    #: Bytes of output.
    written: int = 0
    busy: bool = False

    @property
    def amount(self) -> Amount:
        size = self.taken.all.size - self.taken.output.size + self.written
        return Amount(size, self.taken.all.entries)


class SpoolRetention:
    """The ended jobs of this worker."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        pool: Pool,
        spools: SpoolsLike,
        limits: RetentionLimits,
        running: Callable[[], Iterable[str]],
        forget: Callable[[str], None],
        refusing_changed: Callable[[], None],
    ) -> None:
        """``running`` says which jobs run; ``forget`` is called with each that is no more."""
        self._clock = clock
        self._pool = pool
        self._spools = spools
        self._limits = limits
        self._running_ids = running
        self._forget = forget
        self._refusing_changed = refusing_changed
        self._refusing = ""
        #: Starts that found no room, until they have come once more.
        self._waiting = 0
        #: Ends are acknowledged some time.
        self._awaiting = True
        #: In the order of their ends.
        self._kept: dict[str, Kept] = {}
        self._unmeasured: set[str] = set()
        #: By the ids of jobs: who waits until nothing is done to one any more.
        self._until_idle: dict[str, list[Deferred[None]]] = {}
        #: Bytes that ``_kept`` takes.
        self.size = 0
        self._running: dict[str, _Running] = {}
        self._patience = Patience(clock, self._failed)
        self._leftovers = Leftovers(clock, pool, spools, self._patience, self._sweep_soon)
        self._lock = DeferredLock()
        self._soon: IDelayedCall | None = None
        self._timer = Periodic(clock, min(_SWEEP_INTERVAL_SECONDS, limits.keep_spool), self._sweep_now, at_once=True)

    def start(self) -> None:
        """Sweep, now and from time to time."""
        self._timer.startService()

    def stop(self) -> None:
        """Sweep no more."""
        self._timer.stopService()
        soon, self._soon = self._soon, None
        if soon is not None:
            soon.cancel()

    def ended(self, job_id: str, age: float = 0.0, acknowledged: bool = False, taken: DiskUse | None = None) -> None:
        """One more, which ended ``age`` seconds ago: not before one that was told of earlier."""
        self._kept[job_id] = Kept(job_id, self._clock.seconds() - age, acknowledged, not self._awaiting, taken)
        if taken is None:
            self._unmeasured.add(job_id)
        else:
            self.size += taken.all.size
        self._sweep_soon(_SWEEP_AFTER_END_SECONDS)

    def acknowledged(self, job_id: str, taken: DiskUse) -> None:
        """The scheduler keeps its end."""
        job = self._kept.get(job_id)
        if job is not None:
            job.acknowledged = True
            self._measured(job, taken)
            self._sweep_soon(_SWEEP_AFTER_END_SECONDS)

    def not_acknowledged(self, job_ids: Iterable[str]) -> None:
        """The scheduler may not keep their ends any more."""
        for job_id in job_ids:
            if job_id in self._kept:
                self._kept[job_id].acknowledged = False

    def expect_acknowledgements(self, expected: bool) -> None:
        """Whether the scheduler ever says that it keeps an end; if not, none waits for that to be removed."""
        if self._awaiting is expected:
            return
        self._awaiting = expected
        for job in self._kept.values():
            job.unawaited = not expected
        self._sweep_soon(_SWEEP_AFTER_END_SECONDS)

    def make_room(self, refused: bool = False) -> Deferred[None]:
        """Have enough be free for a start, if what was acknowledged suffices for that. It never fails.

        ``refused``: a start found no room, whatever the disk says of what is free.
        """
        return self._run(ROOM_AFTER_REFUSAL if refused else NOTHING)

    async def with_room(self, start: Callable[[], Deferred[T]]) -> T:
        """Call ``start``, and where that fails with ``DiskFull`` once more, after room was made; ``Unavailable``."""
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

    async def remove(self, job_id: str) -> None:
        """Remove one that has ended, whether or not that was acknowledged, or that is not kept any more.

        ``Unavailable``: it, or something that was in its folder, is still there.
        """
        while (job := self._kept.get(job_id)) is not None and job.busy:
            idle: Deferred[None] = Deferred()
            self._until_idle.setdefault(job_id, []).append(idle)
            await idle
        why = ""
        if job is not None:
            with self._busy(job):
                usable = await self._pool.run(self._spools.use_up_thd, [job_id])
                why = await self._take_away(job) if usable else "its id can't be written down as used"
        why = why or await self._leftovers.clear_of(job_id)
        if why:
            raise Unavailable(f"job {job_id!r} can't be removed: {why}")
        self._log.info("job {job_id} is removed, as asked for", job_id=job_id)

    # why nothing is started

    @property
    def refusing(self) -> str:
        """Why starts are refused now, a sentence; ``""``: they are not."""
        return self._refusing

    @refusing.setter
    def refusing(self, why: str) -> None:
        before, self._refusing = self._refusing, why
        if why:
            self._sweep_soon(_REFUSING_SWEEP_INTERVAL_SECONDS)
        if bool(why) != bool(before):  # how much is free changes all the time
            if why:
                self._log.warn("no job is started: {why}", why=why)
            else:
                self._log.info("jobs are started again")
            self._refusing_changed()

    # sweeps

    def _sweep_soon(self, seconds: float) -> None:
        if not self._timer.running:
            return
        due = self._clock.seconds() + seconds
        if self._soon is not None and self._soon.active():
            if self._soon.getTime() <= due:
                return
            self._soon.cancel()
        self._soon = self._clock.callLater(seconds, self._sweep_now)

    def _sweep_now(self) -> None:
        if self._soon is not None and self._soon.active():
            self._soon.cancel()
        self._soon = None
        self._run(None)

    def _run(self, room: Amount | None) -> Deferred[None]:
        done: Deferred[None] = self._lock.run(lambda: Deferred.fromCoroutine(self._sweep(room)))
        return done.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if failure.check(ShuttingDown) is None:
            self._log.failure("old jobs are not removed", failure)

    async def _sweep(self, room: Amount | None) -> None:
        """``room``: have at least so much more be free for a start; ``None``: there is no start."""
        disk = await self._look()
        quarter = self._limits.spool_max.of(disk.size) // _PUSHED_OUT_DIVISOR
        now = self._clock.seconds()
        demand = self._demand(disk, room, self._waiting)
        plan = choose(self._kept.values(), now, self._limits.keep_spool, quarter, demand)
        for job in self._idle(plan.clean):
            await self._patience.wait(job.job_id, self._clean(job, output=False))
        going = [*plan.expired, *plan.remove]
        if going:
            await self._remove_all(going)
        for job in self._idle(plan.strip):
            await self._patience.wait(job.job_id, self._clean(job, output=True))
        if plan.clean:
            self._log.info("{count} work folders of ended jobs are removed", count=len(plan.clean))
        if plan.strip:
            self._log.warn("the output of {count} jobs that were not acknowledged is removed", count=len(plan.strip))
        await self._leftovers.try_again()
        await self._say(quarter)

    def _demand(self, disk: Disk, room: Amount | None, starts: int = 0) -> Demand:
        most = self._limits.spool_max.of(disk.size)
        quarter = most // _PUSHED_OUT_DIVISOR
        entries = disk.inodes * quarter // disk.size if disk.size else 0
        short = NOTHING
        if room is not None:
            missing = shortage(disk, self._limits.spool_min_free, starts)
            short = Amount(max(missing.size, room.size), max(missing.entries, room.entries))
        ended = self.size + sum(min(amount.size, quarter) for amount in self._leftovers.amounts())
        running = [each.amount for each in self._running.values()]
        return counted(ended, running, most, short, Amount(quarter, entries))

    async def _say(self, quarter: int) -> None:
        """Whether a start would be refused, though all were removed for it that may be."""
        disk, _ = await self._pool.run(self._spools.look_thd, ())
        now, why = self._clock.seconds(), lack(disk, self._limits.spool_min_free)
        if why:
            demand = self._demand(disk, NOTHING)._replace(over=0)
            if choose(self._kept.values(), now, self._limits.keep_spool, quarter, demand).rest.short_met:
                why = ""
        self.refusing = why

    # looking

    async def _look(self) -> Disk:
        now, ids = self._clock.seconds(), tuple(self._running_ids())
        self._running = {
            job_id: self._running.get(job_id) or _Running(now - _RUNNING_CHECK_INTERVAL_SECONDS) for job_id in ids
        }
        disk, written = await self._pool.run(self._spools.look_thd, ids)
        for job_id, size in written.items():
            if job_id in self._running:
                self._running[job_id].written = size
        for job in self._idle(tuple(self._unmeasured)):
            await self._patience.wait(job.job_id, self._measure(job))
        for job_id, running in tuple(self._running.items()):
            if not running.busy and now - running.looked_at >= _RUNNING_CHECK_INTERVAL_SECONDS:
                running.looked_at = now
                await self._patience.wait(job_id, self._measure_running(job_id, running))
        return disk

    async def _measure(self, job: Kept) -> None:
        with self._busy(job):
            taken = await self._pool.run(self._spools.measure_thd, job.job_id, False)
            if job.job_id in self._unmeasured:
                self._measured(job, taken)

    async def _measure_running(self, job_id: str, running: _Running) -> None:
        running.busy = True
        try:
            running.taken = await self._pool.run(self._spools.measure_thd, job_id, True)
        finally:
            running.busy = False

    def _measured(self, job: Kept, taken: DiskUse) -> None:
        self.size += taken.all.size - job.amount.size
        job.taken = taken
        self._unmeasured.discard(job.job_id)

    # removing

    def _idle(self, job_ids: Iterable[str]) -> Iterator[Kept]:
        """Those of them that are here, when it is their turn, and that nothing is done to."""
        for job_id in job_ids:
            job = self._kept.get(job_id)
            if job is not None and not job.busy:
                yield job

    @contextmanager
    def _busy(self, job: Kept) -> Iterator[None]:
        """Nothing else is done to that job meanwhile."""
        job.busy = True
        try:
            yield
        finally:
            job.busy = False
            for waiting in self._until_idle.pop(job.job_id, []):
                waiting.callback(None)

    async def _clean(self, job: Kept, output: bool) -> None:
        with self._busy(job):
            taken, left = await self._pool.run(self._spools.clean_thd, job.job_id, output)
            self._measured(job, taken)
            if left is not None and left.unfinished:
                self._sweep_soon(_SWEEP_AFTER_END_SECONDS)
            elif left is not None:
                self._log_resisting(job, left)
                job.cleaned_after = self._retry_at(job.resisted)

    async def _remove_all(self, going: list[str]) -> None:
        usable = await self._pool.run(self._spools.use_up_thd, going)
        for job in self._idle(set(going) - set(usable)):  # that is logged
            job.removed_after = self._retry_at(1)
        before = len(self._kept)
        for job in self._idle(usable):
            if job.acknowledged or job.unawaited:  # else its end is to be reported once more, as was asked meanwhile
                await self._patience.wait(job.job_id, self._remove(job))
        self._log.info("{count} old jobs removed", count=before - len(self._kept))

    async def _remove(self, job: Kept) -> None:
        with self._busy(job):
            await self._take_away(job)

    async def _take_away(self, job: Kept) -> str:
        """Why it is still there; ``""``: it is removed. Its id is used up."""
        try:
            remains = await self._pool.run(self._spools.remove_thd, job.job_id)
        except OSError as error:
            why = error.strerror or str(error)
            self._log_resisting(job, Left("its folder", why))
            job.removed_after = self._retry_at(job.resisted)
            return why
        self._drop(job)
        if remains is not None:
            self._leftovers.add(remains, told=job.resisted > 0)
        return ""

    def _drop(self, job: Kept) -> None:
        del self._kept[job.job_id]
        self._unmeasured.discard(job.job_id)
        self.size -= job.amount.size
        self._forget(job.job_id)

    def _log_resisting(self, job: Kept, left: Left) -> None:
        if not job.resisted:
            message = "{path} of job {job_id}, which takes {size} bytes, can't be removed: {why}"
            self._log.error(message, path=left.path, job_id=job.job_id, size=job.amount.size, why=left.why)
        job.resisted += 1

    def _retry_at(self, tried: int) -> float:
        return self._clock.seconds() + retry_delay(tried)
