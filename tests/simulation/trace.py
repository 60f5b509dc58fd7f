"""The events of a run, line by line: the same seed gives the same lines."""

from __future__ import annotations

import hashlib

from scheduler.model import Job
from tests.simulation.loop import Loop


def brief(job: Job) -> str:
    """A job in a line of the trace."""
    text = f"job {job.id} {job.state.value}"
    if job.worker_name:
        text += f" on {job.worker_name}"
    if job.exit_code is not None:
        text += f" code {job.exit_code}"
    return f"{text} ({job.reason})" if job.reason else text


class Trace:
    """The lines of a run so far."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._lines: list[tuple[float, str, str]] = []

    def add(self, who: str, what: str) -> None:
        """Add an event that happens now."""
        self._lines.append((self._loop.now, who, what))

    def entries(self) -> list[tuple[float, str, str]]:
        """All events: the time in seconds, the party, and the event."""
        return self._lines

    def lines(self) -> list[str]:
        """All lines, with their times in seconds."""
        return [line(*entry) for entry in self._lines]

    def digest(self) -> str:
        """SHA-256 of all lines, in hexadecimal."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()


def line(time: float, who: str, what: str) -> str:
    """An entry in readable form."""
    return f"{time:10.4f}  {who:<12} {what}"
