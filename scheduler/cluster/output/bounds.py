"""The length of a job's output as far as it is known without its worker, and the errors for output that is gone."""

from __future__ import annotations

from attrs import evolve

from scheduler.cut_output import output_cut
from scheduler.errors import NotFound, OffsetBeyondEnd, OutputGone, SchedulerError, Unreachable
from scheduler.messages import Chunk
from scheduler.model import Job, JobState, Stream


def length(job: Job, stream: Stream) -> int | None:
    """The length of the whole stream in bytes; ``None``: it is not known yet."""
    if not job.over:
        return None
    told = job.stdout_bytes if stream is Stream.STDOUT else job.stderr_bytes
    return 0 if told is None and never_began(job) else told


def never_began(job: Job) -> bool:
    """Whether a job is over and its command never ran: it ended in the queue, or its start failed or was stopped."""
    if job.worker_id is None:
        return job.over
    ran = job.started_at is not None or job.exit_code is not None or job.signal is not None
    return job.over and job.state in {JobState.FAILED, JobState.STOPPED} and not ran


def nothing(offset: int, size: int, end: bool = True, cut: str = "") -> Chunk:
    """The empty chunk after the last of ``size`` bytes. Raises ``OffsetBeyondEnd`` if ``offset`` is larger."""
    if offset > size:
        raise OffsetBeyondEnd(offset, size)
    return Chunk(b"", offset, end, size, cut)


def judged(chunk: Chunk, job: Job, stream: Stream) -> Chunk:
    """The chunk, marked as ``cut`` if it is the last and the job's end tells that bytes are missing.

    A worker of an earlier version does not mark the chunk. Neither does anyone else if the worker was not asked,
    because the length was known.
    """
    if not chunk.end or chunk.cut or not job.over:
        return chunk
    return evolve(chunk, cut=output_cut(job, stream, chunk.next_offset))


def no_record(job: Job) -> SchedulerError:
    """The error for a job that is over, and of which its worker has no record."""
    return gone(job) if job.state is JobState.LOST else NotFound("output of job", job.id)


def without_worker(job: Job) -> SchedulerError:
    """The error for a job whose worker is not known."""
    return gone(job) if job.over else Unreachable(job.worker_name or job.worker_id or "none")


def gone(job: Job) -> OutputGone:
    """The error for output that is gone, because the job is lost, or its worker is not known any more."""
    if job.state is JobState.LOST:
        return OutputGone(job.id, f"the job is lost ({job.reason})")
    return OutputGone(job.id, f"worker {job.worker_name or job.worker_id!r} is not known any more")
