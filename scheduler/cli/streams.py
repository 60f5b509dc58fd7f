"""The standard streams: makes them safe before a command writes, and writes the output of jobs."""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import sys


def prepare() -> None:
    """Make descriptors 0, 1 and 2 safe to use, and any text printable. Call it before anything else is opened.

    A closed one (``>&-``, some daemons) becomes /dev/null. Otherwise the next socket would get its number, and would
    receive a job's output. A character that stdout's encoding lacks is written as an escape.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    # Python has no stream for a descriptor that was closed.
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def abandon_stdout() -> None:
    """Discard stdout, which can't be written any more. The rest of its buffer would fail again at exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all data at once, without a buffer.

    ``BrokenPipeError`` if the pipe's reader or the terminal is gone; another ``OSError`` if writing fails.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # another process with the same terminal or pipe made it non-blocking
            select.select([], [descriptor], [])
        except OSError as error:
            if error.errno == errno.EIO and stat.S_ISCHR(os.fstat(descriptor).st_mode):
                raise BrokenPipeError(errno.EPIPE, "the terminal is gone") from error
            raise
