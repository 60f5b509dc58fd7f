"""Exit records: how the end of a job is written down. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

#: Ids of processes in an exit record.
MAX_LEFTOVER = 100

_REASON_MAX_CHARACTERS = 1000

Record = dict[str, Any]


class Exit(NamedTuple):
    """The end of a job. The fields are those of ``scheduler.messages.JobStatus``, and two more."""

    state: str
    reason: str
    finished_at: float
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    exit_code: int | None = None
    signal: str | None = None
    started_at: float | None = None
    tree: str = ""
    leftover: tuple[int, ...] = ()
    output_error: str = ""
    #: The start times of the processes ``leftover``, in clock ticks since the machine's start.
    leftover_started: tuple[int, ...] = ()
    background_ended: int = 0
    #: The resource of the machine that was missing: nothing ran, so the start counts as never made.
    shortage: str = ""
    usage: Record | None = None

    def record(self) -> Record:
        """Make the exit record. ``shortage`` and ``usage`` are left out where there is none."""
        return {name: value for name, value in self._asdict().items() if value or name not in {"shortage", "usage"}}


def limit_reached(limit: int) -> str:
    """The output error of a job that wrote as many bytes as it may."""
    return f"output limit of {limit} bytes reached"


def left_behind(pids: Sequence[int]) -> str:
    """The reason of a job's end if these processes could not be ended."""
    count = f"{len(pids)} process{'es' if len(pids) > 1 else ''}"
    more = f", and {len(pids) - MAX_LEFTOVER} more" if len(pids) > MAX_LEFTOVER else ""
    return f"{count} could not be ended: {', '.join(map(str, pids[:MAX_LEFTOVER]))}{more}"


def shortened(record: Record) -> Record:
    """The exit record, cut so that it fits into the room that was taken for it."""
    return record | {
        "reason": record["reason"][:_REASON_MAX_CHARACTERS],
        "leftover": list(record["leftover"])[:MAX_LEFTOVER],
        "leftover_started": list(record["leftover_started"])[:MAX_LEFTOVER],
    }
