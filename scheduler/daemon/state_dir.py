"""The state folder of a process: one process at a time has it.

The process that holds the ``flock`` on ``lock`` in the state folder owns the folder. The lock is taken before twistd
forks, and kept by both forks. The kernel releases it, however the process ends. So a pidfile that the owner finds there
is stale, even if a process has that pid now. The lock is close-on-exec, so no child holds it.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from scheduler.daemon import drafts, files
from scheduler.errors import Invalid


class StateDir:
    """The folder in which a process keeps its state. One process at a time has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._endpoints = path / "endpoints.json"
        self._lock: int | None = None

    def take(self, uid: int | None = None, gid: int | None = None) -> None:
        """Lock the folder, with the rights of ``uid`` and ``gid``. If it does not exist, create it for them.

        Raises ``BlockingIOError`` if another process has the folder, another ``OSError`` if it can't be used,
        ``Invalid`` if it belongs to another user or is open to others.
        """
        files.make_folder(self.path, uid, gid)
        with files.as_user(uid, gid):
            if problem := files.state_dir_problem(self.path, os.geteuid()):
                raise Invalid("state_dir", problem)
            self._take()

    def _take(self) -> None:
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise
        self._lock = lock
        self.remove_endpoints()  # left by a process that was killed

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write_endpoints(self, **addresses: str) -> None:
        """Write the server's addresses to ``endpoints.json``, atomically: ``http="127.0.0.1:3000"``."""
        drafts.replace(str(self._endpoints), f"{json.dumps(addresses)}\n".encode(), sync=False)

    def remove_endpoints(self) -> None:
        """Remove ``endpoints.json``: nothing listens any more."""
        self._endpoints.unlink(missing_ok=True)
