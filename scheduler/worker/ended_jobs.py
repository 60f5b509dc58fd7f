"""The ended jobs whose folders are here: the disk use of each, and their removal, one operation on a job at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from attrs import define
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from scheduler.deferreds import Waiters
from scheduler.errors import Unavailable
from scheduler.threads import Pool
from scheduler.worker.clearing import DiskUse
from scheduler.worker.eviction import Kept
from scheduler.worker.leftovers import Leftovers, retry_delay
from scheduler.worker.patience import Patience
from scheduler.worker.spools import Spools
from scheduler.worker.trees import Left

#: Seconds from an end, or an unfinished removal, to the next sweep.
_SWEEP_AFTER_END_SECONDS = 1.0


@define(eq=False, slots=False)
class EndedJobs:
    """The ended jobs of one worker. Called on the reactor thread."""

    _log = Logger()

    _clock: IReactorTime
    _pool: Pool
    _spools: Spools
    _patience: Patience
    #: Is called with each job that is removed.
    _forget: Callable[[str], None]
    #: Is called with the seconds to the next sweep.
    _sweep_soon: Callable[[float], None]

    def __attrs_post_init__(self) -> None:
        #: The scheduler acknowledges ends.
        self._awaiting = True
        #: In the order of their ends.
        self._jobs: dict[str, Kept] = {}
        self._unmeasured: set[str] = set()
        #: By job id: removals that wait until no other operation works on the job.
        self._until_idle: dict[str, Waiters[None]] = {}
        #: Bytes of all of them.
        self.size = 0
        self.leftovers = Leftovers(self._clock, self._pool, self._spools.clearing, self._patience, self._sweep_soon)

    def all(self) -> Iterable[Kept]:
        return self._jobs.values()

    # knowledge

    def add(self, job_id: str, age: float = 0.0, acknowledged: bool = False, taken: DiskUse | None = None) -> None:
        """Take up a job that ended ``age`` seconds ago, and not before those that were added earlier."""
        self._jobs[job_id] = Kept(job_id, self._clock.seconds() - age, acknowledged, not self._awaiting, taken)
        if taken is None:
            self._unmeasured.add(job_id)
        else:
            self.size += taken.all.size
        self._sweep_soon(_SWEEP_AFTER_END_SECONDS)

    def acknowledged(self, job_id: str, taken: DiskUse) -> None:
        """Note that the scheduler keeps the end of the job."""
        if (job := self._jobs.get(job_id)) is not None:
            job.acknowledged = True
            self._measured(job, taken)
            self._sweep_soon(_SWEEP_AFTER_END_SECONDS)

    def not_acknowledged(self, job_ids: Iterable[str]) -> None:
        """Note that the scheduler may not keep these ends any more."""
        for job_id in job_ids:
            if job_id in self._jobs:
                self._jobs[job_id].acknowledged = False

    def expect_acknowledgements(self, expected: bool) -> None:
        """Note whether the scheduler ever acknowledges an end. If not, no removal waits for that."""
        if self._awaiting is expected:
            return
        self._awaiting = expected
        for job in self._jobs.values():
            job.unawaited = not expected
        self._sweep_soon(_SWEEP_AFTER_END_SECONDS)

    # one operation at a time

    def idle(self, job_ids: Iterable[str]) -> Iterator[Kept]:
        """Go through those of the jobs that are here, each only if no operation works on it when its turn comes."""
        for job_id in job_ids:
            job = self._jobs.get(job_id)
            if job is not None and not job.busy:
                yield job

    @contextmanager
    def busy(self, job: Kept) -> Iterator[None]:
        """Keep other operations off the job within the context."""
        job.busy = True
        try:
            yield
        finally:
            job.busy = False
            self._until_idle.pop(job.job_id, Waiters()).settle(None)

    # measuring

    async def measure_new(self) -> None:
        for job in self.idle(tuple(self._unmeasured)):
            await self._patience.wait(job.job_id, self._measure(job))

    async def _measure(self, job: Kept) -> None:
        with self.busy(job):
            taken = await self._pool.run(self._spools.measure_thd, job.job_id, False)
            if job.job_id in self._unmeasured:
                self._measured(job, taken)

    def _measured(self, job: Kept, taken: DiskUse) -> None:
        self.size += taken.all.size - job.amount.size
        job.taken = taken
        self._unmeasured.discard(job.job_id)

    # removing

    async def clean(self, job_ids: Iterable[str], output: bool) -> None:
        """Remove the work folders of these jobs, and with ``output`` their output, too."""
        for job in self.idle(job_ids):
            await self._patience.wait(job.job_id, self._clean(job, output))

    async def _clean(self, job: Kept, output: bool) -> None:
        with self.busy(job):
            taken, left = await self._pool.run(self._spools.clean_thd, job.job_id, output)
            self._measured(job, taken)
            if left is not None and left.unfinished:
                self._sweep_soon(_SWEEP_AFTER_END_SECONDS)
            elif left is not None:
                self._log_resisting(job, left)
                job.cleaned_after = self._retry_at(job.resisted)

    async def remove_all(self, job_ids: list[str]) -> None:
        """Remove these jobs, once it is written down that their ids are used."""
        usable = await self._pool.run(self._spools.use_up_thd, job_ids)
        for job in self.idle(set(job_ids) - set(usable)):  # the log says why
            job.removed_after = self._retry_at(1)
        before = len(self._jobs)
        for job in self.idle(usable):
            if job.acknowledged or job.unawaited:  # else the scheduler has asked meanwhile for its end once more
                await self._patience.wait(job.job_id, self._remove(job))
        self._log.info("{count} old jobs removed", count=before - len(self._jobs))

    async def _remove(self, job: Kept) -> None:
        with self.busy(job):
            await self._take_away(job)

    async def remove(self, job_id: str) -> None:
        """Remove a job for a client, acknowledged or not, and its leftovers; it need not be here any more.

        Waits only for an operation on that job. Raises ``Unavailable`` if a part of the job's folder is still there.
        """
        while (job := self._jobs.get(job_id)) is not None and job.busy:
            await self._until_idle.setdefault(job_id, Waiters()).wait()
        why = ""
        if job is not None:
            with self.busy(job):
                usable = await self._pool.run(self._spools.use_up_thd, [job_id])
                why = await self._take_away(job) if usable else "its id can't be written down as used"
        why = why or await self.leftovers.clear_of(job_id)
        if why:
            raise Unavailable(f"job {job_id!r} can't be removed: {why}")
        self._log.info("job {job_id} is removed, as asked for", job_id=job_id)

    async def _take_away(self, job: Kept) -> str:
        """Remove a job whose id is used up; answers why it is still there. ``""``: it is removed."""
        try:
            remains = await self._pool.run(self._spools.remove_thd, job.job_id)
        except OSError as error:
            why = error.strerror or str(error)
            self._log_resisting(job, Left("its folder", why))
            job.removed_after = self._retry_at(job.resisted)
            return why
        del self._jobs[job.job_id]
        self._unmeasured.discard(job.job_id)
        self.size -= job.amount.size
        self._forget(job.job_id)
        if remains is not None:
            self.leftovers.add(remains, told=job.resisted > 0)
        return ""

    def _log_resisting(self, job: Kept, left: Left) -> None:
        if not job.resisted:
            message = "{path} of job {job_id}, which takes {size} bytes, can't be removed: {why}"
            self._log.error(message, path=left.path, job_id=job.job_id, size=job.amount.size, why=left.why)
        job.resisted += 1

    def _retry_at(self, tried: int) -> float:
        return self._clock.seconds() + retry_delay(tried)
