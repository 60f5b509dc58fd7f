"""What can be said of a job's output without its worker, and when its worker knows nothing of it."""

from __future__ import annotations

from attrs import evolve

from scheduler.completeness import output_cut
from scheduler.errors import NotFound, OffsetBeyondEnd, OutputGone, SchedulerError, Unavailable, Unreachable
from scheduler.messages import Chunk
from scheduler.model import Job, JobState, Stream


def length(job: Job, stream: Stream) -> int | None:
    """How many bytes there are in all, where that is known."""
    if not job.over:
        return None
    told = job.stdout_bytes if stream is Stream.STDOUT else job.stderr_bytes
    return 0 if told is None and never_began(job) else told


def never_began(job: Job) -> bool:
    """Whether a job is over and its command never ran: it ended in the queue, or could not be started, or in time."""
    if job.worker_id is None:
        return job.over
    ran = job.started_at is not None or job.exit_code is not None or job.signal is not None
    return job.over and job.state in {JobState.FAILED, JobState.STOPPED} and not ran


def nothing(offset: int, size: int, end: bool = True, cut: str = "") -> Chunk:
    """What is read behind the last of ``size`` bytes; ``OffsetBeyondEnd``."""
    if offset > size:
        raise OffsetBeyondEnd(offset, size)
    return Chunk(b"", offset, end, size, cut)


def judged(chunk: Chunk, job: Job, stream: Stream) -> Chunk:
    """A chunk that, if it is the last, says ``cut`` where it is known here that bytes are missing.

    The worker says so too; but one of an earlier version does not, and the end of a stream whose length is
    known is found without its worker.
    """
    if not chunk.end or chunk.cut or not job.over:
        return chunk
    return evolve(chunk, cut=output_cut(job, stream, chunk.next_offset))


def without_record(job: Job, offset: int) -> Chunk:
    """What is read of a job its worker has no record of: nothing yet while it is started, else an error is raised.

    ``job`` is as it was when its worker was asked.
    """
    if job.state is JobState.STARTING:
        return nothing(offset, 0, end=False)
    if job.over:
        raise gone(job) if job.state is JobState.LOST else NotFound("output of job", job.id)
    raise Unavailable(f"job {job.id!r} is {job.state.value}: its worker does not know it at present")


def without_worker(job: Job) -> SchedulerError:
    """Why there is no output of a job whose worker is not among those known."""
    return gone(job) if job.over else Unreachable(job.worker_name or job.worker_id or "none")


def gone(job: Job) -> OutputGone:
    """The output went with the job, or with its worker."""
    if job.state is JobState.LOST:
        return OutputGone(job.id, f"the job is lost ({job.reason})")
    return OutputGone(job.id, f"worker {job.worker_name or job.worker_id!r} is not known any more")
