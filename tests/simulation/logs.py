"""Findings in the log of a run: a failure, or a line of level ``critical``.

Production code logs a failure for an unexpected error, and Twisted does so for an unhandled error in a Deferred. The
latter shows only when the Deferred is freed, so everything possible is freed at the end.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

#: Twisted logs this line before the error itself.
_HEADING = "Unhandled error in Deferred:"


def brief(reason: Failure) -> str:
    """The error, and the place in our code where it was raised; the same text on every machine."""
    frames = [frame for frame in reason.frames if "scheduler" in frame[1] or "simulation" in frame[1]]
    text = f"{reason.type.__name__ if reason.type else reason.type}: {reason.getErrorMessage()}"
    if not frames:
        return text
    function, file, line, *_ = frames[-1]
    return f"{text} (in {function}, {os.path.basename(file)}:{line})"


@implementer(ILogObserver)
class Errors:
    """An observer that passes on errors in the log."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        """``tell`` is called with the namespace, and the error in one line."""
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
    """Report errors in the log until this is over, including unhandled ones.

    Only garbage of this run is collected, at the end, so that a run takes the same course each time.
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
