"""What an event makes of a job: pure functions from a job to the next one.

Each answers the job it was given where the event changes nothing; above all, a
final job never changes.
"""

from __future__ import annotations

from attrs import evolve

from scheduler.model import Job, JobReport, JobState, JobStatus, Worker


def reported(job: Job, status: JobStatus, now: float) -> Job:
    """Its worker says how it is; ``now`` stands in for an end the worker has no time of."""
    if job.state.final:
        return job
    known = evolve(
        job,
        state=status.state,
        reason=status.reason or None,
        started_at=status.started_at or job.started_at,
        exit_code=status.exit_code,
        signal=status.signal,
        stdout_bytes=status.stdout_bytes,
        stderr_bytes=status.stderr_bytes,
        unknown_since=None,
    )
    if status.state.final:
        return evolve(known, finished_at=status.finished_at or now)
    return known


def reported_classic(job: Job, status: JobStatus, now: float) -> Job:
    """Like ``reported``, of a worker of the fixed part, which can't tell a stopped job from a failed one."""
    if status.state is JobState.FAILED and job.stop_requested_at is not None:
        return reported(job, evolve(status, state=JobState.STOPPED), now)
    return reported(job, status, now)


def running(job: Job) -> Job:
    """Its worker lists it among those that have not ended."""
    if job.state is JobState.UNKNOWN:
        return evolve(job, state=JobState.RUNNING, unknown_since=None, reason=None)
    return job


def unknown(job: Job, why: str, now: float) -> Job:
    """Nobody can say how it is at present."""
    if job.state in {JobState.STARTING, JobState.RUNNING}:
        return evolve(job, state=JobState.UNKNOWN, unknown_since=now, reason=why)
    return job


def lost(job: Job, why: str, now: float) -> Job:
    """Nobody will ever be able to say: ``why`` is ``no record``, ``rebooted`` or ``forgotten``."""
    if job.state.final:
        return job
    return evolve(job, state=JobState.LOST, reason=why, finished_at=now, unknown_since=None)


def failed(job: Job, why: str, now: float) -> Job:
    """It could not be started."""
    if job.state.final:
        return job
    return evolve(job, state=JobState.FAILED, reason=why, finished_at=now, unknown_since=None)


def adopted(report: JobReport, worker: Worker, now: float) -> Job:
    """A job first heard of from its worker; ``report.spec`` is set."""
    assert report.spec is not None
    job = Job(
        id=report.status.job_id,
        spec=report.spec,
        state=JobState.STARTING,
        created_at=report.created_at or report.status.started_at or now,
        worker_id=worker.id,
        worker_name=worker.name,
    )
    return reported(job, report.status, now)
