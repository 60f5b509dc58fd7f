"""Numbers of bytes as people write them: ``100MB``, ``4GiB``, ``64k``, ``512``, or for part of a disk ``10%``.

As the GNU tools have it, in upper or lower case: ``KB`` is 1000 bytes, ``KiB`` and ``K`` alone
are 1024; so ``M G T P`` with and without ``B`` and ``iB``.
"""

from __future__ import annotations

import re

from attrs import frozen

#: What to tell someone whose size is none.
ALLOWED = "a number of bytes, or a size like 64KiB, 100MB or 4GiB"
SHARE_ALLOWED = f"a percentage like 10%, {ALLOWED}"

#: Bytes; no size is larger.
LARGEST = 2**60

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgtp", 1):
    _UNITS |= {f"{_letter}b": 1000**_power, f"{_letter}ib": 1024**_power, _letter: 1024**_power}
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) ?([kmgtp](?:i?b)?|b|)", re.ASCII | re.IGNORECASE)
_PERCENTAGE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?) ?%")


@frozen
class Share:
    """So many bytes of a disk, or so much of it."""

    size: int = 0
    percent: float = 0.0

    def of(self, whole: int) -> int:
        """Bytes, of a disk that has ``whole``."""
        return self.size + int(whole * self.percent / 100)

    def __str__(self) -> str:
        return f"{self.percent:g}%" if self.percent else f"{self.size} bytes"


def parse(value: object, least: int = 0) -> int:
    """Bytes, at least so many; ``ValueError`` says what is allowed."""
    size = -1
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        whole, _, fraction = match[1].partition(".")
        unit = _UNITS[match[2].lower()]
        size = int(whole) * unit + int(fraction or 0) * unit // 10 ** len(fraction)
    if not least <= size <= LARGEST:
        raise ValueError(f"must be {ALLOWED}" + (f", at least {least}" if least else ""))
    return size


def parse_share(value: object) -> Share:
    """``ValueError`` says what is allowed."""
    if isinstance(value, str) and (match := _PERCENTAGE.fullmatch(value)) and float(match[1]) <= 100:
        return Share(percent=float(match[1]))
    try:
        return Share(parse(value))
    except ValueError:
        raise ValueError(f"must be {SHARE_ALLOWED}") from None
