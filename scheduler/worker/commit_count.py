"""The highest count of commits that a scheduler has told this worker, kept in a file for the next process.

Theory of operation. By this count a scheduler learns that its store was set back. A higher count is written at once, in
a pool, one write at a time; if the count grows meanwhile, it is written next. So a worker that is killed loses no more
than the write under way. The file is not synced: if the machine loses power, and no other worker was told as high a
count, the scheduler may not notice that the commits of the last seconds before that are missing. The file has one line
of fixed length, written in place, so it is always whole.
"""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.threads import Pool
from scheduler.worker.shim.files import held
from scheduler.worker_interfaces import ICommitCount

#: The largest count that a message carries, and the number of its digits.
_MAX = 2**64 - 1
_DIGITS = 20


@implementer(ICommitCount)
class CommitCountFile:
    """The file at ``path``."""

    _log = Logger()

    def __init__(self, pool: Pool, path: str) -> None:
        self._pool = pool
        self._path = path
        self._wanted = 0
        self._writing: Deferred[None] | None = None
        self._failing = False

    def read(self) -> int:
        try:
            with open(self._path, "rb") as file:
                line = file.read(_DIGITS + 1)
        except FileNotFoundError:
            return 0
        except OSError as error:
            self._log.warn("{file} can't be read: {why}", file=self._path, why=error.strerror)
            return 0
        return min(int(line[:-1]), _MAX) if line[:-1].isdigit() else 0

    def write(self, count: int) -> None:
        self._wanted = count
        if self._writing is None:
            self._writing = self._pool.run(self._write_thd, count)
            self._writing.addCallbacks(self._written, self._not_written, callbackArgs=(count,))

    def _written(self, _: None, count: int) -> None:
        self._writing = None
        self._failing = False
        if self._wanted != count:
            self.write(self._wanted)

    def _not_written(self, reason: Failure) -> None:
        self._writing = None  # the next write comes with the next answer of the scheduler
        if not self._failing:
            self._failing = True
            self._log.failure("{file} can't be written", reason, file=self._path)

    def _write_thd(self, count: int) -> None:
        with held(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)) as fd:
            os.pwrite(fd, b"%0*d\n" % (_DIGITS, count), 0)
