"""A TOML file as tables of checked values. The error for a mistake names file, table and key.

The ``toml`` parser is lenient: it reads ``a=1 b=2`` as one key named ``"a=1 b"``, and silently drops a list or
multi-line string that has no end, with everything behind it. So a file must read the same to the stricter parser of the
standard library. ``Table`` gives out values only through checks (``scheduler.reading``), and ``Table.done`` refuses
every key that was not asked for.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, TypeVar

import toml

from scheduler import reading, units
from scheduler.errors import Invalid, SchedulerError
from scheduler.names import LABEL_PATTERN, env_name_problem, label_problem, name_problem, nearest
from scheduler.net import Address, split_address, without_zone
from scheduler.reading import Check, Reader, Unfit

T = TypeVar("T")

IPNetwork = IPv4Network | IPv6Network

#: Bytes of a variable's value, at most; Linux allows four times as much, with the name.
_VARIABLE_MAX_BYTES = 32 * 1024

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# In any URL, even a malformed one: the text between the first ":" and the last "@", and any password parameter.
_PASSWORD = re.compile(r"(?<=//)([^:@/]*:).*(?=@)|((?:ssl)?password=)[^&]*")


class ConfigError(SchedulerError):
    """A mistake in a configuration file; ``str()`` is one line for the person who edits the file."""

    def __init__(self, file: str, allowed: str, table: str = "", key: str = "", value: object = None) -> None:
        """A mistake in ``[table] key``; ``table`` is ``""`` for the top level, ``key`` is ``""`` for the whole file."""
        where = f"[{table}] {key}" if table else key
        given = where if value is None else f"{where} = {_shown(value)}"
        super().__init__(": ".join(_CONTROL.sub(" ", part).strip() for part in (file, given, allowed) if part))
        self.file = file
        self.table = table
        self.key = key
        self.value = value


class Table(Reader):
    """A table of a TOML file."""

    def __init__(self, file: str, name: str, values: dict[str, Any]) -> None:
        """``name`` is the table's name, ``""`` for the top level."""
        super().__init__(values)
        self._file = file
        self._name = name

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def table(self, key: str) -> Table:
        """The table with that name in this one; empty if the file does not have it."""
        self.asked.append(key)
        value = self.values.get(key, {})
        name = f"{self._name}.{key}" if self._name else key
        if not isinstance(value, dict):
            raise self.error(key, value, f"must be a table, [{name}]")
        return Table(self._file, name, value)

    def done(self, *coming: str) -> None:
        """Raise ``ConfigError`` for a key that was not asked for, and is not among ``coming``, which will be."""
        self.asked += coming
        for key, value in self.values.items():
            if key not in self.asked:
                near = nearest(key, self.asked, cutoff=0.75)
                known = ", ".join(dict.fromkeys(self.asked))
                raise self.error(key, value, f"unknown key; {f'did you mean {near}?' if near else f'known: {known}'}")

    def error(self, key: str, value: object, allowed: str) -> ConfigError:
        return ConfigError(self._file, allowed, self._name, key, value)

    def refusal(self, name: str, value: object, unfit: Unfit) -> Exception:
        return self.error(name, value if unfit.instead is None else unfit.instead, str(unfit))

    def path(self, value: Any) -> Path:
        """Check a path, and make it absolute; a relative path begins at the folder of the file."""
        return Path(os.path.abspath(os.path.join(os.path.dirname(self._file), text(value))))

    def readable_file(self, value: Any) -> Path:
        """Check the path of a file that can be read now."""
        path = self.path(value)
        try:
            with path.open("rb") as opened:
                opened.read(1)
        except OSError as error:
            raise Unfit(f"must be a readable file; {path}: {error.strerror}") from None
        return path


