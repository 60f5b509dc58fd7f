"""What happened in a run, line by line: the same seed gives the same lines."""

from __future__ import annotations

import hashlib

from tests.simulation.loop import Loop


class Trace:
    """Grows by a line for each thing that happens."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._lines: list[tuple[float, str, str]] = []

    def add(self, who: str, what: str) -> None:
        """It happens now."""
        self._lines.append((self._loop.now, who, what))

    def lines(self) -> list[str]:
        """All, with their times in seconds."""
        return [f"{time:10.4f}  {who:<12} {what}" for time, who, what in self._lines]

    def digest(self) -> str:
        """SHA-256 of all lines, in hexadecimal."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()
