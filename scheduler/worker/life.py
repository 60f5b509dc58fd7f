"""The life of each job on the worker, as one coroutine from its start, or from being found, to its end.

Theory of operation. A job runs under its shim and does not need this process. Its end is pushed: the shim's pidfd wakes
the reactor, and then the spool is asked, in a pool, how the job ended. The same question is asked after a start and
when a worker process begins. The answer is an exit record, or the shim to wait for. If the shim is gone without a
record, the question itself writes one, with the state ``lost``.

A start that is under way is never cancelled, as its thread goes on. The rest of a life is cancelled at shutdown, or
when the folder of the job was removed.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import TypeVar

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.daemon import failpoints
from scheduler.errors import SchedulerError, ShuttingDown, Unavailable
from scheduler.messages import JobStatus
from scheduler.model import JobSpec, JobState
from scheduler.threads import Pool
from scheduler.worker.endings import NOT_BEGUN
from scheduler.worker.jobs import Jobs, RunningJob
from scheduler.worker.pidfd import Pidfd
from scheduler.worker.records import HeldByShim, NeverBegun
from scheduler.worker.recovery import RecoveredSpool
from scheduler.worker.shim import proctree
from scheduler.worker.spools import Spools
from scheduler.worker.starting import Starter
from scheduler.worker.watch import IReactor

T = TypeVar("T")

#: Seconds until a spool is asked again: its shim was not known yet; the question failed, as on a full disk.
_ASK_AGAIN_SECONDS = 0.05
RETRY_AFTER_FAILURE_SECONDS = 2.0


@define(eq=False, slots=False)
class JobLives:
    """Sees the jobs of one worker through. Called on the reactor thread."""

    _log = Logger()

    _reactor: IReactor
    _pool: Pool
    _spools: Spools
    _starter: Starter
    _wall_time: Callable[[], float]
    _jobs: Jobs
    closed: bool = field(init=False, default=False)

    def close(self) -> None:
        """Follow no job any more. The jobs run on; calls that wait for an end fail with ``ShuttingDown``."""
        self.closed = True
        for job in self._jobs.unfinished():
            if job.life is not None:
                job.life.cancel()
            job.for_end.settle(Failure(ShuttingDown()))

    # three ways into a life

    def start(self, job: RunningJob, spec: JobSpec) -> None:
        """Start a new job. ``spec`` is complete; the one in ``job`` has neither stdin nor script."""
        self._jobs.add(job)
        Deferred.fromCoroutine(self._start(job, spec)).addErrback(self._went_wrong, job)

    def take_back(self, found: RecoveredSpool) -> RunningJob:
        """Take up a job that the previous worker process left."""
        status = JobStatus(found.job_id, JobState.RUNNING)
        starting = not found.begun
        job = RunningJob(status, found.spec, found.created_at, found.key, starting, found.stop_asked, taken_back=True)
        if isinstance(found.seen, HeldByShim):
            self._jobs.add(job)
            self._live(job, found.seen)
            self._log.info("job {job_id} taken back", job_id=job.id)
        else:
            job.status = found.seen
            age = max(self._wall_time() - (job.status.finished_at or 0.0), 0.0)
            self._jobs.end(job, age, found.acknowledged, found.taken)
        return job

    def lose(self, job: RunningJob) -> Deferred[JobStatus]:
        """End a job whose folder was removed; answers its status, which may be an earlier end."""

        def lost(status: JobStatus) -> JobStatus:
            if not job.ended:
                if job.life is not None:
                    job.life.cancel()
                self._end(job, evolve(status, started_at=job.status.started_at))
            return job.status

        return self._pool.run(self._spools.endings.lose_thd, job.id, job.shim_identity).addCallback(lost)

    # the start

    async def _start(self, job: RunningJob, spec: JobSpec) -> None:
        assert job.created_at is not None
        start = partial(self._pool.run, self._starter.start_thd, job.id, spec, job.created_at, job.key)
        try:
            seen = await self._jobs.retention.with_room(start)
        except Exception:
            self._not_started(job, Failure())
        else:
            self._started(job, seen)

    def _started(self, job: RunningJob, seen: JobStatus | HeldByShim) -> None:
        job.starting = False
        failpoints.hit("worker.before-start-answer")
        if isinstance(seen, HeldByShim):
            job.status = evolve(job.status, started_at=seen.started_at)
            job.for_start.settle(job.status)  # first, so that nothing delays the answer
            command = job.spec.command or "script" if job.spec else ""
            self._log.info("job {job_id} started: {command}", job_id=job.id, command=command)
        self._live(job, seen)
        job.for_start.settle(job.status)

    def _not_started(self, job: RunningJob, failure: Failure) -> None:
        self._jobs.drop(job)
        if failure.check(SchedulerError) is None:
            self._log.failure("job {job_id} not started", failure, job_id=job.id)
        else:
            self._log.warn("job {job_id} not started: {why}", job_id=job.id, why=failure.getErrorMessage())
        job.for_start.settle(failure)

    # from the start to the end

    def _live(self, job: RunningJob, seen: JobStatus | HeldByShim) -> None:
        """Begin the part of a life that can be cancelled, unless the job has ended already."""
        if not isinstance(seen, HeldByShim):
            self._end(job, seen)
        elif not self.closed:
            life = self._until_begun(job) if job.starting else self._until_ended(job, seen)
            # In a context of its own: the end does not belong to the request that started the job.
            job.life = Context().run(Deferred.fromCoroutine, life)
            job.life.addErrback(self._went_wrong, job)

    async def _until_begun(self, job: RunningJob) -> None:
        """See whether the shim begins the job that the previous process asked for.

        The shim may not have noticed yet that the previous process is gone.
        """
        seen: JobStatus | HeldByShim | NeverBegun = HeldByShim(None, None)
        while isinstance(seen, HeldByShim) and seen.shim is None:
            await self._pause(_ASK_AGAIN_SECONDS)
            seen = await self._ask(job, partial(self._spools.recovery.decide_thd, job.id))
        if isinstance(seen, NeverBegun):
            self._not_started(job, Failure(Unavailable("the worker ended before the job was begun")))
        else:
            self._started(job, seen)

    async def _until_ended(self, job: RunningJob, held: HeldByShim) -> None:
        seen: JobStatus | HeldByShim = held
        while isinstance(seen, HeldByShim):
            job.status = evolve(job.status, started_at=seen.started_at)
            job.shim_identity = seen.shim or job.shim_identity
            await self._end_of_shim(job, seen)
            seen = await self._ask(job, partial(self._spools.endings.judge_thd, job.id, job.shim_identity, NOT_BEGUN))
        self._end(job, seen)

    async def _end_of_shim(self, job: RunningJob, held: HeldByShim) -> None:
        """Wait for the end of the shim; if that can't be done, wait for a moment."""
        try:
            pidfd = None if held.shim is None else proctree.open_pidfd(held.shim)
        except OSError:  # no descriptor is left
            self._log.failure("job {job_id} can't be followed yet", job_id=job.id)
            await self._pause(RETRY_AFTER_FAILURE_SECONDS)
            return
        if pidfd is None:  # its identity is not written yet, or it has just ended
            await self._pause(_ASK_AGAIN_SECONDS)
            return
        ended: Deferred[None] = Deferred()
        shim = job.shim = Pidfd(self._reactor, pidfd, lambda: ended.callback(None))
        if job.stop_asked:
            shim.signal(signal.SIGTERM)
        try:
            await ended
        finally:
            shim.close()
            job.shim = None

    async def _ask(self, job: RunningJob, ask_thd: Callable[[], T]) -> T:
        """Ask the spool, again and again until that succeeds."""
        while True:
            try:
                return await self._pool.run(ask_thd)
            except CancelledError:
                raise
            except Exception:
                if not job.undecided:
                    job.undecided = True
                    self._log.failure("job {job_id} has ended and can't be decided on yet", job_id=job.id)
            await self._pause(RETRY_AFTER_FAILURE_SECONDS)

    def _pause(self, seconds: float) -> Deferred[None]:
        return deferLater(self._reactor, seconds)

    def _end(self, job: RunningJob, status: JobStatus) -> None:
        job.status = status
        self._jobs.end(job)
        job.for_end.settle(status)
        watchers, job.watchers = job.watchers, []
        self._jobs.call(watchers)
        self._jobs.tell()

    def _went_wrong(self, failure: Failure, job: RunningJob) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("job {job_id} is not followed any more", failure, job_id=job.id)
