"""Reads the input of a job from our own stdin before the job is submitted."""

from __future__ import annotations

import json
import os
import select
import stat
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


def offered(descriptor: int = 0) -> bool:
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


def read(most: int, mention: Callable[[], object], descriptor: int = 0) -> bytes:
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
