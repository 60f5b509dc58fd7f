"""The standard streams: makes them safe before a command writes, reads the input of a job and writes its output."""

from __future__ import annotations

import errno
import io
import json
import os
import select
import stat
import sys
from collections.abc import Callable, Mapping
from typing import Any

from scheduler.cli.failures import Failure

#: Bytes of the largest request body, including the job's input.
_BODY_MAX_BYTES = 1024 * 1024

#: Bytes reserved for JSON syntax and field names.
_RESERVED_BYTES = 512

#: Seconds after which the user is told that stdin has not ended.
MENTION_AFTER_SECONDS = 3.0

_PIECE = 64 * 1024


def prepare() -> None:
    """Make descriptors 0, 1 and 2 safe to use, and any text printable. Call it before anything else is opened.

    A closed descriptor (``>&-``, some daemons) becomes /dev/null. Otherwise the next socket would get its number, and
    would receive a job's output. A character that stdout's encoding lacks is written as an escape.
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

    Raises ``BrokenPipeError`` if the pipe's reader or the terminal is gone, another ``OSError`` if writing fails.
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


def stdin_offered(descriptor: int = 0) -> bool:
    """Whether stdin has input: a pipe, a file or a socket, but not a terminal, /dev/null or another device."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:  # stdin is closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def room_for(fields: Mapping[str, Any]) -> int:
    """Bytes of input that fit into a request with these fields."""
    rest = len(json.dumps(fields, default=str)) + _RESERVED_BYTES
    return max(0, (_BODY_MAX_BYTES - rest) // 4 * 3)  # as base64


def read_stdin(most: int, mention: Callable[[], object], descriptor: int = 0) -> bytes:
    """All input; ``Failure`` if it exceeds ``most`` bytes. ``mention`` is called if it takes long."""
    found = bytearray()
    mentioned = False
    while True:
        if not mentioned and not select.select([descriptor], [], [], MENTION_AFTER_SECONDS)[0]:
            mentioned = True
            mention()
        try:
            data = os.read(descriptor, _PIECE)
        except BlockingIOError:  # another process with the same pipe made it non-blocking
            select.select([descriptor], [], [], None)
            continue
        except OSError as error:
            raise Failure(f"stdin can't be read: {error.strerror}", "Give -n to pass none of it.") from None
        if not data:
            return bytes(found)
        found += data
        if len(found) > most:
            raise Failure(
                f"stdin has more than the {most} bytes that a job can be given",
                "Nothing was started. Put the data where the job can read it, or give -n to pass none of it.",
            )
