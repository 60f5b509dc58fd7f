"""The file of revoked certificates, in force from the next call after it changed."""

from __future__ import annotations

import threading
from pathlib import Path

from twisted.logger import Logger

from scheduler.daemon.certificates import read_revoked
from scheduler.errors import Invalid

#: The state of a file that can't be looked at.
_UNREADABLE = (0, 0, 0)


class RevokedFile:
    """The serials in a file. If the file becomes unreadable or malformed, the last good list stays in force."""

    _log = Logger()

    def __init__(self, path: Path) -> None:
        """Raises ``Invalid`` of ``revoked`` if the file can't be read, or has a line that is no serial."""
        self._path = path
        self._lock = threading.Lock()
        self._stamp = _stamp(path)
        self._serials = read_revoked(path)

    def __contains__(self, serial: int) -> bool:
        """Whether a certificate is revoked now. May be called in any thread."""
        with self._lock:
            stamp = _stamp(self._path)  # taken first, so that a change during the reading is seen the next time
            if stamp != self._stamp:
                self._stamp = stamp
                self._read_again()
            return serial in self._serials

    def _read_again(self) -> None:
        try:
            self._serials = read_revoked(self._path)
        except Invalid as error:
            self._log.error(
                "the list of revoked certificates stays as it was, with {count} serials: {why}",
                count=len(self._serials),
                why=error.problem,
            )
        else:
            self._log.info(
                "the list of revoked certificates was read anew: {count} serials in {file}",
                count=len(self._serials),
                file=str(self._path),
            )


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return _UNREADABLE
    return found.st_mtime_ns, found.st_size, found.st_ino
