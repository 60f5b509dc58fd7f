"""Texts of other programs, made fit to be shown."""

from __future__ import annotations

#: Bytes that are kept of a text of another program: a reason, say, or the detail of an error.
TEXT_MAX_BYTES = 4096


def bounded_text(text: str, most: int = TEXT_MAX_BYTES) -> str:
    """The text, cut to ``most`` bytes of UTF-8, with U+FFFD for each character that is not printable."""
    shown = "".join(each if each.isprintable() else "\ufffd" for each in text[:most])
    return shown.encode("utf-8")[:most].decode("utf-8", "ignore")
