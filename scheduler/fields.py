"""A JSON object in a request's body, read field by field: strictly, and with a complaint that helps.

What is not as it must be is ``Invalid`` with the field, the value and what is
allowed: a wrong type, an unknown field, ``null`` where nothing says so, a NUL or
half a surrogate pair in any text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from typing import Any, Generic, TypeVar

from attrs import frozen

from scheduler import units
from scheduler.errors import Invalid
from scheduler.names import LABEL_PATTERN, nearest

T = TypeVar("T")

#: A decoded JSON object.
Object = dict[str, Any]

#: Seconds; no timeout is longer.
TIMEOUT_MAX_SECONDS = 3650 * 86400.0

#: Bytes of a path that Linux takes: PATH_MAX, less the NUL.
PATH_MAX_BYTES = 4_095

#: Characters of a name, and of a label's value.
NAME_MAX_CHARACTERS = 253

_UMASK = re.compile("0?[0-7]{1,3}")

_MISSING: Any = object()

_KINDS: Mapping[type, str] = {str: "a string", bool: "true or false", list: "a list of strings", dict: "an object"}


def shown(value: object) -> str:
    """A value as a complaint quotes it: JSON, on one line, not too long."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 80 else text[:77] + "..."


def printable(name: str) -> str:
    """A field's name as a complaint has it."""
    return shown(name)[1:-1]


def check_text(field: str, value: object, one_line: bool = False, most: int | None = None) -> str:
    """``value`` if it is text that may be passed on, of at most so many bytes; ``Invalid``."""
    if not isinstance(value, str):
        hint = f'; write "{value}"' if isinstance(value, (int, float)) and not isinstance(value, bool) else ""
        raise Invalid(field, f"must be a string, not {shown(value)}{hint}")
    if "\0" in value:
        raise Invalid(field, f"{shown(value)} holds a NUL, which no text may")
    if one_line and ("\n" in value or "\r" in value):
        raise Invalid(field, f"{shown(value)} must be one line")
    try:
        length = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise Invalid(field, f"{shown(value)} holds half a surrogate pair, which is no character") from None
    if most is not None and length > most:
        raise Invalid(field, f"{shown(value)} has {length} bytes; at most {most} are allowed")
    return value


def check_label(field: str, key: str, value: object) -> str:
    """The value of a label that may be; ``Invalid``."""
    if not LABEL_PATTERN.fullmatch(key):
        raise Invalid(
            field,
            f"{shown(key)} is no label: 1 to 253 letters, digits, '.', '_', '/' or '-', the first a letter or digit",
        )
    text = check_text(f"{field}.{key}", value)
    if len(text) > NAME_MAX_CHARACTERS or not text.isprintable():
        raise Invalid(
            f"{field}.{key}", f"{shown(text)} must be printable text of at most {NAME_MAX_CHARACTERS} characters"
        )
    return text


def check_count(field: str, given: Sized, most: int) -> None:
    """``Invalid`` if there are more than ``most``."""
    if len(given) > most:
        raise Invalid(field, f"{len(given)} of them; at most {most} are allowed")


def check_names(given: Iterable[str], known: Collection[str], what: str, within: str = "") -> None:
    """``Invalid`` for the first name that is not known, with the nearest one that is.

    ``what`` is "a field of this request", say; ``within`` is what a name is shown behind.
    """
    for name in given:
        if name not in known:
            near = nearest(name, known, cutoff=0.6)
            hint = f" (did you mean {near}?)" if near else ""
            raise Invalid(
                within + printable(name), f"is not {what}{hint}; allowed: {', '.join(sorted(known)) or 'none'}"
            )


