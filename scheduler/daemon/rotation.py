"""Rotation of certificates: an object that is made from the files, and made again after the files changed.

If a file can't be read, the files do not match, or they state another identity, the previous object stays in use.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from twisted.logger import Logger

from scheduler.daemon import certificates
from scheduler.daemon.servers import TlsFiles
from scheduler.errors import Invalid

T = TypeVar("T")

_log = Logger()

#: Seconds after which unusable files that have not changed are read again.
READ_AGAIN_SECONDS = 10.0


class Current(Generic[T]):
    """An object made from the files, and made again after the files changed."""

    def __init__(
        self, files: TlsFiles, make: Callable[[TlsFiles], T], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises ``OSError`` or ``Invalid`` if the files can't be read."""
        self._files = files
        self._make = make
        self._clock = clock
        self._stamp = _stamp(files)
        self._made = make(files)
        self.identity = certificates.identity_of(files)
        #: The files that could not be used, and until when they are not read again.
        self._unfit = self._stamp
        self._unfit_until = -math.inf

    def get(self) -> T:
        """The object for the current files. The previous object is kept if they are unchanged or can't be used."""
        stamp = _stamp(self._files)
        if stamp == self._stamp or (stamp == self._unfit and self._clock() < self._unfit_until):
            return self._made
        try:
            self._check()
            made = self._make(self._files)
            if _stamp(self._files) == stamp:  # otherwise they changed meanwhile: the next call reads them
                self._made, self._stamp = made, stamp
                _log.info("certificates were read anew", file=str(self._files.crt_file))
        except (OSError, Invalid) as error:
            self._unfit, self._unfit_until = stamp, self._clock() + READ_AGAIN_SECONDS
            _log.warn("certificates stay as they were: {why}", why=str(error))
        return self._made

    def _check(self) -> None:
        identity = certificates.check(self._files)
        if identity != self.identity:
            now, before = identity or "no identity", self.identity or "no identity"
            raise Invalid("crt_file", f"{self._files.crt_file} states {now} in place of {before}; restart to use it")


def _stamp(files: TlsFiles) -> tuple[tuple[int, int, int], ...]:
    """A value that changes with the files."""
    paths = [files.crt_file, files.key_file, *([files.ca_file] if files.ca_file is not None else [])]
    return tuple(map(_stamp_of, paths))


def _stamp_of(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino
