"""Parses server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) from arriving bytes."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from scheduler.client.errors import ClientError

#: Bytes of the longest line. The scheduler's longest is an event ``end`` with 1 MiB of each stream, escaped.
LINE_MAX_BYTES = 32 * 1024 * 1024


@frozen
class ServerEvent:
    """An event; ``id`` is the last id that was sent, with this event or an earlier one."""

    name: str
    data: str
    id: str = ""


class Parser:
    """Takes a body in pieces of any size, and returns the complete events."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False
        self._name = self._id = ""
        self._data: list[str] = []

    def feed(self, data: bytes) -> list[ServerEvent]:
        """The events that ``data`` completes. Raises ``ClientError`` for a line that is too long."""
        new = self._rest[-1:] + data
        self._rest += data
        if b"\n" not in new and b"\r" not in new and len(self._rest) <= LINE_MAX_BYTES:
            return []
        events = []
        for line in self._lines():
            if line:
                self._field(line)
            elif (event := self._dispatch()) is not None:
                events.append(event)
        return events

    def _lines(self) -> Iterator[bytes]:
        if not self._begun:
            if b"\xef\xbb\xbf".startswith(self._rest):
                return  # this may be the start of a byte order mark
            self._begun = True
            self._rest = self._rest.removeprefix(b"\xef\xbb\xbf")
        lines = self._rest.splitlines(keepends=True)
        # The last line may have no end yet, and a CR at its end may be the start of CR LF.
        self._rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        yield from (line.rstrip(b"\r\n") for line in lines)
        if len(self._rest) > LINE_MAX_BYTES:
            raise ClientError(f"a line of the event stream is longer than {LINE_MAX_BYTES} bytes")

    def _field(self, line: bytes) -> None:
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value

    def _dispatch(self) -> ServerEvent | None:
        name, data = self._name, self._data
        self._name, self._data = "", []
        return ServerEvent(name or "message", "\n".join(data), self._id) if data else None
