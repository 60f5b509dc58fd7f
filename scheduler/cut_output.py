"""Whether the output that exists is everything that a job wrote."""

from __future__ import annotations

from scheduler.messages import JobStatus
from scheduler.model import Job, JobState, Stream

#: Why the output of a lost job may be incomplete: the data in its pipes was lost with its shim.
LOST_OUTPUT = "the job is lost, and what it wrote last may be missing"


def output_cut(ended: Job | JobStatus, stream: Stream, size: int) -> str:
    """Why the ``size`` bytes that exist of a stream may not be everything that the job wrote; ``""`` if they are.

    ``ended`` is the end that the worker reported. An ``output_error`` of one stream counts for both.
    """
    if ended.output_error:
        return ended.output_error
    written = ended.stdout_bytes if stream is Stream.STDOUT else ended.stderr_bytes
    if written is None:  # not reported: a job that is lost here may have ended well on its worker, as an orphan
        return ""
    if size != written:
        return f"{stream.value} has {size} bytes, and the job wrote {written}"
    return LOST_OUTPUT if ended.state is JobState.LOST else ""  # as a worker of an earlier version reports it
