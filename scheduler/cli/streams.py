"""The standard streams: what is made sure of before a command writes to them, and how output of jobs is written."""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import sys


def prepare() -> None:
    """Make 0, 1 and 2 safe to use, and any text possible to print; before anything else is opened.

    One that is closed (``>&-``, some daemons) becomes /dev/null. Otherwise the next socket would have its number, and
    what a job writes would go there. A character that the encoding of stdout does not have is written as an escape.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    # Python has none for a descriptor that was closed.
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def abandon_stdout() -> None:
    """It can't be written any more; what is left in its buffer would fail again at exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


def write_all(descriptor: int, data: bytes) -> None:
    """All of it, at once and unbuffered.

    ``BrokenPipeError`` if nobody reads it any more, be it a pipe or a terminal that is gone; another ``OSError`` if it
    can't be written.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # somebody who has the same terminal or pipe made it so
            select.select([], [descriptor], [])
        except OSError as error:
            if error.errno == errno.EIO and stat.S_ISCHR(os.fstat(descriptor).st_mode):
                raise BrokenPipeError(errno.EPIPE, "the terminal is gone") from error
            raise
