"""What an event makes of a job: pure functions from a job to the next one.

Each answers the job it was given where the event changes nothing; above all, the
state of a final job never changes. That its worker runs it all the same makes it
an ``orphan``, until it ends there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from uuid import NAMESPACE_OID, uuid5

from attrs import evolve

from scheduler.messages import JobReport, JobStatus
from scheduler.model import MAX_LEFTOVER, Job, JobState, Worker

#: Why a job failed that nobody was told of.
NEVER_STARTED = "never started: its worker did not begin it"


def leftover_text(left: tuple[int, ...]) -> str:
    """The sentence that names processes which could not be ended; only the first hundred are known."""
    count = f"{'at least ' * (len(left) >= MAX_LEFTOVER)}{len(left)} process{'es' * (len(left) > 1)}"
    return f"{count} could not be ended: {', '.join(map(str, left))}"


def reported(job: Job, status: JobStatus, now: float) -> Job:
    """Its worker says how it is; ``now`` stands in for an end the worker has no time of, or a time yet to come."""
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
        finished_at = min(status.finished_at or now, _latest(job, now))
        return evolve(known, finished_at=max(finished_at, known.started_at or finished_at))
    return known


def _latest(job: Job, now: float) -> float:
    """The time to which those of a worker are clamped: its clock may be wrong, and ours may have been set back."""
    return max(job.created_at, now)


def _started(job: Job, status: JobStatus, now: float) -> float | None:
    if status.started_at is None:
        return _seen(job, status.state, now)
    latest = _latest(job, now)
    if status.started_at <= latest:
        return status.started_at
    return latest if job.started_at is None else job.started_at


def reported_by_core(job: Job, status: JobStatus, now: float) -> Job:
    """Like ``reported``, of a core worker, which can't tell a stopped job from one that ended by itself."""
    ended = status.state in {JobState.FAILED, JobState.SUCCEEDED}
    if ended and job.stop_requested_at is not None:
        return reported(job, evolve(status, state=JobState.STOPPED, reason=status.reason or "stopped"), now)
    return reported(job, status, now)


def _reason(job: Job, status: JobStatus) -> str | None:
    """What its worker says; of a job that the scheduler had stopped, why it did."""
    left = leftover_text(status.leftover) if status.leftover else ""
    if status.state is JobState.STOPPED and job.stop_reason:
        return f"{left}; {job.stop_reason}" if left else job.stop_reason
    return status.reason or left or None


def running(job: Job, now: float) -> Job:
    """Its worker lists it among those that have not ended; ``now`` stands in for a start nothing is known of yet."""
    if job.state.final:
        return _orphaned(job, True)
    if job.state in {JobState.STARTING, JobState.UNKNOWN}:
        started_at = _seen(job, JobState.RUNNING, now)
        return evolve(job, state=JobState.RUNNING, started_at=started_at, unknown_since=None, reason=None)
    return job


def unknown(job: Job, why: str, now: float) -> Job:
    """Nobody can say how it is at present."""
    if job.state in {JobState.STARTING, JobState.RUNNING}:
        return evolve(job, state=JobState.UNKNOWN, unknown_since=now, reason=why)
    return job


def lost(job: Job, why: str, now: float) -> Job:
    """Nobody will ever be able to say: ``why`` is ``no record``, ``rebooted`` or ``forgotten``."""
    if job.state.final:
        return _orphaned(job, False)
    if job.state is JobState.QUEUED:
        return job
    return evolve(job, state=JobState.LOST, reason=why, finished_at=now, unknown_since=None)


def absent(job: Job, now: float) -> Job:
    """Its worker has no record of it, and will not take a start of it any more."""
    if not unconfirmed(job):
        return lost(job, "no record", now)
    return failed(job, NEVER_STARTED, now) if job.stop_requested_at is None else withdrawn(job, now)


def asked_to_stop(job: Job, now: float, why: str | None = None) -> Job:
    """It is to be stopped; ``why`` is given where no client asked for that. The first one to ask counts."""
    if job.stop_requested_at is not None:
        return job
    return evolve(job, stop_requested_at=now, stop_reason=why)


def withdrawn(job: Job, now: float) -> Job:
    """It was stopped in time: it is not going to be started."""
    if job.state.final:
        return job
    job = asked_to_stop(job, now)
    reason = job.stop_reason or "stopped before it was started"
    return evolve(job, state=JobState.STOPPED, reason=reason, finished_at=now, unknown_since=None)


