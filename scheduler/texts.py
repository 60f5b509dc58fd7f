"""Texts of other programs, made fit to be shown, or fit to be."""

from __future__ import annotations

#: Bytes that are kept of a text of another program: a reason, say, or the detail of an error.
TEXT_MAX_BYTES = 4096

#: Characters of an id that a program of the core protocol chose.
CORE_ID_MAX_CHARACTERS = 1024


def bounded_text(text: str, most: int = TEXT_MAX_BYTES) -> str:
    """The text, cut to ``most`` bytes of UTF-8, with U+FFFD for each character that is not printable."""
    shown = "".join(each if each.isprintable() else "\ufffd" for each in text[:most])
    return shown.encode("utf-8")[:most].decode("utf-8", "ignore")


def is_core_id(text: str) -> bool:
    """Whether ``text`` may be an id that a program of the core protocol chose: any text that can be shown."""
    return 1 <= len(text) <= CORE_ID_MAX_CHARACTERS and text.isprintable()
