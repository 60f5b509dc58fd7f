"""The exit code of ``run`` and ``wait``: what became of a job, as one number and, where needed, one sentence.

The codes are those of docker and env. A job's own code is passed on, even where it is one of these numbers; then there
is no sentence, which tells the two apart.
"""

from __future__ import annotations

import re
import signal
from typing import NamedTuple

from scheduler.cli.failures import MAY_HAVE_RUN, OWN_FAILURE
from scheduler.client import Job

TIMED_OUT, NOT_RUNNABLE, NOT_FOUND = 124, 126, 127

#: Of a job that failed and has no code of its own: the program of a worker that knows only the core protocol says no
#: more than that.
_FAILED = 1

#: What a worker refuses names first which part of the job it is about, and quotes what it was given.
_REFUSED = re.compile(r"(command|path|script)\b")
_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")


class Outcome(NamedTuple):
    """``sentence``: which of our own codes it is, and why; ``None`` where the code speaks for itself."""

    code: int
    sentence: str | None = None


def outcome(job: Job) -> Outcome:
    """Of a job at its end, or of one that is not waited for any longer."""
    reason = job.reason or "no reason is known"
    if job.state == "succeeded":
        return Outcome(0)
    if job.state == "timed_out":
        return Outcome(TIMED_OUT, f"job {job.id} timed out and was stopped: {reason}")
    if job.state not in ("failed", "stopped"):
        return Outcome(MAY_HAVE_RUN, f"job {job.id} is {job.state}, it may have run: {reason}")
    if job.signal is not None:
        return Outcome(128 + signal_number(job.signal))
    if job.exit_code:
        return Outcome(job.exit_code)
    if job.state == "stopped" or job.exit_code == 0:  # or it is failed for its output limit, and ended in order
        return Outcome(128 + signal_number(str(job.data.get("stop_signal") or "SIGTERM")))
    if job.started_at is not None:
        return Outcome(_FAILED)
    code = refusal(reason)
    return Outcome(code, f"job {job.id} did not start: {reason}")


def refusal(reason: str) -> int:
    """The code of a job that was not started, by the reason that its worker, or the scheduler, gave.

    The API has no other mark of it than this text.
    """
    if _REFUSED.match(reason) is None:
        return OWN_FAILURE
    return NOT_FOUND if "not found" in _QUOTED.sub("", reason) else NOT_RUNNABLE


def signal_number(name: str) -> int:
    """Of ``SIGKILL``, or ``SIGRTMIN+3``."""
    name, _, above = name.partition("+")
    try:
        return signal.Signals[name] + int(above or 0)
    except (KeyError, ValueError):
        return 0
