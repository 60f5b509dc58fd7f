"""Answers with one job, for the parameters ``wait``, ``output`` and ``check``.

A job that was waited for is answered as it is when the wait is over. ``output`` adds the last bytes of its output.
``check`` makes the status depend on the job: an error unless it succeeded.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from scheduler.api.answers import Answer, json_answer, problem_answer
from scheduler.api.context import Context
from scheduler.api.errors import Problem
from scheduler.api.parameters import Query
from scheduler.errors import Invalid
from scheduler.model import Job, JobState, error_text
from scheduler.reading import Object

#: The parameters that ``Wanted.read`` reads.
WANTED = ("wait", "output", "check")


@frozen
class Wanted:
    """The form of answer that a request asks for: ``wait`` in seconds, ``output`` in bytes of each stream."""

    wait: float | None = None
    output: int | None = None
    check: bool = False

    @classmethod
    def read(cls, query: Query) -> Wanted:
        """Read the parameters. Raises ``Invalid`` for a combination that makes no sense."""
        wanted = cls(query.wait(), query.output(), query.flag("check"))
        if wanted.check and wanted.wait is None:
            raise Invalid("check", "goes with wait, which says how long the end of the job is waited for")
        return wanted


async def of_submission(context: Context, job: Job, wanted: Wanted, headers: Mapping[str, str]) -> Answer:
    """The answer of ``POST /v1/jobs``. The job exists, so the status is never a 5xx."""
    shown = await context.described(job, wanted.output)
    if wanted.check and job.state is not JobState.SUCCEEDED:
        return _failed(job, shown, 424, {"started": True}, headers)
    return json_answer(shown, 202 if _unended(job, wanted) else 201, headers)


async def of_job(context: Context, job: Job, wanted: Wanted) -> Answer:
    """The answer of ``GET /v1/jobs/{id}``. With ``check``: 504 if the job has not ended, 424 if it did not succeed.

    Repeating the request can change only a 504. Raises ``StoreFailed`` if the store fails and has a part of the job.
    """
    if job.spec.stored:
        (job,) = await context.scheduler.with_specs([job])
    shown = await context.described(job, wanted.output)
    if wanted.check and not job.state.final:
        return _failed(job, shown, 504, {}, {"Retry-After": "1"})
    if wanted.check and job.state is not JobState.SUCCEEDED:
        return _failed(job, shown, 424, {}, {})
    return json_answer(shown, 202 if _unended(job, wanted) else 200)


def unfollowable(context: Context, job: Job, why: str, headers: Mapping[str, str]) -> Problem:
    """The problem for a submission that asks for the job's output, if the output can't be read now."""
    detail = f"job {job.id!r} was submitted, but its output can't be followed now: {why}"
    members = {"job_id": job.id, "job": context.job_json(job), "started": True}
    return Problem(424, detail, headers, members, type="output-unavailable")


def _unended(job: Job, wanted: Wanted) -> bool:
    """Whether the answer shows output that may still grow."""
    return wanted.output is not None and not job.state.final


def _failed(job: Job, shown: Object, status: int, members: Object, headers: Mapping[str, str]) -> Answer:
    members = {"job_id": job.id, **members, "job": shown}
    if not job.state.final:
        detail = f"job {job.id!r} has not ended: it is {job.state.value}"
        return problem_answer(Problem(status, detail, headers, members, type="job-not-ended"))
    detail = f"job {job.id!r} did not succeed: it {_what_came(job)}"
    return problem_answer(Problem(status, detail, headers, members, type="job-failed"))


def _what_came(job: Job) -> str:
    verb = {JobState.STOPPED: "was stopped", JobState.TIMED_OUT: "timed out", JobState.LOST: "is lost"}
    text = error_text(job.state, job.reason)
    return verb.get(job.state, "failed") + (f" ({text})" if text else "")
