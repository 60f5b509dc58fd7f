"""The exit code of ``run`` and ``wait``: the end of a job as one number and, where needed, a sentence.

The codes of schedctl are those of docker and env. A job may have any of these codes, too, and then it is passed on. The
two cases differ in that a code of schedctl always comes with a sentence.
"""

from __future__ import annotations

import re
import signal
from typing import NamedTuple

from scheduler.cli.failures import MAY_HAVE_RUN, OWN_FAILURE
from scheduler.client import Job

TIMED_OUT, NOT_RUNNABLE, NOT_FOUND = 124, 126, 127

#: The code for a job that failed and has no exit code: a core worker reports nothing else.
_FAILED = 1

#: The beginning of a worker's refusal: the part of the job that it is about. The value follows in quotes.
_REFUSED = re.compile(r"(command|path|script)\b")
_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")


class Outcome(NamedTuple):
    """An exit code. ``sentence`` explains a code of schedctl; ``None`` for the code of the job."""

    code: int
    sentence: str | None = None


def outcome(job: Job) -> Outcome:
    """The exit code for a job at its end, or for a job whose wait is over."""
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
    """The exit code for a job that was not started, from the reason that its worker or the scheduler gave.

    The API marks these cases by nothing but this text.
    """
    if _REFUSED.match(reason) is None:
        return OWN_FAILURE
    return NOT_FOUND if "not found" in _QUOTED.sub("", reason) else NOT_RUNNABLE


def signal_number(name: str) -> int:
    """The number of a signal such as ``SIGKILL`` or ``SIGRTMIN+3``; 0 if unknown."""
    name, _, above = name.partition("+")
    try:
        return signal.Signals[name] + int(above or 0)
    except (KeyError, ValueError):
        return 0
