"""The effect of each event on a job. Pure functions.

Each function returns the job after the event, or the given job if the event changes nothing. The state of a final job
never changes. A final job that its worker runs all the same becomes an ``orphan``, until it ends there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from uuid import NAMESPACE_OID, uuid5

from attrs import evolve

from scheduler.messages import JobReport, JobStatus
from scheduler.model import MAX_LEFTOVER, Job, JobState, Worker

#: The reason of a job that failed because its start never arrived.
NEVER_STARTED = "never started: its worker did not begin it"


def leftover_text(left: tuple[int, ...]) -> str:
    """The sentence about processes that could not be ended; only the first hundred are known."""
    count = f"{'at least ' * (len(left) >= MAX_LEFTOVER)}{len(left)} process{'es' * (len(left) > 1)}"
    return f"{count} could not be ended: {', '.join(map(str, left))}"


def reported(job: Job, status: JobStatus, now: float) -> Job:
    """The worker reports the job's status; ``now`` replaces an end time that is missing or in the future."""
    if job.state.final:
        if job.orphan and status.state.final:
            job = evolve(job, leftover=status.leftover)
        return _orphaned(job, not status.state.final)
    known = evolve(
        job,
        state=status.state,
        reason=_reason(job, status),
        started_at=_started(job, status, now),
        exit_code=status.exit_code,
        signal=status.signal,
        stdout_bytes=status.stdout_bytes,
        stderr_bytes=status.stderr_bytes,
        output_error=status.output_error or None,
        leftover=status.leftover,
        background_ended=status.background_ended,
        usage=status.usage,
        unknown_since=None,
    )
    if status.state.final:
        finished_at = min(status.finished_at or now, max(job.created_at, now))
        return evolve(known, finished_at=max(finished_at, known.started_at or finished_at))
    return known


def _started(job: Job, status: JobStatus, now: float) -> float | None:
    if status.started_at is None:
        return _seen(job, status.state, now)
    latest = max(job.created_at, now)  # the clock of the worker may be wrong, and ours may have been set back
    if status.started_at <= latest:
        return status.started_at
    return latest if job.started_at is None else job.started_at


def reported_by_core(job: Job, status: JobStatus, now: float) -> Job:
    """Like ``reported``, for a core worker, which can't distinguish a stopped job from one that ended by itself."""
    ended = status.state in {JobState.FAILED, JobState.SUCCEEDED}
    if ended and job.stop_requested_at is not None:
        return reported(job, evolve(status, state=JobState.STOPPED, reason=status.reason or "stopped"), now)
    return reported(job, status, now)


def _reason(job: Job, status: JobStatus) -> str | None:
    """The reason that the worker reports, or for a job that the scheduler stopped, the reason for the stop."""
    left = leftover_text(status.leftover) if status.leftover else ""
    if status.state is JobState.STOPPED and job.stop_reason:
        return f"{left}; {job.stop_reason}" if left else job.stop_reason
    return status.reason or left or None


def running(job: Job, now: float) -> Job:
    """The worker lists the job among those that have not ended; ``now`` replaces a start time that is not known yet."""
    if job.state.final:
        return _orphaned(job, True)
    if job.state in {JobState.STARTING, JobState.UNKNOWN}:
        started_at = _seen(job, JobState.RUNNING, now)
        return evolve(job, state=JobState.RUNNING, started_at=started_at, unknown_since=None, reason=None)
    return job


def unknown(job: Job, why: str, now: float) -> Job:
    """The state of the job is not known at present."""
    if job.state in {JobState.STARTING, JobState.RUNNING}:
        return evolve(job, state=JobState.UNKNOWN, unknown_since=now, reason=why)
    return job


def lost(job: Job, why: str, now: float) -> Job:
    """The state of the job will never be known; ``why`` is ``no record``, ``rebooted`` or ``forgotten``."""
    if job.state.final:
        return _orphaned(job, False)
    if job.state is JobState.QUEUED:
        return job
    return evolve(job, state=JobState.LOST, reason=why, finished_at=now, unknown_since=None)


