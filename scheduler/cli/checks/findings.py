"""A finding of ``schedctl doctor``, and the advice that goes with it."""

from __future__ import annotations

import enum

from attrs import frozen


class Severity(enum.Enum):
    """The severity of a finding."""

    OK = "ok"
    #: Information; nothing is wrong.
    NOTE = "note"
    #: Works now, but not always or not fully.
    WARNING = "warning"
    #: Does not work.
    ERROR = "error"

    @property
    def wrong(self) -> bool:
        """Whether someone should act."""
        return self in (Severity.WARNING, Severity.ERROR)


@frozen
class Finding:
    """A result of a check."""

    severity: Severity
    #: The checked thing, in a word or two: ``scheduler``, ``worker box``, ``certificate``.
    subject: str
    #: The result, a sentence without its full stop.
    sentence: str
    #: The next step, a sentence without its full stop; ``""`` if there is none.
    advice: str = ""


def ok(subject: str, sentence: str) -> Finding:
    """A finding that all is well."""
    return Finding(Severity.OK, subject, sentence)


def note(subject: str, sentence: str, advice: str = "") -> Finding:
    """A finding for information."""
    return Finding(Severity.NOTE, subject, sentence, advice)


def warning(subject: str, sentence: str, advice: str) -> Finding:
    """A finding about something that will not always work."""
    return Finding(Severity.WARNING, subject, sentence, advice)


def error(subject: str, sentence: str, advice: str) -> Finding:
    """A finding about something that does not work."""
    return Finding(Severity.ERROR, subject, sentence, advice)
