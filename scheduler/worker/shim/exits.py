"""Exit records: how the end of a job is written down. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: Ids of processes in an exit record.
MAX_LEFTOVER = 100

_REASON_MAX_CHARACTERS = 1000

Record = dict[str, Any]


def exit_record(
    state: str,
    reason: str,
    finished_at: float,
    sizes: tuple[int, int] = (0, 0),
    exit_code: int | None = None,
    signal: str | None = None,
    started_at: float | None = None,
    tree: str = "",
    leftover: tuple[int, ...] = (),
    output_error: str = "",
    leftover_started: tuple[int, ...] = (),
    background_ended: int = 0,
    shortage: str = "",
    usage: Record | None = None,
) -> Record:
    """An exit record. Its fields are those of ``scheduler.messages.JobStatus``, and two more.

    ``leftover_started`` are the start times of the processes ``leftover``, in clock ticks since the machine's start.
    ``shortage`` says which resource of the machine was missing: nothing ran, so the start counts as never made.
    ``usage`` is left out where it is not known.
    """
    record = {
        "state": state,
        "reason": reason,
        "exit_code": exit_code,
        "signal": signal,
        "started_at": started_at,
        "finished_at": finished_at,
        "stdout_bytes": sizes[0],
        "stderr_bytes": sizes[1],
        "tree": tree,
        "leftover": leftover,
        "leftover_started": leftover_started,
        "background_ended": background_ended,
        "output_error": output_error,
    }
    return record | ({"shortage": shortage} if shortage else {}) | ({} if usage is None else {"usage": usage})


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
