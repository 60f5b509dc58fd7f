"""Types of option values, and their error messages."""

from __future__ import annotations

from typing import Any

import click

from scheduler import units


class Duration(click.ParamType[str]):
    """``30s``, ``5m``, or seconds; passed on as text, so that the API reads what the user wrote."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            units.parse_duration(_number(value))
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)
        return str(value)


class Size(click.ParamType[str]):
    """``100MB``, ``4GiB``, or bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            units.parse_size(value, least=1)
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


class Key(click.ParamType[str]):
    """An ``Idempotency-Key``. An empty one, as from an unset variable, is refused instead of being ignored."""

    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not (value and value.isascii() and value.isprintable()):
            self.fail(f"{value!r} must be printable characters of ASCII, one at least", param, ctx)
        return str(value)


def seconds(value: str) -> float:
    """The seconds of a ``Duration``."""
    return units.parse_duration(_number(value))


def _number(value: Any) -> Any:
    """A number, if the text is one; else the text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