def failed(job: Job, why: str, now: float) -> Job:
    """It could not be started, and is not tried again."""
    if job.state.final:
        return job
    retry = None if job.terms.retry is None else evolve(job.terms.retry, attempts=0)
    terms = evolve(job.terms, retry=retry)
    return evolve(job, state=JobState.FAILED, reason=why, finished_at=now, unknown_since=None, terms=terms)


def waiting(job: Job, why: str, now: float) -> Job:
    """Its start never left, or was refused for now: it is queued (again), unless it was stopped meanwhile."""
    if job.state is not JobState.STARTING:
        return job
    if job.stop_requested_at is not None:
        return withdrawn(job, now)
    named = job.worker_name if job.target is not None and job.target.worker is not None else None
    return evolve(job, state=JobState.QUEUED, reason=why, worker_id=None, worker_name=named, promised=True)


def followed(job: Job, now: float) -> tuple[Job, Job | None]:
    """A job that has just ended, and its next attempt, if there is to be one: each names the other."""
    following = next_attempt(job, now)
    if following is None:
        return job, None
    return evolve(job, group_id=following.group_id, retried_by=following.id), following


def next_attempt(job: Job, now: float) -> Job | None:
    """What follows a job that has just ended, by its terms; its id follows from that of the job.

    It is queued, and due when the delay has passed.
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
    """A job that its worker told of, which turns out to be that attempt: what nobody knew of it is filled in."""
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
    """The jobs, and what follows from their being next attempts of each other, or of jobs that are known.

    Workers tell of such where the store was set back. ``find`` gives the job of an id as it is known, and ``expected``
    the next attempt with that id of one whose end is being saved. Those that are ``settled`` do not change, so the end
    of an attempt before such a one is left out: it is told again, and linked then. One that is ``removed`` is not made
    again.
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
                    chain[attempt.id] = attempt  # the first becomes visible with the end of the job
                attempt = None
            else:
                told, attempt = followed(as_attempt(told, attempt), now)
                attempt = attempt and evolve(attempt, spec=spec)  # of one that has ended a part alone is in memory
                chain[told.id] = told
        if attempt is None:
            linked |= chain
        else:
            later.add(job.id)
    listed = [job for job in listed if job.id not in later]
    return [*(linked.pop(job.id, job) for job in listed), *linked.values()]


def taken_over(job: Job, worker: Worker) -> Job:
    """A job that the store knows at an earlier time than that worker, which runs it or ran it."""
    state = JobState.STARTING if job.state is JobState.QUEUED else job.state
    return evolve(job, state=state, worker_id=worker.id, worker_name=worker.name)


def linked(jobs: Iterable[Job]) -> list[Job]:
    """The jobs of a store, with what earlier versions did not keep of attempts: ``retried_by`` and ``group_id``."""
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
    """A job first heard of from its worker; ``report.spec`` is set."""
    assert report.spec is not None
    job = Job(
        id=report.status.job_id,
        spec=report.spec,
        state=JobState.STARTING,
        created_at=min(report.created_at or report.status.started_at or now, now),
        worker_id=worker.id,
        worker_name=worker.name,
    )
    return reported(job, report.status, now)


def returned(report: JobReport, worker: Worker, now: float) -> Job:
    """A job that a client removed, and that runs all the same: it was ``lost``, as its worker had been forgotten."""
    return evolve(lost(adopted(report, worker, now), "forgotten", now), orphan=True)


def unconfirmed(job: Job) -> bool:
    """Whether a start of it may have been sent, and nobody can say yet that it arrived."""
    return job.state in {JobState.STARTING, JobState.UNKNOWN} and job.started_at is None


def untraceable(job: Job, worker: Worker) -> bool:
    """Whether that is a core worker which has not told its id of the job: nobody can ask it about the job."""
    return worker.is_core and job.remote_id is None and unconfirmed(job)


def _seen(job: Job, state: JobState, now: float) -> float | None:
    """When it started; one that was seen to run is not ``unconfirmed`` any more, whatever its worker can tell."""
    return now if job.started_at is None and state is JobState.RUNNING else job.started_at


def _orphaned(job: Job, runs: bool) -> Job:
    """A final job that its worker says runs, or does not."""
    orphan = runs and job.state is JobState.LOST
    return job if job.orphan is orphan else evolve(job, orphan=orphan)
