"""Durations, moments and sizes in human-readable form.

A duration is ``30s``, ``5m``, ``1h30m``, ``2 h``, ``7d``, ``500ms``, or a number of seconds. Its units are ``ms s m h d
w`` and their usual names (``sec``, ``minutes``), in upper or lower case. A lone ``M`` is refused, because it means
months elsewhere. Several units go from the largest to the smallest.

A size is ``100MB``, ``4GiB``, ``64k``, ``512``, or ``10%`` for part of a disk. Units are those of the GNU tools, in
upper or lower case: ``KB`` is 1000 bytes, ``KiB`` and ``K`` alone are 1024. The same holds for ``M G T P``.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

from attrs import frozen

#: For errors about durations: the allowed forms.
DURATION_ALLOWED = "a duration like 30s, 5m, 1h30m or 7d, or a number of seconds"

#: Name of a unit -> its seconds.
_SECONDS: dict[str, Decimal] = {
    name: Decimal(seconds)
    for names, seconds in (
        ("ms msec msecs millisecond milliseconds", "0.001"),
        ("s sec secs second seconds", "1"),
        ("m min mins minute minutes", "60"),
        ("h hr hrs hour hours", "3600"),
        ("d day days", "86400"),
        ("w week weeks", "604800"),
    )
    for name in names.split()
}
_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,9})?"
_BARE = re.compile(_NUMBER)
_PART = re.compile(rf"({_NUMBER}) ?([A-Za-z]+)")
_PARTS = re.compile(rf"{_NUMBER} ?[A-Za-z]+(?: ?{_NUMBER} ?[A-Za-z]+)*")

#: For errors about sizes: the allowed forms.
SIZE_ALLOWED = "a number of bytes, or a size like 64KiB, 100MB or 4GiB"
SHARE_ALLOWED = f"a percentage like 10%, {SIZE_ALLOWED}"

#: Bytes of the largest size.
SIZE_MAX_BYTES = 2**60

_BYTES = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgtp", 1):
    _BYTES |= {f"{_letter}b": 1000**_power, f"{_letter}ib": 1024**_power, _letter: 1024**_power}
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) ?([kmgtp](?:i?b)?|b|)", re.ASCII | re.IGNORECASE)
_PERCENTAGE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?) ?%")


def parse_duration(value: object) -> float:
    """Seconds, finite and not negative. Raises ``ValueError`` that says which forms are allowed."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf
        if math.isfinite(seconds):
            return seconds
    elif isinstance(value, str):
        if _BARE.fullmatch(value):
            return float(value)
        if has_unit(value) and (found := _sum(value)) is not None:
            return float(found)
    raise ValueError(f"must be {DURATION_ALLOWED}")


def has_unit(value: str) -> bool:
    """Whether the text has the form of numbers with units; ``False`` for a number alone."""
    return _PARTS.fullmatch(value) is not None


def _sum(value: str) -> Decimal | None:
    """The duration in seconds; ``None`` if a unit is unknown, or the units are not from the largest to the smallest."""
    parts = [
        (Decimal(number), None if unit == "M" else _SECONDS.get(unit.lower())) for number, unit in _PART.findall(value)
    ]
    units = [unit for _, unit in parts if unit is not None]
    if len(units) < len(parts) or any(larger <= smaller for larger, smaller in pairwise(units)):
        return None
    return sum((number * unit for (number, _), unit in zip(parts, units, strict=True)), Decimal(0))


def format_moment(when: float) -> str:
    """A POSIX time in UTC, to the second: ``2026-11-28T20:49:37Z``."""
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def format_duration(seconds: float) -> str:
    """The duration to the microsecond, in human-readable form: ``1h``, ``1h30m``, ``90s``, ``500ms``."""
    micros = round(seconds * 1_000_000)
    if 0 < micros < 1_000_000:
        return f"{_trimmed(micros, 1_000)}ms"
    if micros < 120_000_000 and micros % 60_000_000:
        return f"{_trimmed(micros, 1_000_000)}s"
    words = ""
    for unit, size in (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000)):
        count, micros = divmod(micros, size)
        words += f"{count}{unit}" if count else ""
    return f"{words}{_trimmed(micros, 1_000_000)}s" if micros or not words else words


def _trimmed(micros: int, unit: int) -> str:
    """``micros`` microseconds as a number of units of ``unit`` microseconds, without trailing zeros."""
    whole, part = divmod(micros, unit)
    return f"{whole}.{part * (1_000_000 // unit):06d}".rstrip("0").rstrip(".")


@frozen
class Share:
    """Part of a disk: a number of bytes, or a percentage."""

    size: int = 0
    percent: float = 0.0

    def of(self, whole: int) -> int:
        """The number of bytes, for a disk of ``whole`` bytes."""
        return self.size + int(whole * self.percent / 100)

    def __str__(self) -> str:
        return f"{self.percent:g}%" if self.percent else f"{self.size} bytes"


def parse_size(value: object, least: int = 0) -> int:
    """The number of bytes, at least ``least``. Raises ``ValueError`` that says which forms are allowed."""
    size = -1
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        whole, _, fraction = match[1].partition(".")
        unit = _BYTES[match[2].lower()]
        size = int(whole) * unit + int(fraction or 0) * unit // 10 ** len(fraction)
    if not least <= size <= SIZE_MAX_BYTES:
        raise ValueError(f"must be {SIZE_ALLOWED}" + (f", at least {least}" if least else ""))
    return size


def parse_share(value: object) -> Share:
    """A percentage of at most 100, or a size. Raises ``ValueError`` that says which forms are allowed."""
    if isinstance(value, str) and (match := _PERCENTAGE.fullmatch(value)) and float(match[1]) <= 100:
        return Share(percent=float(match[1]))
    try:
        return Share(parse_size(value))
    except ValueError:
        raise ValueError(f"must be {SHARE_ALLOWED}") from None
