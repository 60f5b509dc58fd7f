"""The file to which a daemon logs. It is appended to, rotated by size, and reopened by name on request.

Theory of operation. Every write goes to the present end of the file (``O_APPEND``). So a tool that copies the file and
truncates it leaves no hole. A renamed file is written to until ``reopen``. If a rotation or a reopening fails, the open
file stays in use, so no line is lost.
"""

from __future__ import annotations

import glob
import os
import stat
import threading
from contextlib import suppress
from typing import BinaryIO

from twisted.logger import Logger

#: Bytes at which a file is rotated, and the number of rotated files kept: ``NAME.1``, the newest, to ``NAME.10``.
ROTATE_BYTES = 10_000_000
MAX_ROTATED_FILES = 10


class LogFile:
    """A log file, for writes from any thread."""

    _log = Logger()

    def __init__(self, path: str, owner: tuple[int | None, int | None] = (None, None)) -> None:
        """Open the file, or raise ``OSError``. ``owner``: user and group of a new file, ``None``: the process's own."""
        self._path = os.path.abspath(path)  # a daemon changes its folder
        self._owner = owner
        self._mode: int | None = None
        self._rotate_at = ROTATE_BYTES
        #: Bytes that may be written before the file's size is looked at again.
        self._room = 0
        self._lock = threading.Lock()
        self._file = self._open()

    def write(self, text: str) -> None:
        """Append the text, after a rotation if the file is large."""
        data = text.encode("utf-8")
        with self._lock:
            if self._room <= 0:
                self._make_room()
            self._room -= len(data)
            self._file.write(data)

    def flush(self) -> None:
        """Do nothing, since nothing is buffered."""

    def rotate(self) -> None:
        """Rename the file and the rotated ones, remove those beyond ``MAX_ROTATED_FILES``, and begin a new file."""
        with self._lock:
            self._rotate()

    def reopen(self) -> None:
        """Continue in the file that has the name now, or in a new one if there is none."""
        try:
            with self._lock:
                self._go_on_in(self._open())
        except OSError as error:
            self._log.warn("{file} can't be opened anew: {why}", file=self._path, why=error.strerror)

    def _open(self) -> BinaryIO:
        new = not os.path.exists(self._path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        file = open(os.open(self._path, flags, 0o666), "ab", buffering=0)  # noqa: SIM115 - it stays open
        if new:
            with suppress(OSError):  # the folder decides who may own the file
                os.fchown(file.fileno(), *(-1 if each is None else each for each in self._owner))
                if self._mode is not None:
                    os.fchmod(file.fileno(), self._mode)
        self._mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        return file

    def _go_on_in(self, file: BinaryIO) -> None:
        old, self._file = self._file, file
        old.close()
        self._rotate_at, self._room = ROTATE_BYTES, 0

    def _make_room(self) -> None:
        size = os.fstat(self._file.fileno()).st_size
        if size >= self._rotate_at:
            self._rotate()
            size = os.fstat(self._file.fileno()).st_size
        self._room = self._rotate_at - size

    def _rotate(self) -> None:
        found = os.fstat(self._file.fileno())
        self._rotate_at = found.st_size + ROTATE_BYTES  # so that a failed rotation is tried again later
        if not stat.S_ISREG(found.st_mode):
            return  # /dev/null must not be renamed
        with suppress(OSError):
            for number in sorted(self._rotated(), reverse=True):
                if number >= MAX_ROTATED_FILES:
                    os.unlink(f"{self._path}.{number}")
                else:
                    os.rename(f"{self._path}.{number}", f"{self._path}.{number + 1}")
            with suppress(FileNotFoundError):
                os.rename(self._path, f"{self._path}.1")
            self._go_on_in(self._open())

    def _rotated(self) -> list[int]:
        ends = (name.removeprefix(f"{self._path}.") for name in glob.iglob(f"{glob.escape(self._path)}.*"))
        return [int(end) for end in ends if end.isascii() and end.isdigit() and end[0] != "0"]
