"""A finding of ``schedctl doctor``, and the advice that goes with it."""

from __future__ import annotations

import enum
from functools import partial

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
        """Whether someone should act on the finding."""
        return self in (Severity.WARNING, Severity.ERROR)


@frozen
class Finding:
    """A result of a check."""

    severity: Severity
    #: The checked thing, in a word or two: ``scheduler``, ``worker box``, ``certificate``.
    subject: str
    #: The result, a sentence without its full stop.
    sentence: str
    #: The next step, a sentence without its full stop; ``""`` if there is none. A warning and an error have one.
    advice: str = ""


ok = partial(Finding, Severity.OK)
note = partial(Finding, Severity.NOTE)
warning = partial(Finding, Severity.WARNING)
error = partial(Finding, Severity.ERROR)
