"""Whether what there is of a job's output is all that the job wrote."""

from __future__ import annotations

from scheduler.messages import JobStatus
from scheduler.model import Job, JobState, Stream


def output_cut(ended: Job | JobStatus, stream: Stream, size: int) -> str:
    """Why ``size`` bytes of a stream, all that there is of it, may not be all that a job wrote; ``""``: they are.

    ``ended`` is how the job ended, as its worker told. What was not kept of one stream is held against both.
    """
    if ended.output_error:
        return ended.output_error
    written = ended.stdout_bytes if stream is Stream.STDOUT else ended.stderr_bytes
    if written is None:  # its worker did not tell: a job that is lost here may have ended well there, as an orphan
        return ""
    if size != written:
        return f"{stream.value} has {size} bytes, and the job wrote {written}"
    if ended.state is JobState.LOST:  # what was in its pipes went with the process that kept its output
        return f"the job is lost ({ended.reason}), and what it wrote last may be missing"
    return ""
