"""Checks texts of other programs, and makes such texts safe to show."""

from __future__ import annotations

import re

#: Bytes kept of another program's text, for example of a reason or the detail of an error.
TEXT_MAX_BYTES = 4096

#: Characters of the longest id that a program of the core protocol may choose.
CORE_ID_MAX_CHARACTERS = 1024


# the beginning of a token, of security.token_text, with some of its secret
_TOKEN = re.compile(r"(sched_[a-z0-9]{8,32}_)[A-Za-z0-9]{8,}(?:_[A-Za-z0-9]*)?")


def cut_tokens(text: str) -> str:
    """The text without the secrets of the tokens in it, for logs and the audit."""
    return _TOKEN.sub(r"\1...", text) if "sched_" in text else text


def bounded_text(text: str, most: int = TEXT_MAX_BYTES) -> str:
    """The text, cut to ``most`` bytes of UTF-8, with U+FFFD for each character that is not printable."""
    shown = "".join(each if each.isprintable() else "\ufffd" for each in text[:most])
    return shown.encode("utf-8")[:most].decode("utf-8", "ignore")


def is_core_id(text: str) -> bool:
    """Whether ``text`` is acceptable as an id of the core protocol: any short, printable text."""
    return 1 <= len(text) <= CORE_ID_MAX_CHARACTERS and text.isprintable()
