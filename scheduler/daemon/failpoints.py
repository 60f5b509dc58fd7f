"""Places where a test can have this process die as by ``kill -9``. Standard library only.

``SCHEDULER_FAILPOINTS="worker.before-start-answer scheduler.before-answer:3"`` in the
environment names them: the process kills itself where the first is passed, and
where the second is passed for the third time, counted in each process. Without the
variable nothing is ever looked at.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from itertools import count

_VARIABLE = "SCHEDULER_FAILPOINTS"

#: All there are; a name that is misspelt would never be passed, and a test of it prove nothing.
POINTS = frozenset(
    {
        "scheduler.after-commit-before-rpc",  # the job is durable, and its worker has not heard of it
        "scheduler.after-dequeue-commit",  # a queued job is starting on a worker, which has not heard of it
        "scheduler.after-rpc-before-record",  # the worker has answered the start, and the store does not know
        "scheduler.before-acknowledge",  # what a heartbeat reported is kept, and its worker has not heard so
        "scheduler.before-answer",  # the start is recorded, and the client has not heard of it
        "scheduler.after-removal-commit",  # a client's removal is durable, and the worker has not heard of it
        "scheduler.after-removal-rpc",  # the worker has removed the job, and the store still has it
        "worker.before-spool-rename",  # the spool is complete, and has not its name yet
        "worker.after-spool-rename",  # the spool is there, and no shim was asked for
        "worker.before-begin",  # the spool is durable, and the shim that waits for that does not know
        "worker.before-start-answer",  # the job runs, and the scheduler has not been answered
        "worker.before-ack-written",  # the scheduler keeps the end, and the spool does not say so
        "worker.before-exit-rename",  # the worker has decided how a job ended, and written it under no name
        "worker.before-spool-removed",  # the tombstone of a job is there, and its spool too
        "shim.before-exit-rename",  # the job has ended, and its record has not its name yet
    }
)


class _Armed:
    """Those that a setting names."""

    def __init__(self, setting: str) -> None:
        """``ValueError`` for what names none."""
        self._passes: dict[str, tuple[int, count[int]]] = {}
        for word in setting.replace(",", " ").split():
            name, _, number = word.partition(":")
            if name not in POINTS:
                raise ValueError(f"{_VARIABLE}: {name!r} is none of {', '.join(sorted(POINTS))}")
            self._passes[name] = int(number or 1), count(1)

    def hit(self, name: str) -> None:
        """Die, if this is the time."""
        if name in self._passes:
            fatal, passes = self._passes[name]
            if next(passes) == fatal:
                os.kill(os.getpid(), signal.SIGKILL)


def _go_on(_: str) -> None:
    """Nothing is armed."""


#: To be called as ``failpoints.hit("name")`` where the process may be told to die.
hit: Callable[[str], None] = _Armed(os.environ[_VARIABLE]).hit if os.environ.get(_VARIABLE) else _go_on
