"""Stops running jobs, and the processes that are left of ended ones."""

from __future__ import annotations

import signal

from attrs import define, evolve
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.errors import Unavailable
from scheduler.messages import JobStatus
from scheduler.model import JobState
from scheduler.threads import Pool
from scheduler.worker.jobs import RunningJob
from scheduler.worker.life import JobLives
from scheduler.worker.spools import Spools


@define(eq=False, slots=False)
class Stops:
    """Stops the jobs of one worker. Called on the reactor thread."""

    _log = Logger()

    _pool: Pool
    _spools: Spools
    _lives: JobLives

    def stop(self, job: RunningJob, wait: bool) -> Deferred[JobStatus]:
        """Carry out ``IJobRunner.stop`` for a job whose start was answered."""
        if job.status.state.final:
            return self._end_leftover(job)
        marked = self._pool.run(self._spools.spool(job.id).ask_stop).addBoth(self._marked, job)
        if not wait:
            return marked
        ended = job.for_end.wait()
        marked.addErrback(lambda failure: job.for_end.fail(ended, failure))
        return ended.addCallback(self._ended, job)

    def _ended(self, status: JobStatus, job: RunningJob) -> Deferred[JobStatus]:
        """Answer the stop at the end of the job. If the job was lost, its shim may not have ended all processes."""
        return self._end_leftover(job) if status.state is JobState.LOST else succeed(status)

    def _marked(self, result: Failure | None, job: RunningJob) -> Deferred[JobStatus]:
        """Have the shim look for the mark. A shim of an earlier version takes the signal itself for the stop."""
        job.stop_asked = True
        if job.shim is not None:
            job.shim.signal(signal.SIGTERM)
        if result is None or job.status.state.final:
            return succeed(job.status)
        if result.check(FileNotFoundError):
            return self._lives.lose(job).addCallback(lambda _: self._end_leftover(job))
        why = result.getErrorMessage()
        if result.check(OSError):
            self._log.error("the stop of job {job_id} can't be written down: {why}", job_id=job.id, why=why)
        else:
            self._log.failure("the stop of job {job_id} is not written down", result, job_id=job.id)
        raise Unavailable(f"the stop of job {job.id!r} can't be written down: {why}")

    def _end_leftover(self, job: RunningJob) -> Deferred[JobStatus]:
        """End the processes that are left of an ended job; answers its status with those that are still there."""
        if not job.status.leftover:
            return succeed(job.status)
        looked = self._pool.run(self._spools.endings.end_leftover_thd, job.id, job.shim_identity)
        return looked.addCallback(lambda left: evolve(job.status, leftover=left))
