"""A server of HTTP/2 by hand, ruder than any library's."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from tests.integration.http2 import ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, literal


def headers(stream: int, flags: int, **fields: str) -> bytes:
    """A frame of these; ``_`` in a name stands for ``-``, and ``status`` is that of HTTP."""
    names = {name: ":status" if name == "status" else name.replace("_", "-") for name in fields}
    block = b"".join(literal(names[name], value) for name, value in fields.items())
    return frame(HEADERS, END_HEADERS | flags, stream, block)


def message(content: bytes, compressed: bool = False) -> bytes:
    """As gRPC frames one."""
    return struct.pack(">?I", compressed, len(content)) + content


def answer_thd(connection: socket.socket, answer: Callable[[int], bytes]) -> None:
    """Answer each call of a connection, which may be closed by that; ``answer`` is given the number of its stream."""
    received = b""

    def read(size: int) -> bytes:
        nonlocal received
        while len(received) < size:
            more = connection.recv(65536)
            if not more:
                raise ConnectionError
            received += more
        taken, received = received[:size], received[size:]
        return taken

    connection.sendall(frame(SETTINGS, 0, 0))
    read(len(PREFACE))
    while True:
        size, kind, flags, stream = struct.unpack(">IBBI", b"\0" + read(9))
        read(size)
        if kind == SETTINGS and not flags & ACK:
            connection.sendall(frame(SETTINGS, ACK, 0))
        if kind == DATA and flags & END_STREAM:
            connection.sendall(answer(stream))
