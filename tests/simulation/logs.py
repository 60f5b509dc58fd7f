"""What is logged during a run: a failure, or a line of level ``critical``, is a finding.

Production code logs a failure where something went wrong that nobody expected, and Twisted does so for an error in
a Deferred that nobody handled. The last one shows when the Deferred is freed, so all that can be is freed at the end.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

#: Twisted says this before it logs the error itself.
_HEADING = "Unhandled error in Deferred:"


def brief(reason: Failure) -> str:
    """The error, and where it was raised in code of ours; the same text on every machine."""
    frames = [frame for frame in reason.frames if "scheduler" in frame[1] or "simulation" in frame[1]]
    text = f"{reason.type.__name__ if reason.type else reason.type}: {reason.getErrorMessage()}"
    if not frames:
        return text
    function, file, line, *_ = frames[-1]
    return f"{text} (in {function}, {os.path.basename(file)}:{line})"


@implementer(ILogObserver)
class Errors:
    """An observer that passes on what is logged and must not be."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        """``tell`` gets where it was logged, and what it was in one line."""
        self._tell = tell

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        if failure is None and (event.get("log_level") is not LogLevel.critical or event.get("log_format") == _HEADING):
            return
        text = formatEvent(event) if event.get("log_format") else ""
        if isinstance(failure, Failure):
            first, *_ = (*text.strip().splitlines(), "failure")
            text = f"{first}: {brief(failure)}"
        self._tell(str(event.get("log_namespace", "")), text)


@contextmanager
def watched(tell: Callable[[str, str], None]) -> Iterator[None]:
    """Tell of errors in the log until this is over, those among them that nobody handled.

    Garbage of the run alone is collected, at the end and not before, so that a run takes the same course each time.
    """
    errors = Errors(tell)
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    globalLogPublisher.addObserver(errors)
    try:
        yield
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(errors)
        gc.unfreeze()
        if was_enabled:
            gc.enable()
