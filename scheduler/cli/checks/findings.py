"""What a check of ``schedctl doctor`` found, and what to do about it."""

from __future__ import annotations

import enum

from attrs import frozen


class Severity(enum.Enum):
    """How bad it is."""

    OK = "ok"
    #: Worth knowing; nothing is wrong.
    NOTE = "note"
    #: It works now, and will not always, or not fully.
    WARNING = "warning"
    #: It does not work.
    ERROR = "error"

    @property
    def wrong(self) -> bool:
        """Whether somebody should do something about it."""
        return self in (Severity.WARNING, Severity.ERROR)


@frozen
class Finding:
    """One result of one check."""

    severity: Severity
    #: What was checked, a word or two: ``scheduler``, ``worker box``, ``certificate``.
    subject: str
    #: What is the case, a sentence without its full stop.
    sentence: str
    #: What to do about it, a sentence without its full stop; ``""`` where there is nothing to do.
    advice: str = ""


def ok(subject: str, sentence: str) -> Finding:
    """All is well there."""
    return Finding(Severity.OK, subject, sentence)


def note(subject: str, sentence: str, advice: str = "") -> Finding:
    """Worth knowing."""
    return Finding(Severity.NOTE, subject, sentence, advice)


def warning(subject: str, sentence: str, advice: str) -> Finding:
    """It will not always work."""
    return Finding(Severity.WARNING, subject, sentence, advice)


def error(subject: str, sentence: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(Severity.ERROR, subject, sentence, advice)
