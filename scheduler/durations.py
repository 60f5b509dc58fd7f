"""Durations as people write them: ``30s``, ``5m``, ``24h``, ``7d``, or a number of seconds."""

from __future__ import annotations

import math
import re

#: What to tell someone whose duration is none.
ALLOWED = "a duration like 30s, 5m, 24h or 7d, or a number of seconds"

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d|)")


def parse(value: object) -> float:
    """Seconds, finite and not negative; ``ValueError`` says what is allowed."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf
        if math.isfinite(seconds):
            return seconds
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        return float(match[1]) * _UNITS[match[2]]
    raise ValueError(f"must be {ALLOWED}")


def text(seconds: float) -> str:
    """As people would write it, exactly: ``1h``, ``90s``, ``500ms``."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s" if seconds >= 1 or not seconds else f"{seconds * 1000:g}ms"
