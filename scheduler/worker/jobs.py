"""The jobs of this worker: started once, followed to their ends, taken back after a restart.

Theory of operation. The spool is the only truth; this is what the reactor
remembers of it. A job runs under its shim and needs nothing from here. Its end
is pushed: the shim's pidfd wakes the reactor, and then the spool is asked, in a
pool, what the end was. The same question is asked after a start and when a
worker starts; the answer is an exit record, or the shim to wait for. A shim that
is gone without a record is answered with the record ``lost``, written then.
"""

from __future__ import annotations

import signal
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.daemon import failpoints
from scheduler.errors import Conflict, Invalid, JobNotEnded, NotFound, SchedulerError, ShuttingDown, Unavailable
from scheduler.messages import Chunk, JobReport, JobStatus, RequestKey
from scheduler.model import JobSpec, JobState, Stream, is_id
from scheduler.threads import Pool
from scheduler.worker.endings import NOT_BEGUN
from scheduler.worker.job import Notify, OutputWatch, RunningJob, settle, wait_in
from scheduler.worker.pidfd import Pidfd
from scheduler.worker.records import HeldByShim, NeverBegun
from scheduler.worker.recovery import RecoveredSpool
from scheduler.worker.removals import Removals
from scheduler.worker.retention import RetentionLimits, SpoolRetention
from scheduler.worker.room import DiskUse
from scheduler.worker.sealing import Sealing
from scheduler.worker.shim import proctree
from scheduler.worker.signals import Signals
from scheduler.worker.spools import Spools
from scheduler.worker.stops import Stops
from scheduler.worker_interfaces import IJobRunner, IJobs

#: Seconds until a job is asked for again whose shim could not be made out, or that the disk took no record for.
_ASK_AGAIN_SECONDS = 0.05
RETRY_AFTER_FAILURE_SECONDS = 2.0


class IReactor(IReactorFDSet, IReactorTime):
    """What is needed of the reactor."""


