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


class StateDir:
    """The folder in which a process keeps its state. One process at a time has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._endpoints = path / "endpoints.json"
        self._lock: int | None = None

    def take(self, uid: int | None = None, gid: int | None = None) -> None:
        """Lock the folder. If it does not exist, create it for ``uid`` and ``gid``.

        Raises ``BlockingIOError`` if another process has the folder, another ``OSError`` if it can't be used.
        """
        if not self.path.is_dir():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chown(self.path, -1 if uid is None else uid, -1 if gid is None else gid)
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
        draft = self._endpoints.with_suffix(".tmp")
        draft.write_text(json.dumps(addresses) + "\n", encoding="utf-8")
        draft.replace(self._endpoints)

    def remove_endpoints(self) -> None:
        """Remove ``endpoints.json``: nothing listens any more."""
        self._endpoints.unlink(missing_ok=True)
