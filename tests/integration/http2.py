"""HTTP/2 frames by hand, for clients that behave worse than any library's."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name: str, value: str) -> bytes:
    """A header field that is not indexed."""
    parts = (name.encode(), value.encode())
    return b"\0" + b"".join(_length(len(part)) + part for part in parts)


def _length(size: int) -> bytes:
    """A length as HPACK has it: seven bits, and what exceeds them in bytes of seven bits (RFC 7541, 5.1)."""
    if size < 127:
        return bytes((size,))
    size, found = size - 127, bytearray((127,))
    while size >= 128:
        found.append(size % 128 + 128)
        size //= 128
    return bytes((*found, size))


def headers(path: str, metadata: Sequence[tuple[str, str]] = ()) -> bytes:
    """The headers of a call."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
    return b"".join(
        literal(*field) for field in {**fields, "content-type": "application/grpc", **dict(metadata)}.items()
    )


def received_frames(received: bytes) -> tuple[list[tuple[int, int, int, bytes]], bytes]:
    """The complete frames in ``received`` (kind, flags, stream, payload), and the rest."""
    found = []
    while len(received) >= 9 and len(received) >= 9 + (size := int.from_bytes(received[:3])):
        found.append((received[3], received[4], int.from_bytes(received[5:9]), received[9 : 9 + size]))
        received = received[9 + size :]
    return found, received


def half_open(
    address: tuple[str, int], path: str, count: int, metadata: Sequence[tuple[str, str]] = ()
) -> socket.socket:
    """A connection with so many calls that never send their message; closing it ends them."""
    block = headers(path, metadata)
    connection = socket.create_connection(address)
    calls = b"".join(frame(HEADERS, END_HEADERS, 2 * number + 1, block) for number in range(count))
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0) + calls)
    return connection


def ended(connection: socket.socket, count: int) -> None:
    """Wait until the server has ended so many streams of the connection; ``OSError`` after 10 s."""
    connection.settimeout(10)
    received, streams = b"", set()
    while len(streams) < count:
        frames, received = received_frames(received + connection.recv(65536))
        streams.update(stream for kind, flags, stream, _ in frames if kind == HEADERS and flags & END_STREAM)


class _Connection:
    """Keeps as many calls open as the server allows; one that is ended is followed by the next."""

    def __init__(self, address: tuple[str, int], path: str, message: bytes | None) -> None:
        self.socket = socket.create_connection(address)
        self._block = headers(path)
        self._message = message
        self._received = b""
        self._number = 1
        self._allowed = 0
        self._open: set[int] = set()
        self.ended = 0
        # With a window of no bytes the server can't send an answer.
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 0)))

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        frames, self._received = received_frames(self._received + self.socket.recv(1 << 18))
        yield from frames

    def read(self) -> None:
        answers = b""
        for kind, flags, stream, payload in self._frames():
            if kind == SETTINGS and not flags & ACK:
                told = dict(struct.iter_unpack(">HI", payload))
                self._allowed = told.get(MAX_CONCURRENT_STREAMS, self._allowed)
                answers += frame(SETTINGS, ACK, 0)
            elif kind == PING and not flags & ACK:
                answers += frame(PING, ACK, 0, payload)
            elif (kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM)) and stream in self._open:
                self._open.discard(stream)
                self.ended += 1
        while len(self._open) < self._allowed:
            answers += frame(HEADERS, END_HEADERS, self._number, self._block)
            if self._message is not None:
                answers += frame(DATA, 0, self._number, b"\0" + struct.pack(">I", len(self._message)) + self._message)
            self._open.add(self._number)
            self._number += 2
        self.socket.sendall(answers)


class Attack:
    """So many connections, each with all the calls that it may have, while the context is active.

    The calls send ``message``, if there is one, and then nothing; no answer is read. ``ended``: the number of calls
    that the server has ended.
    """

    def __init__(self, address: tuple[str, int], path: str, connections: int, message: bytes | None = None) -> None:
        self._over = threading.Event()
        self._connections = [_Connection(address, path, message) for _ in range(connections)]
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def ended(self) -> int:
        return sum(connection.ended for connection in self._connections)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for connection in self._connections:
                selector.register(connection.socket, selectors.EVENT_READ, connection)
            while not self._over.is_set():
                for key, _ in selector.select(0.1):
                    with contextlib.suppress(OSError):
                        key.data.read()

    def __enter__(self) -> Attack:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        for connection in self._connections:
            connection.socket.close()


def pings(address: tuple[str, int], count: int, interval: float) -> bool:
    """Whether a connection outlives so many pings, with so many seconds after each."""
    with socket.create_connection(address) as connection:
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
        for number in range(count):
            connection.sendall(frame(PING, 0, 0, struct.pack(">Q", number)))
            time.sleep(interval)
        connection.settimeout(10)
        received = b""
        kinds: list[int] = []
        while kinds.count(PING) < count and GOAWAY not in kinds:
            frames, received = received_frames(received + connection.recv(65536))
            kinds += [kind for kind, *_ in frames]
        return GOAWAY not in kinds
