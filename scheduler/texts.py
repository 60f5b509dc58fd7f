"""Checks texts of other programs, and makes such texts safe to show."""

from __future__ import annotations

#: Bytes kept of another program's text, for example of a reason or the detail of an error.
TEXT_MAX_BYTES = 4096

#: Characters of the longest id that a program of the core protocol may choose.
CORE_ID_MAX_CHARACTERS = 1024


def bounded_text(text: str, most: int = TEXT_MAX_BYTES) -> str:
    """The text, cut to ``most`` bytes of UTF-8, with U+FFFD for each character that is not printable."""
    shown = "".join(each if each.isprintable() else "\ufffd" for each in text[:most])
    return shown.encode("utf-8")[:most].decode("utf-8", "ignore")


def is_core_id(text: str) -> bool:
    """Whether ``text`` is acceptable as an id of the core protocol: any short, printable text."""
    return 1 <= len(text) <= CORE_ID_MAX_CHARACTERS and text.isprintable()
