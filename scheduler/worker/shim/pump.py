"""Moves what a job writes from a pipe into a file, without copying it through this process. Standard library only.

The job has the pipe and not the file: ``echo x > /dev/stderr`` opens what is
behind the descriptor anew and would truncate a file. When the file can't take
more (a full disk, a quota) the read end is closed, so the job is told by EPIPE
instead of being held up for ever. So it is when as much was moved as the job may write.
"""

from __future__ import annotations

import fcntl
import os

#: Who writes to a pipe by the name /dev/stdout opens it anew, for which a process of another user needs permission.
_PIPE_MODE = 0o622

#: As much as one call moves at most, so that one stream can't starve the other.
_SPLICE_MAX_BYTES = 1 << 18


class Allowance:
    """Bytes that all pumps of a job together may still move."""

    def __init__(self, limit: int | None) -> None:
        """``None``: without end."""
        self.limit = limit
        self._moved = 0

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return self.limit is not None and self._moved >= self.limit

    def most(self, wanted: int) -> int:
        """So much of ``wanted`` may be moved."""
        return wanted if self.limit is None else min(wanted, self.limit - self._moved)

    def spend(self, moved: int) -> None:
        """So much was moved."""
        self._moved += moved


class Pump:
    """One pipe and its file."""

    def __init__(self, path: str, allowance: Allowance) -> None:
        self._allowance = allowance
        # Not O_APPEND: splice refuses that.
        self._file = os.open(path, os.O_WRONLY)
        #: ``write_end`` is for the job; close it here once the job has it. ``source`` is -1 once it is closed.
        self.source, self.write_end = os.pipe()
        os.fchmod(self.write_end, _PIPE_MODE)
        self._moved = 0
        #: Why the file could take no more.
        self.error = ""
        os.set_blocking(self.source, False)

    def move(self, most: int = _SPLICE_MAX_BYTES) -> int:
        """Move what the pipe holds now, ``most`` bytes at most; 0 when there was nothing, or will never be."""
        moved = 0
        try:
            if not self._allowance.spent:
                moved = os.splice(self.source, self._file, self._allowance.most(most), flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return 0
        except OSError as error:
            self.error = os.strerror(error.errno or 0)
        self._allowance.spend(moved)
        self._moved += moved
        if not moved:
            self.close()
        return moved

    def move_all(self) -> None:
        """Move what the pipe holds now."""
        if self.source >= 0:
            # Somebody may go on writing for ever, so this is no more than the pipe can hold.
            rest = fcntl.fcntl(self.source, fcntl.F_GETPIPE_SZ)
            while rest > 0 and (moved := self.move(rest)):
                rest -= moved

    def drain(self, still_open: str = "") -> None:
        """Move the rest, and end. ``still_open`` becomes the error where somebody can still write."""
        # Nobody of the job's tree writes any more, unless it could not be ended. A process outside the tree may have
        # been given the pipe: only what it holds now counts.
        self.move_all()
        if self.source >= 0:
            self.error = self.error or still_open
        self.close()
        if self._moved:  # to sync a file that is as it was takes the disk's time all the same
            try:
                os.fdatasync(self._file)
            except OSError as error:
                self.error = self.error or os.strerror(error.errno or 0)
        os.close(self._file)

    def close(self) -> None:
        """Close the read end."""
        if self.source >= 0:
            os.close(self.source)
            self.source = -1
