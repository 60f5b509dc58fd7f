"""The text of server-sent events, as a browser's EventSource understands it.

An event of output has the offset of its bytes, and the bytes as text, or as base64 if they are not UTF-8. A character
that is cut by the boundary of a chunk is held back until the rest comes. An event's id is ``<stdout>,<stderr>``: the
offsets reached by this and all earlier events, so that a client that resumes there misses nothing and gets nothing
twice. The id of the last event has ``,end`` after that: a client that resumes there gets nothing.
"""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Iterator

from scheduler.errors import Invalid
from scheduler.model import Stream
from scheduler.reading import Object, shown
from scheduler.wire import dump

#: Bytes of output in one event, at most.
EVENT_MAX_BYTES = 64 * 1024

#: An event without content (a comment). It shows proxies and clients that the connection lives.
HEARTBEAT = b":\n\n"

Offsets = dict[Stream, int]

#: The end of an id, after the offsets, if everything was sent.
_END = ",end"

_DECODER = codecs.getincrementaldecoder("utf-8")

_OFFSETS = re.compile(r"([0-9]{1,18})(?:,([0-9]{1,18}))?")


def event(name: str, data: Object, identity: str) -> bytes:
    """The bytes of an event; ``identity`` is its id. JSON has no raw line breaks, so the data is one line."""
    return f"event: {name}\nid: {identity}\ndata: ".encode() + dump(data) + b"\n"


def event_id(offsets: Offsets, ended: bool = False) -> str:
    """The id for these offsets of both streams; ``ended``: this is the last event."""
    return f"{offsets[Stream.STDOUT]},{offsets[Stream.STDERR]}" + (_END if ended else "")


def says_end(text: str) -> bool:
    """Whether ``text`` is the id of a last event."""
    return text.endswith(_END) and _OFFSETS.fullmatch(text.removesuffix(_END)) is not None


def read_offsets(field: str, text: str) -> Offsets:
    """Read ``<stdout>,<stderr>``; a single number is stdout's. Raises ``Invalid`` for ``field`` if malformed."""
    match = _OFFSETS.fullmatch(text)
    if match is None:
        raise Invalid(field, f"{shown(text)} must be <stdout>,<stderr>, two offsets in bytes")
    return {Stream.STDOUT: int(match[1]), Stream.STDERR: int(match[2] or 0)}


class Pieces:
    """Cuts the bytes of one stream into the data of events."""

    def __init__(self, offset: int) -> None:
        #: The offset after the last byte that was handed out.
        self.sent = offset
        self._held = b""

    def feed(self, data: bytes) -> Iterator[Object]:
        """Take more bytes, and give the data of each event that is complete. ``sent`` grows with each."""
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
        """Give the data of a last event with the bytes held back, if there are any: the stream has ended."""
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
    """The number of bytes at the end that begin a character whose rest is missing."""
    decoder = _DECODER("replace")
    decoder.decode(data[-3:])
    return len(decoder.getstate()[0])
