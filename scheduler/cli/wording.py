"""Jobs and workers in words and figures for people: ages, sizes, command lines, exits.

Every function takes JSON values of the API. Texts are returned without control characters, so that no part of a job can
control the terminal.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import Any

Object = Mapping[str, Any]

#: Characters of an id in tables: the first part of a UUID.
SHORT_ID = 8

#: The states of a job that has not ended.
UNFINISHED = ("queued", "starting", "running", "unknown")

#: Colours of the states of jobs and workers, for a terminal.
STATE_COLOURS = {
    "queued": "cyan",
    "starting": "cyan",
    "running": "blue",
    "succeeded": "green",
    "failed": "red",
    "timed_out": "red",
    "lost": "red",
    "stopped": "yellow",
    "unknown": "yellow",
    "online": "green",
    "unreachable": "red",
    "offline": "yellow",
}

_UNITS = ("kB", "MB", "GB", "TB", "PB")

# Excluded are control characters, and half a surrogate pair, which can't be printed at all.
_UNPRINTABLE = re.compile(r"[^\S ]|[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text on one line; control characters become escapes such as ``\n`` and ``\x1b``."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def moment(text: str | None) -> float | None:
    """The POSIX time of an RFC 3339 time; ``None`` for ``None``, and for an invalid time."""
    try:
        return None if text is None else datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def clock_time(text: str | None) -> str:
    """A time of the API in this machine's zone; ``""`` for ``None``."""
    when = moment(text)
    return "" if when is None else f"{datetime.fromtimestamp(when).astimezone():%Y-%m-%d %H:%M:%S %z}"


def span(seconds: float) -> str:
    """A number of seconds as text, to about two digits: ``0.4s``, ``43s``, ``5m 3s``, ``2h 5m``, ``3d 4h``."""
    seconds = max(seconds, 0.0)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for larger, unit, smaller, subunit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= larger:
            rest = whole % larger // smaller
            return f"{whole // larger}{unit} {rest}{subunit}" if rest else f"{whole // larger}{unit}"
    return f"{whole}s"


def size(count: int) -> str:
    """A number of bytes as text, to three digits."""
    if count < 1000:
        return f"{count} B"
    value, unit = float(count), ""
    for unit in _UNITS:  # noqa: B007 - the last one is used below
        value /= 1000
        if value < 999.5:
            break
    return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"


def short_id(job: Object) -> str:
    """The part of a job's id that tables show."""
    return printable(str(job["id"])[:SHORT_ID])


def command_line(job: Object) -> str:
    """The command of a job as it would be typed in a shell; for a script, its first line."""
    if (script := job.get("script")) is not None:
        return printable(f"{script['first_line']} ({size(script['bytes'])} script)")
    words = [job.get("command") or "", *([job["path"]] if job.get("path") else []), *(job.get("args") or ())]
    line = words[2] if len(words) == 3 and words[0] == "/bin/sh" and words[1] == "-c" else shlex.join(words)
    return printable(line)


def run_time(job: Object, now: float) -> float | None:
    """Seconds for which a job has run so far, or ran; ``None`` if it never started."""
    started, finished = moment(job.get("started_at")), moment(job.get("finished_at"))
    if started is None:
        return None
    return (now if finished is None else finished) - started


def age(job: Object, now: float) -> float | None:
    """Seconds since a job was created."""
    created = moment(job.get("created_at"))
    return None if created is None else now - created


def ending(job: Object) -> str:
    """The exit code or signal of a job; ``""`` if it has neither."""
    if job.get("signal"):
        return printable(str(job["signal"]))
    return "" if job.get("exit_code") is None else str(job["exit_code"])


def labels(of: Object) -> str:
    """Labels as they are typed on a command line, sorted by name."""
    return printable(",".join(f"{key}={value}" for key, value in sorted((of.get("labels") or {}).items())))
