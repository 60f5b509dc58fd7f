"""Serves the scheduler's requests about jobs. ``jobs`` is the table of all jobs, ``life`` the course of each."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.deferreds import Shared
from scheduler.errors import (
    Conflict,
    Invalid,
    JobNotEnded,
    JobNotRunning,
    NotFound,
    SchedulerError,
    ShuttingDown,
    Unavailable,
)
from scheduler.messages import Chunk, JobStatus
from scheduler.model import JobSpec, JobState, Stream
from scheduler.names import is_id
from scheduler.random_ids import random_uuid
from scheduler.request_keys import RequestKey
from scheduler.threads import Pool
from scheduler.worker import signals
from scheduler.worker.deleted_folders import Removals
from scheduler.worker.jobs import Jobs, Notify, RunningJob
from scheduler.worker.life import JobLives
from scheduler.worker.recovery import RecoveredSpool
from scheduler.worker.spools import Spools
from scheduler.worker.stops import Stops
from scheduler.worker.watch import OutputWatch
from scheduler.worker_interfaces import IJobRunner


@implementer(IJobRunner)
@define(eq=False, slots=False)
class JobRunner:
    """Runs jobs. ``recover`` must have fired before any request is made; ``shut_down`` leaves the jobs running."""

    _log = Logger()

    _clock: IReactorTime
    _pool: Pool
    _spools: Spools
    _watch: OutputWatch
    _wall_time: Callable[[], float]
    _jobs: Jobs
    _lives: JobLives

    def __attrs_post_init__(self) -> None:
        self.removals = Removals(self._clock, self._pool, self._spools.endings, self._jobs, self._lives)
        self._stops = Stops(self._pool, self._spools, self._lives)
        #: Ids that are being sealed, or found to belong to a job.
        self._sealing = Shared()

    def recover(self) -> Deferred[None]:
        """Take back the jobs of the previous worker process; fires when each has ended or is followed."""
        return self._pool.run(self._spools.load_thd).addCallback(self._take_back)

    def _take_back(self, found: list[RecoveredSpool]) -> None:
        if self._lives.closed:
            return
        for each in sorted(found, key=lambda each: each.finished_at):
            self._lives.take_back(each)
        self._jobs.retention.startService()
        self.removals.startService()

    def shut_down(self) -> None:
        """Follow no job any more. The jobs run on, and the next worker process takes them back."""
        self._jobs.retention.stopService()
        self.removals.stopService()
        self._lives.close()

    # IJobRunner

    def start(
        self, job_id: str, spec: JobSpec, created_at: float | None, key: RequestKey | None = None
    ) -> Deferred[JobStatus]:
        if job_id and not is_id(job_id):
            return fail(Invalid("jobID", "must match [A-Za-z0-9_-]{1,64}"))
        if (known := self._jobs.find(job_id)) is not None:
            started = known.when_started()
            return (
                started.addErrback(lambda _: self.start(job_id, spec, created_at, key)) if known.taken_back else started
            )
        if job_id in self._sealing:
            return fail(Conflict(f"job {job_id!r} is given up by its scheduler, so it is not started"))
        if self._lives.closed:
            return fail(ShuttingDown())
        job = RunningJob(
            JobStatus(job_id or str(random_uuid()), JobState.RUNNING),
            evolve(spec, stdin=None, script=None),
            self._wall_time() if created_at is None else created_at,
            key,
            starting=True,
        )
        answer = job.when_started()
        self._lives.start(job, spec)
        return answer

    def stop(self, job_id: str, wait: bool) -> Deferred[JobStatus]:
        job = self._jobs.find(job_id)
        if job is None:
            looked = self._pool.run(self._spools.endings.find_removed_thd, job_id)
            return looked.addCallback(self._stop_removed, job_id, wait)
        return job.when_started().addCallback(lambda _: self._stops.stop(job, wait))

    def _stop_removed(self, lost: JobStatus | None, job_id: str, wait: bool) -> Deferred[JobStatus]:
        """Stop the rest of a job whose folder was removed while no worker process ran."""
        if self._jobs.find(job_id) is not None:  # it was started meanwhile
            return self.stop(job_id, wait)
        if lost is None:
            raise NotFound("job", job_id)
        return self._stops.stop(self._lives.take_back(RecoveredSpool(job_id, lost)), wait)

    def signal(self, job_id: str, signal: str, to: str) -> Deferred[None]:
        job = self._jobs.find(job_id)
        if job is None:
            return fail(NotFound("job", job_id))
        return job.when_started().addCallback(lambda _: self._signal(job, signal, to))

    def _signal(self, job: RunningJob, signal: str, to: str) -> Deferred[None]:
        if job.ended:
            raise JobNotRunning(job.id, job.status.state.value)
        return self._pool.run(signals.send_thd, job.id, self._spools.spool(job.id), job.shim_identity, signal, to)

    def query(self, job_id: str) -> JobStatus:
        job = self._jobs.find(job_id)
        if job is None or job.starting:
            raise NotFound("job", job_id)
        return job.status  # frozen, and replaced as a whole, so any thread may read it

    def seal(self, job_id: str) -> Deferred[JobStatus]:
        if (known := self._jobs.find(job_id)) is not None:
            # A start that comes to nothing leaves no job.
            return known.when_started().addErrback(lambda _: self.seal(job_id))
        if not is_id(job_id):
            return fail(NotFound("job", job_id))
        return self._sealing.join(job_id, lambda: self._seal(job_id))

    def _seal(self, job_id: str) -> Deferred[JobStatus]:
        def sealed(found: RecoveredSpool | None) -> JobStatus:
            if found is None:
                raise NotFound("job", job_id)
            return self._lives.take_back(found).status

        def failed(failure: Failure) -> Failure:
            if failure.check(SchedulerError) is None:
                self._log.failure("job {job_id} is not sealed", failure, job_id=job_id)
            return failure

        return self._pool.run(self._spools.seal_thd, job_id).addCallback(sealed).addErrback(failed)

    def remove(self, job_id: str) -> Deferred[None]:
        job = self._jobs.find(job_id)
        if job is None:
            removed = self._pool.run(self._spools.remove_unlisted_thd, job_id)
            return removed.addCallback(lambda _: Deferred.fromCoroutine(self._jobs.retention.ended.remove(job_id)))
        return job.when_started().addCallbacks(lambda _: self._remove(job), lambda _: self.remove(job_id))

    def _remove(self, job: RunningJob) -> Deferred[None]:
        if not job.ended:
            raise JobNotEnded(job.id, job.status.state.value)
        return Deferred.fromCoroutine(self._jobs.retention.ended.remove(job.id))

    def read_output_thd(self, job_id: str, stream: Stream, offset: int, size: int) -> Chunk:
        return self._spools.read_thd(job_id, stream, offset, size)

    def watch_output(self, job_id: str, stream: Stream, notify: Notify) -> Deferred[Notify]:
        job = self._jobs.find(job_id)
        if job is None:
            return fail(NotFound("job", job_id))
        return job.when_started().addCallback(lambda _: self._watch_output(job, stream, notify))

    def _watch_output(self, job: RunningJob, stream: Stream, notify: Notify) -> Notify:
        if job.ended:
            return lambda: None  # nothing to end
        try:
            unwatch = self._watch.add(self._spools.spool(job.id).output(stream.value), notify)
        except FileNotFoundError:  # it was removed, and a read of the output fails with that
            return lambda: None
        except OSError as error:
            raise Unavailable(f"the output of job {job.id!r} can't be watched: {error.strerror}") from error

        def watcher() -> None:  # a new one for each call, as two ``notify`` may be equal
            notify()

        job.watchers.append(watcher)

        def remove() -> None:
            unwatch()
            if watcher in job.watchers:
                job.watchers.remove(watcher)

        return remove
