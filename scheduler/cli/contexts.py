"""Chooses the scheduler: options, the environment, and the named contexts of ``schedctl.toml``.

::

    default = "lab"

    [contexts.lab]
    url = "https://lab.example:3000"
    token = "..."
    ca_file = "lab-ca.pem"        # relative to this file

The first of these that is given decides: ``--url``, ``--context``, ``SCHEDULER_URL``, the default context of the file,
``http://127.0.0.1:3000``. A token is sent only where it belongs: the token of a context to its URL, ``SCHEDULER_TOKEN``
to any URL that is not of a context, and ``--token`` always. The same holds for the certificate authority to trust:
``ca_file`` of a context, ``SCHEDULER_CA_FILE``, ``--ca-file``.
"""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from scheduler.cli.failures import Failure, say

DEFAULT_URL = "http://127.0.0.1:3000"

_FILE_KEYS = ("default", "contexts")
_CONTEXT_KEYS = ("url", "token", "ca_file")


class Connection(NamedTuple):
    """A scheduler, and the token and certificate authority for it."""

    url: str
    token: str | None = None
    #: A certificate authority to trust in place of the system's.
    ca_file: str | None = None
    #: The origin of ``url``, for messages: ``--url``, ``context lab``.
    source: str = "the default"


class Contexts(NamedTuple):
    """The contents of ``schedctl.toml``."""

    default: str | None = None
    named: Mapping[str, Connection] = {}


def config_file(environ: Mapping[str, str]) -> Path:
    """The path of ``schedctl.toml``, whether or not it exists."""
    folder = environ.get("XDG_CONFIG_HOME", "")
    # The specification says that a relative path must be ignored.
    home = Path(folder) if folder.startswith("/") else Path(environ.get("HOME") or "~").expanduser() / ".config"
    return home / "schedctl.toml"


def choose(
    url: str | None, token: str | None, context: str | None, ca_file: str | None, environ: Mapping[str, str]
) -> Connection:
    """Choose the scheduler. Raises ``Failure`` if the choice is ambiguous, or the file has a mistake."""
    if url and context:
        raise Failure("--url and --context can't be given together", "Give one of them.")

    def general() -> str | None:
        given = (token, "--token") if token else (environ.get("SCHEDULER_TOKEN") or None, "SCHEDULER_TOKEN")
        return _checked_token(*given)

    authority = ca_file or environ.get("SCHEDULER_CA_FILE") or None
    if url:
        return Connection(checked_url(url, "--url"), general(), authority, "--url")
    if not context and (found := environ.get("SCHEDULER_URL")):
        return Connection(checked_url(found, "SCHEDULER_URL"), general(), authority, "SCHEDULER_URL")
    file = config_file(environ)
    contexts = load(file)
    name = context or contexts.default
    if name is None:
        return Connection(DEFAULT_URL, general(), authority)
    if name not in contexts.named:
        known = ", ".join(contexts.named) or "none"
        raise Failure(f"there is no context {name!r}", f"{file} has: {known}.")
    chosen = contexts.named[name]
    return chosen._replace(token=general() if token else chosen.token, ca_file=ca_file or chosen.ca_file)


def load(file: Path) -> Contexts:
    """Read the file, if there is one. Warns about a token that others can read. Raises ``Failure`` for a mistake."""
    try:
        with file.open("rb") as source:
            mode = stat.S_IMODE(file.stat().st_mode)
            document = tomllib.load(source)
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise Failure(f"{file} can't be read: {error.strerror}", "Give --url, or make it readable.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Failure(f"{file} is not valid TOML: {error}", "Correct it, or give --url.") from None
    _only_known(document, _FILE_KEYS, file, "")
    tables = document.get("contexts", {})
    if not isinstance(tables, dict):
        raise _mistake(file, "contexts", "must be tables like [contexts.lab]")
    named = {name: _context(file, name, table) for name, table in tables.items()}
    default = document.get("default")
    if default is not None and default not in named:
        raise _mistake(file, "default", f"must be the name of a context: {', '.join(named) or 'there is none'}")
    if mode & 0o077 and any(connection.token for connection in named.values()):
        say(f"schedctl: warning: others can read the token in {file} (mode {mode:04o}); chmod 600 {file}")
    return Contexts(default, named)


def checked_url(url: str, where: str) -> str:
    """``url`` without a trailing slash. Raises ``Failure`` that names the origin ``where`` if it is no HTTP URL."""
    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fit = False
    if not fit or parts.query or parts.fragment:
        raise Failure(f"{where}: {url!r} is not a URL of HTTP", f"It looks like {DEFAULT_URL}.")
    return url.rstrip("/")


def _checked_token(token: str | None, where: str) -> str | None:
    """``token``, if a header can contain it. Raises ``Failure`` that names the origin ``where`` if not."""
    if token and not all("!" <= character <= "~" for character in token):
        raise Failure(f"{where} must be printable ASCII without spaces", "Give it as it was issued.")
    return token


def _context(file: Path, name: str, table: object) -> Connection:
    where = f"contexts.{name}"
    if not isinstance(table, dict):
        raise _mistake(file, where, "must be a table")
    _only_known(table, _CONTEXT_KEYS, file, f"{where}.")
    for key, value in table.items():
        if not isinstance(value, str) or not value:
            raise _mistake(file, f"{where}.{key}", "must be a text that is not empty")
    if "url" not in table:
        raise _mistake(file, f"{where}.url", "is needed")
    ca_file = table.get("ca_file")
    return Connection(
        checked_url(table["url"], f"{file}: {where}.url"),
        _checked_token(table.get("token"), f"{file}: {where}.token"),
        str(file.parent / Path(ca_file).expanduser()) if ca_file else None,
        f"context {name}",
    )


def _only_known(table: Mapping[str, Any], allowed: tuple[str, ...], file: Path, where: str) -> None:
    for key in table:
        if key not in allowed:
            raise _mistake(file, f"{where}{key}", f"is not a key; allowed: {', '.join(allowed)}")


def _mistake(file: Path, key: str, problem: str) -> Failure:
    return Failure(f"{file}: {key}: {problem}", "Correct it, or give --url.")
