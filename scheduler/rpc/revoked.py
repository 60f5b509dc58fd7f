"""The file of revoked certificates, in force from the next call after it changed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

from twisted.logger import Logger

from scheduler.daemon.certificates import read_revoked
from scheduler.errors import Invalid

#: Seconds after which a file that could not be read is read again, though it has not changed: the process may have had
#: no descriptor.
READ_AGAIN_SECONDS = 1.0

#: The state of a file that can't be looked at.
_UNREADABLE = (0, 0, 0)


class RevokedFile:
    """The serials in a file. If the file becomes unreadable or malformed, the last good list stays in force."""

    _log = Logger()

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ``Invalid`` of ``revoked`` if the file can't be read, or has a line that is no serial."""
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._stamp = _stamp(path)
        self._serials = read_revoked(path)
        #: The file that could not be read, until when it is not read again, and the reason that was logged.
        self._unfit, self._unfit_until, self._logged = self._stamp, -math.inf, ""

    def __contains__(self, serial: int) -> bool:
        """Whether a certificate is revoked now. May be called in any thread."""
        with self._lock:
            stamp = _stamp(self._path)  # taken first, so that a change during the reading is seen the next time
            if stamp != self._stamp and (stamp != self._unfit or self._clock() >= self._unfit_until):
                self._read_again(stamp)
            return serial in self._serials

    def _read_again(self, stamp: tuple[int, int, int]) -> None:
        try:
            self._serials = read_revoked(self._path)
        except Invalid as error:
            self._unfit, self._unfit_until = stamp, self._clock() + READ_AGAIN_SECONDS
            if error.problem != self._logged:
                self._logged = error.problem
                self._log.error(
                    "the list of revoked certificates stays as it was, with {count} serials: {why}",
                    count=len(self._serials),
                    why=error.problem,
                )
        else:
            self._stamp, self._logged = stamp, ""
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
