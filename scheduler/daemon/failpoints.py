"""Failpoints: places where a test can make this process die as if by ``kill -9``. Standard library only.

The variable ``SCHEDULER_FAILPOINTS="worker.before-start-answer scheduler.before-answer:3"`` arms two of them: the
process kills itself when it passes the first, or when it passes the second for the third time. Each process counts its
own passes. Without the variable ``hit`` does nothing.

The processes that supervise jobs have an empty environment. ``SCHEDULER_FAILPOINTS_PASS="LD_PRELOAD FAKETIME"`` names
variables that a test needs there, too.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import count

_VARIABLE, _PASS = "SCHEDULER_FAILPOINTS", "SCHEDULER_FAILPOINTS_PASS"

#: All failpoints. Other names are refused: a misspelt one would never be passed, and its test would prove nothing.
POINTS = frozenset(
    {
        "scheduler.before-audit-commit",  # a change and its entry in the audit are written, and not committed
        "scheduler.after-commit-before-rpc",  # the job is durable, and its worker has not been told
        "scheduler.after-dequeue-commit",  # a queued job is starting on a worker, which has not been told
        "scheduler.after-rpc-before-record",  # the worker has answered the start, and the store does not know
        "scheduler.before-acknowledge",  # a heartbeat's reports are durable, and not acknowledged
        "scheduler.before-answer",  # the start is recorded, and the client has no answer
        "scheduler.after-removal-commit",  # a client's removal is durable, and the worker has not been told
        "scheduler.after-removal-rpc",  # the worker has removed the job, and the store still has it
        "worker.before-spool-rename",  # the spool is complete, but does not have its name yet
        "worker.after-spool-rename",  # the spool is there, and no shim has been requested
        "worker.before-begin",  # the spool is durable, and the waiting shim has not been told
        "worker.before-start-answer",  # the job runs, and the scheduler has no answer
        "worker.before-ack-written",  # the end is durable at the scheduler, and not marked so in the spool
        "worker.before-exit-rename",  # the worker has decided how a job ended; the record does not have its name yet
        "worker.before-spool-removed",  # the tombstone of a job is there, and its spool too
        "shim.before-exit-rename",  # the job has ended, and its record does not have its name yet
    }
)


def _armed(setting: str) -> dict[str, Iterator[bool]]:
    """The failpoints that are armed, each with whether its next pass is fatal. ``ValueError`` for an unknown name."""
    armed: dict[str, Iterator[bool]] = {}
    for word in setting.replace(",", " ").split():
        name, _, number = word.partition(":")
        if name not in POINTS:
            raise ValueError(f"{_VARIABLE}: {name!r} is none of {', '.join(sorted(POINTS))}")
        armed[name] = map(int(number or 1).__eq__, count(1))
    return armed


_ARMED = _armed(os.environ.get(_VARIABLE, ""))


def environment() -> dict[str, str]:
    """Answer the environment of a child process: the armed failpoints, and what is passed; empty but in a test."""
    names = (_VARIABLE, *os.environ.get(_PASS, "").split())
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def hit(name: str) -> None:
    """Pass the failpoint: die if it is armed, and this is the fatal pass."""
    if name in _ARMED and next(_ARMED[name]):
        os.kill(os.getpid(), signal.SIGKILL)