def read(file: str) -> Table:
    """The top level of a TOML file. Raises ``ConfigError`` if the file can't be read, or is not TOML."""
    try:
        with open(file, encoding="utf-8") as opened:
            content = opened.read()
        values = toml.loads(content)
        if tomllib.loads(content) != values:
            raise ValueError("two parsers read it differently; write it more simply")
    except OSError as error:
        raise ConfigError(file, f"can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(file, f"is not UTF-8 from byte {error.start} on") from None
    except Exception as error:  # on some input the parser raises IndexError, TypeError and others
        raise ConfigError(file, f"is not TOML: {error or type(error).__name__}") from None
    return Table(file, "", values)


def _shown(value: object) -> str:
    """A value nearly as the file has it, cut to 400 characters."""
    if isinstance(value, bool):
        shown = str(value).lower()
    elif isinstance(value, str):
        shown = f'"{value}"'
    elif isinstance(value, dict):
        shown = "{...}"
    elif isinstance(value, (list, tuple)):
        shown = f"[{', '.join(map(_shown, value))}]"
    else:
        shown = str(value)
    return shown if len(shown) <= 400 else f"{shown[:397]}..."


# Checks of a value. Each raises ``Unfit`` with the allowed values.


def text(value: Any) -> str:
    """Check a string that is not empty and has no control characters."""
    if not isinstance(value, str) or not value or _CONTROL.search(value) or len(value) > 4096:
        raise Unfit("must be a string of 1 to 4096 characters, none of them a control character")
    return value


def command(value: Any) -> str:
    """Check a pattern for names of commands, or for absolute paths."""
    pattern = text(value)
    if "/" in pattern and not pattern.startswith("/"):
        raise Unfit("must be names of commands or absolute paths")
    return pattern


def one_of(*choices: str) -> Check[str]:
    """Make a check for one of these strings."""

    def check(value: Any) -> str:
        if value not in choices:
            *others, last = (f'"{choice}"' for choice in choices)
            raise Unfit(f"must be {', '.join(others)} or {last}")
        return str(value)

    return check


def list_of(check: Check[T]) -> Check[tuple[T, ...]]:
    """Make a check for a list whose values all pass ``check``."""

    def check_all(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise Unfit("must be a list")
        return tuple(check(each) for each in value)

    return check_all


def duration(lowest: str, highest: str) -> Check[float]:
    """Make a check for a duration from ``lowest`` to ``highest``, in seconds."""
    least, most = units.parse_duration(lowest), units.parse_duration(highest)
    return reading.duration(f"from {lowest} to {highest}", most, least)


def disk_share(value: Any) -> units.Share:
    """Check a part of a disk, as a percentage or in bytes."""
    try:
        return units.parse_share(value)
    except ValueError as error:
        raise Unfit(str(error)) from None


def without_password(url: str) -> str:
    """The URL with its passwords masked."""
    return _PASSWORD.sub(lambda found: f"{found[1] or found[2]}***", url)


def database_url(value: Any, folder: Path) -> str | None:
    """The URL of a database in full, a relative path of SQLite in ``folder``; ``None`` for any other text."""
    url = value if isinstance(value, str) and not _CONTROL.search(value) else ""
    if url == "memory:" or re.fullmatch(r"postgresql\+psycopg://[^/]*/[^/?]+(\?.*)?", url):
        return url
    path = url.removeprefix("sqlite:///")
    if path not in ("", url) and not path.endswith("/") and "?" not in path:
        return f"sqlite:///{os.path.abspath(os.path.join(folder, path))}"
    return None


def store_url(state_dir: Path) -> Check[str]:
    """Make a check for the URL of the store's database."""

    def check(value: Any) -> str:
        if (url := database_url(value, state_dir)) is not None:
            return url
        raise Unfit(
            'must be "sqlite:///FILE", in state_dir if it is not absolute (sqlite:////var/...), '
            'or "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE", or "memory:" to keep nothing',
            without_password(value) if isinstance(value, str) else None,
        )

    return check


def worker_name(value: Any) -> str:
    """Check the name of a worker."""
    if problem := name_problem(value if isinstance(value, str) else ""):
        raise Unfit(problem)
    return str(value)


def label(table: Table, key: str) -> str:
    """Check the name of a label, which is a key of the table. Raises ``ConfigError`` for a bad name."""
    if not LABEL_PATTERN.fullmatch(key):
        raise table.error(
            key, None, "a label is 1 to 253 letters, digits, '.', '_', '/' or '-', the first a letter or digit"
        )
    return key


def label_value(value: Any) -> str:
    """Check the value of a label."""
    given = text(value)
    if problem := label_problem(given):
        raise Unfit(problem)
    return given


def variable(table: Table, key: str) -> str:
    """Check the name of an environment variable, which is a key of the table. Raises ``ConfigError`` for a bad name."""
    if problem := env_name_problem(key):
        raise table.error(key, None, problem)
    return key


def variable_pattern(value: Any) -> str:
    """Check the name of an environment variable, or the first letters of names and ``*``; ``"*"`` is all names."""
    pattern = text(value)
    if pattern != "*" and (problem := env_name_problem(pattern.removesuffix("*"))):
        raise Unfit(f'must be names of variables, or their first letters and "*", like "APP_*"; {pattern!r} {problem}')
    return pattern


def variable_value(value: Any) -> str:
    """Check the value of an environment variable."""
    if not isinstance(value, str) or "\0" in value or len(value.encode()) > _VARIABLE_MAX_BYTES:
        raise Unfit(f"must be a string of at most {_VARIABLE_MAX_BYTES} bytes, none of them NUL")
    return value


def address(value: Any) -> Address:
    """Check an address to dial."""
    try:
        return Address(*split_address(value))
    except (Invalid, AttributeError):
        raise Unfit('must be "host:port", or "[ipv6]:port", the port from 1 to 65535') from None


def listening(value: Any) -> Address:
    """Check an address to listen on. ``localhost`` becomes 127.0.0.1, so that it means the same to every server."""
    any_port = isinstance(value, str) and value.endswith(":0")
    try:
        dialled = address(f"{value[:-1]}1" if any_port else value)
    except Unfit:
        raise Unfit('must be "host:port", or "[ipv6]:port", the port up to 65535, or 0 for any free one') from None
    host = "127.0.0.1" if dialled.host.lower() == "localhost" else dialled.host
    return Address(host, 0 if any_port else dialled.port)


def network(value: Any) -> IPNetwork:
    """Check a network, or a single IP address."""
    try:
        return ip_network(value if isinstance(value, str) else "")
    except ValueError:
        raise Unfit('must be networks like "10.0.0.0/8", with no bit set beyond the prefix, or IP addresses') from None


def host(value: Any) -> str:
    """Check a host name or IP address (IPv6 with or without brackets), and return it in lower case."""
    try:
        bare = value.strip("[]")
        return without_zone(split_address(f"[{bare}]:1" if ":" in bare else f"{bare}:1")[0].lower())
    except (Invalid, AttributeError):
        raise Unfit("must be host names or IP addresses, without a port") from None