@implementer(IJobRunner, IJobs)
class JobRunner:
    """Runs jobs. ``recover`` must have fired before anything else is asked; ``shut_down`` leaves the jobs running."""

    _log = Logger()

    def __init__(
        self,
        reactor: IReactor,
        pool: Pool,
        spools: Spools,
        watch: OutputWatch,
        wall_time: Callable[[], float],
        limits: RetentionLimits,
    ) -> None:
        self._reactor = reactor
        self._pool = pool
        self._spools = spools
        self._watch = watch
        self._wall_time = wall_time
        self._jobs: dict[str, RunningJob] = {}
        #: In the order of their ends.
        self._unacknowledged: dict[str, RunningJob] = {}
        self._running: dict[str, RunningJob] = {}
        self._on_end: list[Notify] = []
        self._again: dict[RunningJob, IDelayedCall] = {}
        self._closed = False
        notify = partial(self._call_all, self._on_end)
        self.retention = SpoolRetention(reactor, pool, spools, limits, self.running, self._forget, notify)
        self.removals = Removals(reactor, pool, spools.endings, self._running, self._place)
        self._stops = Stops(pool, spools, self.removals)
        self._signals = Signals(pool, spools)
        self._sealing = Sealing(pool, spools, lambda found: self._take(found).status)

    # life

    def recover(self) -> Deferred[None]:
        """Take back the jobs of the worker process before this one; fires when each has ended or is followed."""
        return self._pool.run(self._spools.load_thd).addCallback(self._take_back)

    def shut_down(self) -> None:
        """Follow nothing any more. The jobs run on, and wait for the next worker process."""
        self._closed = True
        self.retention.stop()
        self.removals.stop()
        again, self._again = self._again, {}
        for call in again.values():
            call.cancel()
        for job in list(self._running.values()):
            if job.shim is not None:
                job.shim.close()
            settle(job.for_end, Failure(ShuttingDown()))

    def _take_back(self, found: list[RecoveredSpool]) -> None:
        if self._closed:
            return
        for each in sorted(found, key=lambda each: each.finished_at):
            self._take(each)
        self.retention.start()
        self.removals.start()

    def _take(self, found: RecoveredSpool) -> RunningJob:
        status = JobStatus(found.job_id, JobState.RUNNING)
        job = RunningJob(
            status, found.spec, found.created_at, found.key, not found.begun, found.stop_asked, taken_back=True
        )
        self._jobs[job.id] = job
        if isinstance(found.seen, HeldByShim):
            self._running[job.id] = job
            self._ask_later(job, _ASK_AGAIN_SECONDS) if job.starting else self._follow(job, found.seen)
            self._log.info("job {job_id} taken back", job_id=job.id)
        else:
            job.status = found.seen
            if not found.acknowledged:
                self._unacknowledged[job.id] = job
                self._log_end(job.status)
            self.retention.ended(
                job.id,
                max(self._wall_time() - (job.status.finished_at or 0.0), 0.0),
                found.acknowledged,
                found.taken,
            )
        return job

    # IJobRunner

    def start(
        self, job_id: str, spec: JobSpec, created_at: float | None, key: RequestKey | None = None
    ) -> Deferred[JobStatus]:
        if job_id and not is_id(job_id):
            return fail(Invalid("jobID", "must match [A-Za-z0-9_-]{1,64}"))
        known = self._jobs.get(job_id)
        if known is not None:
            started = self._when_started(known)
            return (
                started.addErrback(lambda _: self.start(job_id, spec, created_at, key)) if known.taken_back else started
            )
        if job_id in self._sealing:
            return fail(Conflict(f"job {job_id!r} is given up by its scheduler, so it is not started"))
        if self._closed:
            return fail(ShuttingDown())
        job = RunningJob(
            JobStatus(job_id or str(uuid.uuid4()), JobState.RUNNING),
            evolve(spec, stdin=None, script=None),
            self._wall_time() if created_at is None else created_at,
            key,
            starting=True,
        )
        self._jobs[job.id] = self._running[job.id] = job
        answer = self._when_started(job)
        Deferred.fromCoroutine(self._launch(job, spec)).addCallbacks(
            self._started, self._not_started, callbackArgs=(job,), errbackArgs=(job,)
        )
        return answer

    async def _launch(self, job: RunningJob, spec: JobSpec) -> JobStatus | HeldByShim:
        assert job.created_at is not None
        start = partial(self._pool.run, self._spools.start_thd, job.id, spec, job.created_at, job.key)
        return await self.retention.with_room(start)

    def stop(self, job_id: str, wait: bool) -> Deferred[JobStatus]:
        job = self._jobs.get(job_id)
        if job is None:
            looked = self._pool.run(self._spools.endings.find_removed_thd, job_id)
            return looked.addCallback(self._stop_removed, job_id, wait)
        return self._when_started(job).addCallback(lambda _: self._stops.stop(job, wait))

    def signal(self, job_id: str, signal: str, to: str) -> Deferred[None]:
        job = self._jobs.get(job_id)
        if job is None:
            return fail(NotFound("job", job_id))
        return self._when_started(job).addCallback(lambda _: self._signals.send(job, signal, to))

    def _stop_removed(self, lost: JobStatus | None, job_id: str, wait: bool) -> Deferred[JobStatus]:
        """Stop what a job left whose folder was removed while no worker process looked."""
        if job_id in self._jobs:  # since then
            return self.stop(job_id, wait)
        if lost is None:
            raise NotFound("job", job_id)
        return self._stops.stop(self._take(RecoveredSpool(job_id, lost)), wait)

    def query(self, job_id: str) -> JobStatus:
        job = self._known(job_id)
        if job.starting:
            raise NotFound("job", job_id)
        return job.status  # frozen, and replaced as a whole: so any thread may look

    def seal(self, job_id: str) -> Deferred[JobStatus]:
        known = self._jobs.get(job_id)
        if known is not None:
            # One whose start comes to nothing is none.
            return self._when_started(known).addErrback(lambda _: self.seal(job_id))
        if not is_id(job_id):
            return fail(NotFound("job", job_id))
        return self._sealing.seal(job_id)

    def remove(self, job_id: str) -> Deferred[None]:
        job = self._jobs.get(job_id)
        if job is None:
            removed = self._pool.run(self._spools.remove_unlisted_thd, job_id)
            return removed.addCallback(lambda _: Deferred.fromCoroutine(self.retention.remove(job_id)))
        started = self._when_started(job)
        return started.addCallbacks(lambda _: self._remove(job), lambda _: self.remove(job_id))

    def _remove(self, job: RunningJob) -> Deferred[None]:
        if not job.status.state.final:
            raise JobNotEnded(job.id, job.status.state.value)
        return Deferred.fromCoroutine(self.retention.remove(job.id))

    def read_output_thd(self, job_id: str, stream: Stream, offset: int, size: int) -> Chunk:
        return self._spools.read_thd(job_id, stream, offset, size)

    def watch_output(self, job_id: str, stream: Stream, notify: Notify) -> Deferred[Notify]:
        job = self._jobs.get(job_id)
        if job is None:
            return fail(NotFound("job", job_id))
        return self._when_started(job).addCallback(lambda _: self._watch_output(job, stream, notify))

    def _watch_output(self, job: RunningJob, stream: Stream, notify: Notify) -> Notify:
        if job.status.state.final:
            return _nothing
        try:
            unwatch = self._watch.add(self._spools.spool(job.id).output(stream.value), notify)
        except FileNotFoundError:  # somebody removed it, as whoever reads it is told
            return _nothing
        except OSError as error:
            raise Unavailable(f"the output of job {job.id!r} can't be watched: {error.strerror}") from error

        def watcher() -> None:  # one of its own for each call, whatever ``notify`` equals
            notify()

        job.watchers.append(watcher)

        def remove() -> None:
            unwatch()
            if watcher in job.watchers:
                job.watchers.remove(watcher)

        return remove

    # IJobs

    def running(self) -> tuple[str, ...]:
        return tuple(job.id for job in self._running.values() if not job.starting)

    def is_starting(self) -> bool:
        return any(job.starting for job in self._running.values())

    def unacknowledged(self) -> tuple[JobReport, ...]:
        return tuple(JobReport(job.status, created_at=job.created_at) for job in self._unacknowledged.values())

    def describe(self, job_ids: Iterable[str]) -> Deferred[tuple[JobReport, ...]]:
        known = [self._jobs[job_id] for job_id in job_ids if job_id in self._jobs]
        unspecified = [job.id for job in known if job.spec is None]

        def described(found: Mapping[str, tuple[JobSpec, float, RequestKey | None]]) -> tuple[JobReport, ...]:
            return tuple(
                JobReport(job.status, *((job.spec, job.created_at, job.key) if job.spec is not None else found[job.id]))
                for job in known
                if job.spec is not None or job.id in found  # else it was removed meanwhile
            )

        return self._pool.run(self._spools.describe_thd, unspecified).addCallback(described)

    def acknowledge(self, job_ids: Iterable[str]) -> None:
        acknowledged = [job_id for job_id in job_ids if job_id in self._unacknowledged]
        for job_id in acknowledged:
            self._unacknowledged.pop(job_id).spec = None
        if acknowledged:
            written = self._pool.run(self._spools.acknowledge_thd, acknowledged)
            written.addCallback(self._acknowledged)
            written.addErrback(
                self._complaint("{count} acknowledgements are not written down", count=len(acknowledged))
            )

    def _acknowledged(self, found: Mapping[str, DiskUse]) -> None:
        for job_id, taken in found.items():
            if job_id not in self._unacknowledged:  # else it has to be acknowledged once more
                self.retention.acknowledged(job_id, taken)

    def report_again(self) -> None:
        ended = [job for job in self._jobs.values() if job.status.state.final and not job.starting]
        ended.sort(key=lambda job: job.status.finished_at or 0.0)
        self._unacknowledged = {job.id: job for job in ended}
        self.retention.not_acknowledged(self._unacknowledged)

    def expect_acknowledgements(self, expected: bool) -> None:
        self.retention.expect_acknowledgements(expected)

    def on_end(self, notify: Notify) -> None:
        self._on_end.append(notify)

    def refusing(self) -> str:
        return self.retention.refusing

    # from the start to the end

    def _known(self, job_id: str) -> RunningJob:
        try:
            return self._jobs[job_id]
        except KeyError:
            raise NotFound("job", job_id) from None

    def _when_started(self, job: RunningJob) -> Deferred[JobStatus]:
        return wait_in(job.for_start) if job.starting else succeed(job.status)

    def _started(self, seen: JobStatus | HeldByShim, job: RunningJob) -> None:
        job.starting = False
        failpoints.hit("worker.before-start-answer")
        if isinstance(seen, HeldByShim):
            job.status = evolve(job.status, started_at=seen.started_at)
            settle(job.for_start, job.status)  # first: what else there is to do keeps nobody waiting
            self._log.info("job {job_id} started: {command}", job_id=job.id, command=job.command)
            self._place(seen, job)
        else:
            self._place(seen, job)
            settle(job.for_start, job.status)

    def _not_started(self, failure: Failure, job: RunningJob) -> None:
        del self._jobs[job.id], self._running[job.id]
        if failure.check(SchedulerError) is None:
            self._log.failure("job {job_id} not started", failure, job_id=job.id)
        else:
            self._log.warn("job {job_id} not started: {why}", job_id=job.id, why=failure.getErrorMessage())
        settle(job.for_start, failure)

    def _place(self, seen: JobStatus | HeldByShim, job: RunningJob) -> None:
        if job.status.state.final:  # its folder was removed, as somebody else saw first
            return
        if isinstance(seen, HeldByShim):
            self._follow(job, seen)
        else:
            self._end(job, seen)

    def _follow(self, job: RunningJob, held: HeldByShim) -> None:
        """Wait for the end of the shim that has the job."""
        job.status = evolve(job.status, started_at=held.started_at)
        job.shim_identity = held.shim or job.shim_identity
        if self._closed:
            return
        try:
            pidfd = None if held.shim is None else proctree.open_pidfd(held.shim)
        except OSError:  # no descriptor is left
            self._log.failure("job {job_id} can't be followed yet", job_id=job.id)
            self._ask_later(job, RETRY_AFTER_FAILURE_SECONDS)
            return
        if pidfd is None:  # it is about to say who it is, or has just ended
            self._ask_later(job, _ASK_AGAIN_SECONDS)
            return
        job.shim = Pidfd(self._reactor, pidfd, lambda: self._ask(job))
        if job.stop_asked:
            job.shim.signal(signal.SIGTERM)

    def _ask_later(self, job: RunningJob, seconds: float) -> None:
        if not self._closed:
            self._again[job] = self._reactor.callLater(seconds, self._ask, job)

    def _ask(self, job: RunningJob) -> None:
        """Look what the spool says now."""
        self._again.pop(job, None)
        job.shim = None
        if job.starting:  # taken back: its shim has not noticed yet that nobody is left who would let it begin
            asked = self._pool.run(self._spools.recover_thd, job.id).addCallback(self._recovered, job)
        else:
            judged = self._pool.run(self._spools.endings.judge_thd, job.id, job.shim_identity, NOT_BEGUN)
            asked = judged.addCallback(self._place, job)
        asked.addErrback(self._not_judged, job)

    def _recovered(self, seen: JobStatus | HeldByShim | NeverBegun, job: RunningJob) -> None:
        """The start that the process before was asked for is over, or not yet."""
        if isinstance(seen, NeverBegun):
            self._not_started(Failure(Unavailable("the worker ended before the job was begun")), job)
        elif isinstance(seen, HeldByShim) and seen.shim is None:
            self._ask_later(job, _ASK_AGAIN_SECONDS)
        else:
            self._started(seen, job)

    def _not_judged(self, failure: Failure, job: RunningJob) -> None:
        if job.status.state.final:
            return
        if not self._closed and not job.undecided:
            job.undecided = True
            self._log.failure("job {job_id} has ended and can't be decided on yet", failure, job_id=job.id)
        self._ask_later(job, RETRY_AFTER_FAILURE_SECONDS)

    def _end(self, job: RunningJob, status: JobStatus) -> None:
        job.status = status
        if job.shim is not None:  # it runs on without its folder
            job.shim.close()
            job.shim = None
        again = self._again.pop(job, None)
        if again is not None:
            again.cancel()
        del self._running[job.id]
        self._unacknowledged[job.id] = job
        self.retention.ended(job.id)
        self._log_end(status)
        settle(job.for_end, status)
        watchers, job.watchers = job.watchers, []
        self._call_all([*watchers, *self._on_end])

    def _log_end(self, status: JobStatus) -> None:
        job_id, state = status.job_id, status.state.value
        self._log.info("job {job_id} ended: {state} {reason}", job_id=job_id, state=state, reason=status.reason)
        if status.output_error:
            self._log.warn("the output of job {job_id} was cut: {why}", job_id=job_id, why=status.output_error)

    def _call_all(self, listeners: Iterable[Notify]) -> None:
        for notify in listeners:
            try:
                notify()
            except Exception:
                self._log.failure("a listener failed")

    def _forget(self, job_id: str) -> None:
        """It was removed."""
        del self._jobs[job_id]
        self._unacknowledged.pop(job_id, None)

    def _complaint(self, message: str, **fields: Any) -> Callable[[Failure], None]:
        """Log what failed, and go on."""
        return lambda failure: self._log.failure(message, failure, **fields)


def _nothing() -> None:
    """What is called to stop watching an ended job."""
