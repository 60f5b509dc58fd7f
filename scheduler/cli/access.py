"""Finds the token of a scheduler on this machine, for users who have none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

#: The file in a scheduler's ``state_dir``.
ADMIN_TOKEN = "admin.token"  # noqa: S105 - no password


def next_step(url: str, environ: Mapping[str, str]) -> str:
    """A sentence for a user whose request to ``url`` had no token; ``""``: that scheduler is not on this machine."""
    if urlsplit(url).hostname not in _LOOPBACK:
        return ""
    for folder in _folders(environ):
        file = folder / ADMIN_TOKEN
        try:
            file.open("rb").close()
        except FileNotFoundError:
            continue
        except OSError:
            return f"On this machine, the scheduler's user and root can read a token in {file}."
        return f"The scheduler on this machine wrote a token: export SCHEDULER_TOKEN=$(cat {file})"
    return ""


def _folders(environ: Mapping[str, str]) -> Iterator[Path]:
    """The default folders of schedulers: of this user, and of a system service."""
    state = environ.get("XDG_STATE_HOME", "")
    home = Path(state) if state.startswith("/") else Path(environ.get("HOME") or "~").expanduser() / ".local/state"
    yield home / "scheduler"
    yield Path("/var/lib/scheduler")
