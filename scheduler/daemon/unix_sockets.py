"""The place of a Unix socket: whether a process may listen there, and the removal of a socket that was left behind.

A process that was killed leaves its socket, and nobody listens there. Such a socket is removed. Nothing else is, and
neither is a socket that cannot be tried out. The folder must be one in which no other user can replace the socket by a
socket of their own, and so be sent the tokens of clients.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

#: Bytes of the path of a Unix socket, at most.
PATH_MAX_BYTES = 107


def why_not_listen(path: Path, uid: int | None = None) -> str:
    """Why a process can't listen at the absolute ``path``, ``""`` if it can. ``uid``: the user it will switch to."""
    if len(os.fsencode(path)) > PATH_MAX_BYTES:
        return f"must have at most {PATH_MAX_BYTES} bytes"
    try:
        folder = path.parent.stat()
    except OSError as error:
        return f"must be in a folder that exists; {path.parent}: {error.strerror}"
    if not stat.S_ISDIR(folder.st_mode):
        return f"must be in a folder; {path.parent} is none"
    if folder.st_uid not in (0, os.geteuid(), uid):
        return f"must be in a folder of root or of the scheduler's user; {path.parent} is that of user {folder.st_uid}"
    if folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not folder.st_mode & stat.S_ISVTX:
        return f"must be in a folder that no other user can write; {path.parent} has mode {folder.st_mode & 0o7777:04o}"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"must be in a folder that this process can write; {path.parent}: {os.strerror(errno.EACCES)}"
    try:
        there = path.lstat()
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"can't be used: {error.strerror}"
    if not stat.S_ISSOCK(there.st_mode):
        return "must be free or a socket; there is something else"
    return "" if _is_left_behind(path) else "is taken: a process listens there, or may do so"


def remove_left_behind(path: Path) -> None:
    """Remove the socket at ``path`` if nobody listens there. Raises ``OSError`` if it can't be removed."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode) and _is_left_behind(path):
            path.unlink()


def _is_left_behind(path: Path) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.setblocking(False)  # a full backlog must not block
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED
