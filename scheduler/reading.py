"""The strict reader of a mapping: a JSON object, a query string, or a table of a TOML file.

A ``Reader`` gives out each value through a check: a function that returns what the value means, or raises ``Unfit``
with the allowed values. It refuses names that it does not know, and suggests the known name that was probably meant.
Its subclasses differ in the exception for an invalid value. ``Fields`` (JSON) and ``scheduler.api.parameters.Query``
raise ``Invalid``, ``scheduler.daemon.tomlfile.Table`` raises ``ConfigError``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sized
from typing import Any, Generic, TypeVar

from attrs import frozen

from scheduler import units
from scheduler.errors import Invalid
from scheduler.names import LABEL_PATTERN, label_problem, nearest

T = TypeVar("T")

#: Returns what a value means, or raises ``Unfit``.
Check = Callable[[Any], T]

#: A decoded JSON object.
Object = dict[str, Any]

#: No timeout is longer, in seconds.
TIMEOUT_MAX_SECONDS = 3650 * 86400.0

#: Bytes of a path that Linux takes: PATH_MAX, less the NUL.
PATH_MAX_BYTES = 4_095

#: Characters of a name.
NAME_MAX_CHARACTERS = 253

_MISSING: Any = object()


class Unfit(Exception):
    """A value was refused by its check; ``str()`` gives the allowed values."""

    def __init__(self, allowed: str, instead: object = None) -> None:
        """``instead`` is shown in place of a value that must not be shown."""
        super().__init__(allowed)
        self.instead = instead

    def complaint(self, value: object) -> str:
        """A sentence about the value, for a reader of JSON."""
        return f"{shown(value)} {self}"


class WrongType(Unfit):
    """A value is not of the right type."""

    def complaint(self, value: object) -> str:
        hint = f'; write "{value}"' if type(value) in (int, float) and str(self) == _STRING else ""
        return f"{self}, not {shown(value)}{hint}"


class Absent(Unfit):
    """A required value is empty or missing, so there is nothing to show."""

    def complaint(self, _: object) -> str:
        return str(self)


class Reader:
    """A mapping that is read value by value."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        #: The names whose values were read.
        self.asked: list[str] = []

    def given(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str, check: Check[T], default: object = _MISSING) -> T:
        """The value, checked. If it is absent, ``default`` is checked instead; without a default the check fails."""
        self.asked.append(name)
        value = self.values.get(name, default)
        try:
            if value is _MISSING:
                raise _missing(check)
            return check(value)
        except Unfit as unfit:
            raise self.refusal(name, value, unfit) from None

    def find(self, name: str, check: Check[T]) -> T | None:
        """The value, checked; ``None`` if it is absent."""
        self.asked.append(name)
        return self.get(name, check) if self.given(name) else None

    def refusal(self, name: str, value: object, unfit: Unfit) -> Exception:
        """Make the exception for a value that its check refused. Each subclass defines it, and ``get`` raises it."""
        raise NotImplementedError


class Fields(Reader):
    """A JSON object in a request, which may only have certain names."""

    def __init__(self, values: Mapping[str, Any], names: Collection[str], within: str = "") -> None:
        """Raise ``Invalid`` for a name that is not among ``names``. ``within`` is put before a name in a complaint."""
        super().__init__(values)
        self._within = within
        check_names(values, names, "a field of this request", within)

    def refusal(self, name: str, value: object, unfit: Unfit) -> Exception:
        return Invalid(self._within + name, unfit.complaint(value))


@frozen
class BodyReader(Generic[T]):
    """Reads the JSON object in the body of a request: the names that it may have, and the function that reads them."""

    names: tuple[str, ...]
    _read: Callable[[Fields], T]

    def __call__(self, body: Object) -> T:
        return self._read(Fields(body, self.names))


def reads(*names: str) -> Callable[[Callable[[Fields], T]], BodyReader[T]]:
    """Make a decorator that turns a function of ``Fields`` into a ``BodyReader`` for an object with these names."""
    return lambda read: BodyReader(names, read)


# -- complaints


