"""Valid ids; valid names of workers, labels and environment variables; corrections of mistyped names.

Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches

#: Valid names of workers, and of the labels of jobs and, in the configuration file, of workers.
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
LABEL_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,252}")

#: Characters of the longest name that is compared with others; the time of a comparison grows with the square.
_MAX_COMPARED_CHARACTERS = 253

#: Labels that a worker may have, including ``name``, and characters of each key and value.
LABELS_MAX, LABEL_MAX_CHARACTERS = 64, 253

LABEL_ALLOWED = f"printable text of at most {LABEL_MAX_CHARACTERS} characters"

#: Ids from outside.
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

#: A UUID of version 5 (RFC 4122, 4.1).
_VERSION_5 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_id(text: str) -> bool:
    """Whether ``text`` is a valid id of a worker or a job."""
    return _ID.fullmatch(text) is not None


def is_made_id(text: str) -> bool:
    """Whether ``text`` has the form of an id that was derived from a worker's folder id or address."""
    return _VERSION_5.fullmatch(text) is not None


def name_problem(name: str) -> str | None:
    """Why a worker can't have this name; ``None`` if it may, unless the name is taken."""
    if not NAME_PATTERN.fullmatch(name):
        return "must be 1 to 253 letters, digits, '.', '_' or '-', the first a letter or digit"
    if is_made_id(name):
        return "must not be a version 5 UUID, as the ids of workers are"
    return None


def label_problem(text: str) -> str | None:
    """Why a worker's label can't have this value; ``None`` if it can."""
    fits = len(text) <= LABEL_MAX_CHARACTERS and text.isprintable()
    return None if fits else f"must be {LABEL_ALLOWED}"


def env_name_problem(name: str) -> str | None:
    """Why no job may have an environment variable with this name; ``None``: the worker decides whether it may."""
    if _ENV_NAME.fullmatch(name) is None:
        return "is not a name of letters, digits and '_' that does not begin with a digit"
    if name.startswith("SCHEDULER_") or name == "NOTIFY_SOCKET":
        return "is not for jobs to be given (SCHEDULER_*, NOTIFY_SOCKET)"
    return None


def nearest(name: str, known: Collection[str], cutoff: float) -> str | None:
    """The known name that was probably meant: one that ``name`` abbreviates (``cmd``), else one with a similar
    spelling.

    ``cutoff``: the least similarity, from 0 to 1, as in ``difflib``.
    """
    if len(name) > _MAX_COMPARED_CHARACTERS:
        return None
    longer = [each for each in known if _abbreviates(name, each)]
    return next(iter(get_close_matches(name, longer, 1, 0.0) or get_close_matches(name, known, 1, cutoff)), None)


def _abbreviates(short: str, name: str) -> bool:
    """Whether ``short`` has the first letter of ``name`` and a subsequence of the rest. Needs at least 3 letters."""
    rest = iter(name)
    return len(short) >= 3 and short[0] == name[:1] and all(letter in rest for letter in short)
