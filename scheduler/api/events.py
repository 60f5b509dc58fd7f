"""Server-sent events: how a job's output looks as text that a browser's EventSource understands.

An event of output carries the offset of its bytes and these as text, or as
base64 where they are not UTF-8. A character cut by the boundary of a chunk is
held back until the rest comes. An event's id is ``<stdout>,<stderr>``: how far
everything sent up to and with it reaches, so that resuming there repeats and
omits nothing. The last event has ``,end`` after that: who resumes there gets nothing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

from scheduler.errors import Invalid
from scheduler.fields import Object, shown
from scheduler.model import Stream
from scheduler.wire import dump

#: Bytes of output in one event, at most.
EVENT_MAX_BYTES = 64 * 1024

#: Keeps proxies and clients from thinking the connection dead.
HEARTBEAT = b":\n\n"

Offsets = dict[Stream, int]

#: What an id has after the offsets when everything was sent, the end too.
_END = ",end"

_OFFSETS = re.compile(r"([0-9]{1,18})(?:,([0-9]{1,18}))?")


def event(name: str, data: Object, identity: str) -> bytes:
    """One event. JSON has no raw line breaks, so the data is one line."""
    return f"event: {name}\nid: {identity}\ndata: ".encode() + dump(data) + b"\n"


def event_id(offsets: Offsets, ended: bool = False) -> str:
    """How far both streams were sent; ``ended``: nothing follows."""
    return f"{offsets[Stream.STDOUT]},{offsets[Stream.STDERR]}" + (_END if ended else "")


def says_end(text: str) -> bool:
    """Whether an event's id says that nothing follows it."""
    return text.endswith(_END) and _OFFSETS.fullmatch(text.removesuffix(_END)) is not None


def read_offsets(field: str, text: str) -> Offsets:
    """``<stdout>,<stderr>``, as in an event's id; one number alone is stdout's. ``Invalid``, naming ``field``."""
    match = _OFFSETS.fullmatch(text)
    if match is None:
        raise Invalid(field, f"{shown(text)} must be <stdout>,<stderr>, two offsets in bytes")
    return {Stream.STDOUT: int(match[1]), Stream.STDERR: int(match[2] or 0)}


class Pieces:
    """One stream's bytes on their way into events."""

    def __init__(self, offset: int) -> None:
        #: How far what was handed out reaches.
        self.sent = offset
        self._held = b""

    def feed(self, data: bytes) -> Iterator[Object]:
        """The data of the events that ``data`` makes possible; ``sent`` grows with each."""
        waiting, start = self._held + data, 0
        while start < len(waiting):
            piece = waiting[start : start + EVENT_MAX_BYTES]
            whole = len(piece) - cut_character(piece)
            if not whole:
                break
            yield self._data(piece[:whole])
            start += whole
        self._held = waiting[start:]

    def flush(self) -> Iterator[Object]:
        """What was held back, as the stream has ended."""
        if self._held:
            held, self._held = self._held, b""
            yield self._data(held)

    def _data(self, piece: bytes) -> Object:
        offset = self.sent
        self.sent += len(piece)
        try:
            return {"offset": offset, "text": piece.decode("utf-8")}
        except UnicodeDecodeError:
            return {"offset": offset, "base64": base64.b64encode(piece).decode("ascii")}


def cut_character(data: bytes) -> int:
    """How many bytes at the end are the beginning of a character whose rest is missing."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 2 if 0xC2 <= byte <= 0xDF else 3 if 0xE0 <= byte <= 0xEF else 4 if 0xF0 <= byte <= 0xF4 else 1
        return back if length > back else 0
    return 0