def absent(job: Job, now: float) -> Job:
    """The worker has no record of the job, and refuses any later start of it."""
    if not unconfirmed(job):
        return lost(job, "no record", now)
    return failed(job, NEVER_STARTED, now) if job.stop_requested_at is None else withdrawn(job, now)


def asked_to_stop(job: Job, now: float, why: str | None = None) -> Job:
    """A stop of the job is requested; only the first request counts. ``why`` is given if no client requested it."""
    if job.stop_requested_at is not None:
        return job
    return evolve(job, stop_requested_at=now, stop_reason=why)


def withdrawn(job: Job, now: float) -> Job:
    """The job was stopped before it was started."""
    if job.state.final:
        return job
    job = asked_to_stop(job, now)
    reason = job.stop_reason or "stopped before it was started"
    return evolve(job, state=JobState.STOPPED, reason=reason, finished_at=now, unknown_since=None)


def failed(job: Job, why: str, now: float) -> Job:
    """The job could not be started, and is not tried again."""
    if job.state.final:
        return job
    retry = None if job.terms.retry is None else evolve(job.terms.retry, attempts=0)
    terms = evolve(job.terms, retry=retry)
    return evolve(job, state=JobState.FAILED, reason=why, finished_at=now, unknown_since=None, terms=terms)


def waiting(job: Job, why: str, now: float) -> Job:
    """The start was not sent, or was refused for now: the job is queued (again), unless it was stopped meanwhile."""
    if job.state is not JobState.STARTING:
        return job
    if job.stop_requested_at is not None:
        return withdrawn(job, now)
    named = job.worker_name if job.target is not None and job.target.worker is not None else None
    return evolve(job, state=JobState.QUEUED, reason=why, worker_id=None, worker_name=named, promised=True)


def followed(job: Job, now: float) -> tuple[Job, Job | None]:
    """A job that has just ended, and its next attempt, if there is one: each names the other."""
    following = next_attempt(job, now)
    if following is None:
        return job, None
    return evolve(job, group_id=following.group_id, retried_by=following.id), following


def next_attempt(job: Job, now: float) -> Job | None:
    """The next attempt of a job that has just ended, if its terms ask for one.

    Its id follows from the id of the job. It is queued, and due when the delay has passed.
    """
    retry = job.terms.retry
    if job.state not in {JobState.FAILED, JobState.TIMED_OUT} or job.stop_requested_at is not None:
        return None
    if job.target is None or retry is None or not retry.attempts:
        return None
    return Job(
        id=str(uuid5(NAMESPACE_OID, f"next attempt of job {job.id}")),
        spec=job.spec,
        state=JobState.QUEUED,
        created_at=now,
        worker_name=job.worker_name if job.target.worker is not None else None,
        created_by=job.created_by,
        group_id=job.group_id or job.id,
        retry_of=job.id,
        target=job.target,
        terms=evolve(job.terms, retry=evolve(retry, attempts=retry.attempts - 1)),
        promised=True,
    )


def as_attempt(job: Job, attempt: Job) -> Job:
    """A job that its worker reported, with the data of ``attempt``, the attempt that it turned out to be."""
    names = ("group_id", "retry_of", "created_by", "target", "terms", "promised")
    return evolve(job, **{name: getattr(attempt, name) for name in names})