def shown(value: object) -> str:
    """A value as complaints show it: JSON, on one line, at most 80 characters."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 80 else text[:77] + "..."


def printable(name: str) -> str:
    """A name as complaints show it."""
    return shown(name)[1:-1]


def check_names(given: Iterable[str], known: Collection[str], what: str, within: str = "") -> None:
    """Raise ``Invalid`` for the first name that is not known, with the nearest known name.

    ``what`` describes the known names, like "a field of this request"; ``within`` is put before the name.
    """
    for name in given:
        if name not in known:
            near = nearest(name, known, cutoff=0.6)
            hint = f" (did you mean {near}?)" if near else ""
            raise Invalid(
                within + printable(name), f"is not {what}{hint}; allowed: {', '.join(sorted(known)) or 'none'}"
            )


def _missing(check: Check[Any]) -> Absent:
    try:
        check(None)
    except WrongType as wrong:
        return Absent(f"is missing: it {wrong}")
    except Unfit:
        pass
    return Absent("is missing")


# -- checks


def of_type(kind: type[T], allowed: str) -> Check[T]:
    """Make a check for a value of that type; the elements of a list or object are not checked."""

    def check(value: Any) -> T:
        if not isinstance(value, kind):
            raise WrongType(allowed)
        return value

    return check


_STRING = "must be a string"
_string = of_type(str, _STRING)
flag = of_type(bool, "must be true or false")
array: Check[list[Any]] = of_type(list, "must be a list of strings")
mapping: Check[Object] = of_type(dict, "must be an object")


def text(one_line: bool = False, most: int | None = None, empty: bool = True) -> Check[str]:
    """Make a check for a string of at most ``most`` bytes, without NUL and without half of a surrogate pair."""

    def check(value: Any) -> str:
        _string(value)
        if not (value or empty):
            raise Absent("must not be empty")
        if "\0" in value:
            raise Unfit("holds a NUL, which no text may")
        if one_line and ("\n" in value or "\r" in value):
            raise Unfit("must be one line")
        try:
            length = len(value.encode("utf-8"))
        except UnicodeEncodeError:
            raise Unfit("holds half a surrogate pair, which is no character") from None
        if most is not None and length > most:
            raise Unfit(f"has {length} bytes; at most {most} are allowed")
        return str(value)

    return check


def integer(least: int, most: int, called: str = "an integer") -> Check[int]:
    """Make a check for a whole number from ``least`` to ``most``."""

    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise Unfit(f"must be {called} from {least} to {most}")
        return value

    return check


def duration(limits: str, most: float, least: float = 0.0, zero: bool = True) -> Check[float]:
    """Make a check for a duration from ``least`` to ``most`` seconds; ``limits`` says these bounds in words."""

    def check(value: Any) -> float:
        try:
            seconds = units.parse_duration(value)
        except ValueError:
            seconds = -1.0
        if not least <= seconds <= most or not (seconds or zero):
            raise Unfit(f"must be {units.DURATION_ALLOWED}, {limits}")
        return seconds

    return check


def size(value: Any) -> int:
    """Check a number of bytes, at least 1."""
    try:
        return units.parse_size(value, least=1)
    except ValueError as error:
        raise Unfit(str(error)) from None


def one_of(*allowed: str) -> Check[str]:
    """Make a check for one of these strings."""

    def check(value: Any) -> str:
        if _string(value) not in allowed:
            raise Unfit(f"must be one of {', '.join(allowed)}")
        return str(value)

    return check


def or_null(check: Check[T]) -> Check[T | None]:
    """Make a check for ``null`` or a value that passes ``check``."""
    return lambda value: None if value is None else check(value)


# -- values inside of values


def check_text(field: str, value: object, one_line: bool = False, most: int | None = None) -> str:
    """Check a value as ``text`` does. Raises ``Invalid`` that names ``field``."""
    try:
        return text(one_line, most)(value)
    except Unfit as unfit:
        raise Invalid(field, unfit.complaint(value)) from None


def check_label(field: str, key: str, value: object) -> str:
    """Check the label ``key`` of a mapping, and return its value. Raises ``Invalid`` for a bad key or value."""
    if not LABEL_PATTERN.fullmatch(key):
        raise Invalid(
            field,
            f"{shown(key)} is no label: 1 to 253 letters, digits, '.', '_', '/' or '-', the first a letter or digit",
        )
    given = check_text(f"{field}.{key}", value)
    if problem := label_problem(given):
        raise Invalid(f"{field}.{key}", f"{shown(given)} {problem}")
    return given


def check_count(field: str, given: Sized, most: int) -> None:
    """Raise ``Invalid`` if there are more than ``most``."""
    if len(given) > most:
        raise Invalid(field, f"{len(given)} of them; at most {most} are allowed")
