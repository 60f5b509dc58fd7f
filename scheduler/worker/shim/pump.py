"""Moves the output of a job from a pipe into a file, without copying it through this process. Standard library only.

The job gets the pipe and not the file: ``echo x > /dev/stderr`` opens the target of the descriptor anew, and would
truncate a file. When the file can't take more (a full disk, a quota), or the job has written as much as it may, the
read end is closed. So the job sees EPIPE instead of hanging for ever.
"""

from __future__ import annotations

import fcntl
import os

#: A write to /dev/stdout opens the pipe anew, for which a process of another user needs permission.
_PIPE_MODE = 0o622

#: The most that one call moves, so that one stream can't starve the other.
_SPLICE_MAX_BYTES = 1 << 18


class Allowance:
    """Bytes that all pumps of a job together may still move."""

    def __init__(self, limit: int | None) -> None:
        """``limit`` in bytes; ``None``: no limit."""
        self.limit = limit
        self._moved = 0

    @property
    def spent(self) -> bool:
        return self.limit is not None and self._moved >= self.limit

    def most(self, wanted: int) -> int:
        """Answer how many of ``wanted`` bytes may be moved now: all, or what is left of the limit."""
        return wanted if self.limit is None else min(wanted, self.limit - self._moved)

    def spend(self, moved: int) -> None:
        self._moved += moved


class Pump:
    """The pipe of one output stream of the job, and the file that gets its bytes."""

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
        """Move at most ``most`` of the bytes in the pipe; 0: it is empty, or closed."""
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
        """Move all bytes that the pipe holds now."""
        if self.source >= 0:
            # A process may go on writing for ever, so this is no more than the pipe can hold.
            rest = fcntl.fcntl(self.source, fcntl.F_GETPIPE_SZ)
            while rest > 0 and (moved := self.move(rest)):
                rest -= moved

    def drain(self, still_open: str = "") -> None:
        """Move the rest, and close pipe and file. ``still_open`` becomes the error if a process can still write."""
        # No process of the job's tree writes any more, unless it could not be ended. A process outside the tree may
        # have been given the pipe: only the bytes that are in it now count.
        self.move_all()
        if self.source >= 0:
            self.error = self.error or still_open
        self.close()
        if self._moved:  # the sync of an unchanged file takes the disk's time all the same
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
