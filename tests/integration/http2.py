"""HTTP/2 by hand, for clients ruder than any library's."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, SETTINGS, RST_STREAM = 1, 4, 3
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name: str, value: str) -> bytes:
    """A header field that is not indexed."""
    parts = (name.encode(), value.encode())
    return b"\0" + b"".join(bytes((len(part),)) + part for part in parts)


def half_open(
    address: tuple[str, int], path: str, count: int, metadata: Sequence[tuple[str, str]] = ()
) -> socket.socket:
    """A connection with so many calls that never send their message; closing it ends them."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
    block = b"".join(
        literal(*field) for field in {**fields, "content-type": "application/grpc", **dict(metadata)}.items()
    )
    connection = socket.create_connection(address)
    calls = b"".join(frame(HEADERS, END_HEADERS, 2 * number + 1, block) for number in range(count))
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0) + calls)
    return connection


def ended(connection: socket.socket, count: int) -> None:
    """Returns once the server has ended so many streams of the connection; ``OSError``: it did not within 10 s."""
    connection.settimeout(10)
    received, streams = b"", set()
    while len(streams) < count:
        received += connection.recv(65536)
        while len(received) >= 9 and len(received) >= 9 + (size := int.from_bytes(received[:3])):
            if received[3] == HEADERS and received[4] & END_STREAM:
                streams.add(received[5:9])
            received = received[9 + size :]
