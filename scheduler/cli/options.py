"""Types of option values, and their error messages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from scheduler import units


class Checked(click.ParamType[str]):
    """Text that passes a check. It is passed on unchanged, so that the API reads what the user wrote."""

    def __init__(self, name: str, check: Callable[[str], object]) -> None:
        """``check`` raises ``ValueError`` that says what is wrong or what is allowed."""
        self.name = name
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            self._check(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)
        return str(value)


class KeyValue(click.ParamType[tuple[str, str]]):
    """``key=value``."""

    name = "k=v"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, rest = value.partition("=")
        if not key or not equals:
            self.fail(f"{value!r} must be like key=value", param, ctx)
        return key, rest


def seconds(value: str) -> float:
    """The seconds of a ``DURATION``. Raises ``ValueError`` if it is none."""
    try:
        return units.parse_duration(float(value))
    except ValueError:
        return units.parse_duration(value)


def _check_key(value: str) -> None:
    if not (value and value.isascii() and value.isprintable()):
        raise ValueError("must be printable characters of ASCII, one at least")


#: A duration: ``30s``, ``5m``, or seconds.
DURATION = Checked("duration", seconds)
#: A size: ``100MB``, ``4GiB``, or bytes.
SIZE = Checked("size", partial(units.parse_size, least=1))
#: An ``Idempotency-Key``. An empty one, as from an unset variable, is refused instead of being ignored.
KEY = Checked("key", _check_key)
