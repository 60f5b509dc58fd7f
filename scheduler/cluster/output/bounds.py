"""What can be said of a job's output without its worker, and when its worker knows nothing of it."""

from __future__ import annotations

from attrs import evolve

from scheduler.completeness import output_cut
from scheduler.errors import NotFound, OffsetBeyondEnd, SchedulerError, Unavailable, Unreachable
from scheduler.messages import Chunk
from scheduler.model import Job, JobState, Stream

#: Its worker may not have heard of it yet.
NOT_STARTED = frozenset({JobState.QUEUED, JobState.STARTING})


def length(job: Job, stream: Stream) -> int | None:
    """How many bytes there are in all, where that is known."""
    if not job.over:
        return None
    if job.worker_id is None:
        return 0  # it ended in the queue
    return job.stdout_bytes if stream is Stream.STDOUT else job.stderr_bytes


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


def without_record(job: Job, stream: Stream, offset: int) -> Chunk:
    """What is read of a job its worker has no record of: nothing if it never started, else an error is raised."""
    if job.state is JobState.FAILED and job.started_at is None and length(job, stream) is None:
        return nothing(offset, 0)
    if job.over:
        raise lost(job) if job.state is JobState.LOST else NotFound("output of job", job.id)
    raise Unavailable(f"job {job.id!r} is {job.state.value}: its worker does not know it at present")


def without_worker(job: Job) -> SchedulerError:
    """Why there is no output of a job whose worker is not among those known."""
    return lost(job) if job.state is JobState.LOST else Unreachable(job.worker_name or job.worker_id or "none")


def lost(job: Job) -> Unavailable:
    """The output went with the job."""
    return Unavailable(f"job {job.id!r} is lost ({job.reason}), and its output with it")
