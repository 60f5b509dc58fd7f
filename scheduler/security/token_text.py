"""The text of a token: ``sched_<id>_<secret>_<checksum>``.

The id finds the record of the token. The secret has 256 random bits, so its plain SHA-256 is as good as a slow hash.
The checksum is the CRC-32 of all that is before it: a mistyped token is refused without a lookup, and programs that
search files for leaked secrets recognise a token without asking anybody.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from collections.abc import Container

from scheduler.errors import Unauthenticated

#: Characters of a new id, and of a secret: enough for 32 bytes.
ID_CHARACTERS, SECRET_CHARACTERS = 10, 43

_IN_ID = string.ascii_lowercase + string.digits
_IN_SECRET = string.ascii_letters + string.digits

_TEXT = re.compile(r"(?P<checked>sched_(?P<id>[a-z0-9]{8,32})_[A-Za-z0-9]{43})_(?P<checksum>[0-9a-f]{8})")


def new_id(used: Container[str]) -> str:
    """A random id that is not among ``used``."""
    while (token_id := _random(_IN_ID, ID_CHARACTERS)) in used:
        pass
    return token_id


def new_text(token_id: str) -> str:
    """The text of a new token with this id."""
    checked = f"sched_{token_id}_{_random(_IN_SECRET, SECRET_CHARACTERS)}"
    return f"{checked}_{_checksum(checked)}"


def id_of(text: str) -> str:
    """The id in the text of a token. Raises ``Unauthenticated`` for a text that was never a token."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise Unauthenticated("the token is not of the form sched_ID_SECRET_CHECKSUM")
    if _checksum(match["checked"]) != match["checksum"]:
        raise Unauthenticated("the token is mistyped: its checksum is wrong")
    return match["id"]


def digest_of(text: str) -> str:
    """The SHA-256 of the text, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(checked: str) -> str:
    return f"{zlib.crc32(checked.encode()):08x}"


def _random(characters: str, count: int) -> str:
    return "".join(secrets.choice(characters) for _ in range(count))