class Fields:
    """A JSON object being read, field by field, of which only the known ones may be there."""

    def __init__(self, body: Object, names: Collection[str], within: str = "") -> None:
        """``names`` are the fields there may be, and ``within`` what a name is shown behind; ``Invalid``."""
        check_names(body, names, "a field of this request", within)
        self.values = body
        self._within = within
        self._names = names

    def given(self, name: str) -> bool:
        """Whether the field is there."""
        return name in self.values

    def take(self, name: str, kind: type | None = None, default: Any = _MISSING) -> Any:
        """The field's value, of that type; ``Invalid`` if it is another, or missing without a default."""
        assert name in self._names, f"{name} is not among the names of this request"
        value = self.values.get(name, default)
        if value is _MISSING:
            raise Invalid(self._within + name, "is missing" + (f": it must be {_KINDS[kind]}" if kind else ""))
        if name in self.values and kind is not None and not isinstance(value, kind):
            raise Invalid(self._within + name, f"must be {_KINDS[kind]}, not {shown(value)}")
        return value

    def number(self, name: str, least: int, most: int, default: Any = _MISSING) -> int:
        """An integer within bounds, both inclusive."""
        value = self.take(name, default=default)
        if type(value) is not int or not least <= value <= most:
            raise Invalid(self._within + name, f"{shown(value)} must be an integer from {least} to {most}")
        return value

    def text(self, name: str, default: Any = _MISSING) -> Any:
        """Text without NUL; or the default as it is."""
        value = self.take(name, str, default)
        return check_text(name, value) if name in self.values else value

    def path(self, name: str, default: str) -> str:
        """One line, not longer than a path may be."""
        value: str = self.take(name, str, default)
        return check_text(name, value, one_line=True, most=PATH_MAX_BYTES)

    def name(self, name: str, most: int = NAME_MAX_CHARACTERS) -> str:
        """One line that is not empty."""
        value: str = self.take(name, str)
        if not value:
            raise Invalid(name, "must not be empty")
        return check_text(name, value, one_line=True, most=most)

    def duration(self, name: str, default: float | None, zero: bool) -> float | None:
        """Seconds; ``null`` where the default is none."""
        value = self.take(name, default=default)
        if value is None and default is None:
            return None
        try:
            seconds = units.parse_duration(value)
        except ValueError:
            seconds = -1.0
        if seconds < 0 or seconds > TIMEOUT_MAX_SECONDS or (not zero and not seconds):
            limits = "from 0" if zero else "more than 0"
            raise Invalid(
                self._within + name, f"{shown(value)} must be {units.DURATION_ALLOWED}, {limits}, at most 3650d"
            )
        return seconds

    def one_of(self, name: str, allowed: Sequence[str]) -> str:
        """One of these texts; the first where the field is absent."""
        value: str = self.take(name, str, allowed[0])
        if value not in allowed:
            raise Invalid(self._within + name, f"{shown(value)} must be one of {', '.join(allowed)}")
        return value

    def umask(self, name: str) -> int | None:
        """An octal number as text, ``"022"``; ``null`` is none."""
        value = self.take(name, default=None)
        if value is None:
            return None
        if not isinstance(value, str) or _UMASK.fullmatch(value) is None:
            raise Invalid(self._within + name, f'{shown(value)} must be an octal number as text, "022"; at most "0777"')
        return int(value, 8)

    def size(self, name: str) -> int | None:
        """A number of bytes, at least 1; ``null`` is none."""
        value = self.take(name, default=None)
        if value is None:
            return None
        try:
            return units.parse_size(value, least=1)
        except ValueError as error:
            raise Invalid(name, f"{shown(value)} {error}") from None


@frozen
class BodyReader(Generic[T]):
    """Reads the JSON object in a body of one kind: the names of the fields it may have, and how they are read."""

    names: tuple[str, ...]
    _read: Callable[[Fields], T]

    def __call__(self, body: Object) -> T:
        return self._read(Fields(body, self.names))


def reads(*names: str) -> Callable[[Callable[[Fields], T]], BodyReader[T]]:
    """Make a ``BodyReader`` of a function that takes its fields."""
    return lambda read: BodyReader(names, read)