def told_attempts(
    jobs: Iterable[Job],
    find: Callable[[str], Job | None],
    expected: Callable[[str], Job | None],
    settled: Callable[[str], bool],
    removed: Callable[[str], bool],
    now: float,
) -> list[Job]:
    """The jobs, linked with their next attempts: among themselves, and with jobs that are known.

    Workers report such jobs if the store was set back. ``find`` finds a job by its id, and ``expected`` the next
    attempt with that id of a job whose end is being saved. A job whose end or removal is being saved is ``settled``,
    and does not change. So the end of the attempt before it is left out: it is reported again, and linked then. A job
    that was ``removed`` is not created again.
    """
    listed = list(jobs)
    given = {job.id: job for job in listed}
    linked: dict[str, Job] = {}
    later: set[str] = set()
    for job in listed:
        known = find(job.id)
        ends = job.state.final and known is not None and not known.state.final
        attempt = next_attempt(job, now) if ends else expected(job.id) if known is None else None
        first = attempt
        spec = job.spec if first is None else first.spec
        chain: dict[str, Job] = {}
        while attempt is not None and not settled(attempt.id):
            told = given.get(attempt.id) or find(attempt.id)
            if told is None:
                if attempt is not first and not removed(attempt.id):
                    chain[attempt.id] = attempt  # the first one becomes visible with the end of the job
                attempt = None
            else:
                told, attempt = followed(as_attempt(told, attempt), now)
                attempt = attempt and evolve(attempt, spec=spec)  # memory has only a part of the spec of an ended job
                chain[told.id] = told
        if attempt is None:
            linked |= chain
        else:
            later.add(job.id)
    listed = [job for job in listed if job.id not in later]
    return [*(linked.pop(job.id, job) for job in listed), *linked.values()]


def taken_over(job: Job, worker: Worker) -> Job:
    """A job that the store has as not started, although the worker runs it or ran it: it is assigned to that worker."""
    state = JobState.STARTING if job.state is JobState.QUEUED else job.state
    return evolve(job, state=state, worker_id=worker.id, worker_name=worker.name)


def linked(jobs: Iterable[Job]) -> list[Job]:
    """The jobs of a store, with the facts that earlier versions did not keep: ``retried_by`` and ``group_id``."""
    found = {job.id: job for job in jobs}
    retried_by = {job.retry_of: job.id for job in found.values() if job.retry_of is not None}

    def first(job: Job) -> Job:
        while (before := found.get(job.retry_of or "")) is not None:
            job = before
        return job

    return [
        job
        if job.terms.retry is None
        else evolve(job, group_id=job.group_id or first(job).id, retried_by=job.retried_by or retried_by.get(job.id))
        for job in found.values()
    ]


def adopted(report: JobReport, worker: Worker, now: float) -> Job:
    """A job that the scheduler learns of from its worker; ``report.spec`` is set, and ``report.key`` is its own."""
    assert report.spec is not None
    job = Job(
        id=report.status.job_id,
        spec=report.spec,
        state=JobState.STARTING,
        created_at=min(report.created_at or report.status.started_at or now, now),
        worker_id=worker.id,
        worker_name=worker.name,
        created_by=f"worker:{worker.name}",
        key=report.key,
    )
    return reported(job, report.status, now)


def returned(report: JobReport, worker: Worker, now: float) -> Job:
    """A job that a client removed, and that still runs: it was ``lost``, as its worker had been forgotten."""
    return evolve(lost(adopted(report, worker, now), "forgotten", now), orphan=True)


def unconfirmed(job: Job) -> bool:
    """Whether a start of the job may have been sent, and is not known to have arrived."""
    return job.state in {JobState.STARTING, JobState.UNKNOWN} and job.started_at is None


def untraceable(job: Job, worker: Worker) -> bool:
    """Whether the worker is a core worker that has not told its id of the job, so it can't be asked about the job."""
    return worker.is_core and job.remote_id is None and unconfirmed(job)


def _seen(job: Job, state: JobState, now: float) -> float | None:
    """The start time; a job that was seen to run has one, so that it is no longer ``unconfirmed``."""
    return now if job.started_at is None and state is JobState.RUNNING else job.started_at


def _orphaned(job: Job, runs: bool) -> Job:
    """A final job; it is an orphan if it is ``lost`` and its worker ``runs`` it."""
    orphan = runs and job.state is JobState.LOST
    return job if job.orphan is orphan else evolve(job, orphan=orphan)
