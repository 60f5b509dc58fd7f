"""The input of a job, read from our own stdin before the job is submitted."""

from __future__ import annotations

import json
import os
import select
import stat
from collections.abc import Callable, Mapping
from typing import Any

from scheduler.cli.failures import Failure

#: Bytes of a request's body, the job's input and all.
_LARGEST_BODY = 1024 * 1024

#: Bytes of it for what JSON and the names of fields take beside the values.
_FRAME = 512

#: Seconds after which a stdin that has not ended is mentioned.
MENTION_AFTER_SECONDS = 3.0

_PIECE = 64 * 1024


def offered(descriptor: int = 0) -> bool:
    """Whether there is input: a pipe, a file or a socket, not a terminal, nor /dev/null or another device."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:  # it is closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def room_for(fields: Mapping[str, Any]) -> int:
    """Bytes of input that fit into one request beside these fields."""
    rest = len(json.dumps(fields, default=str)) + _FRAME
    return max(0, (_LARGEST_BODY - rest) // 4 * 3)  # as base64


def read(most: int, mention: Callable[[], object], descriptor: int = 0) -> bytes:
    """All of it; ``Failure`` if that is more than ``most`` bytes. ``mention`` is called if it takes long."""
    found = bytearray()
    mentioned = False
    while True:
        if not mentioned and not select.select([descriptor], [], [], MENTION_AFTER_SECONDS)[0]:
            mentioned = True
            mention()
        try:
            data = os.read(descriptor, _PIECE)
        except BlockingIOError:  # somebody who has the same pipe made it so
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
