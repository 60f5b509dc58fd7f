"""Clients of HTTP/2 that flood a server: each opens one connection, and returns the frames that the server sent."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator

from tests.integration.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    headers,
    received_frames,
)

Address = tuple[str, int]
Frames = list[tuple[int, int, int, bytes]]

BEGIN = PREFACE + frame(SETTINGS, 0, 0)

#: Bytes that are sent at once.
_PIECE = 64 * 1024


def flood(address: Address, pieces: Iterable[bytes], reads: bool = True, wanted: Collection[int] = ()) -> Frames:
    """Send these bytes until the server closes the connection; the frames that it sent.

    ``reads``: answers are read meanwhile, and for a short time after the last piece, or until a frame of a ``wanted``
    kind has come, for ten seconds at most. Otherwise no answer is read.
    """

    def has_come() -> bool:
        return any(kind in wanted for kind, *_ in received_frames(received)[0])

    received = b""
    with (
        contextlib.suppress(ConnectionError, TimeoutError),
        socket.create_connection(address, 10) as connection,
        selectors.DefaultSelector() as selector,
    ):
        selector.register(connection, selectors.EVENT_READ)
        for piece in pieces:
            while reads and selector.select(0):
                received += _read(connection)
            connection.sendall(piece)
        while reads and selector.select(10 if wanted and not has_come() else 0.5):
            received += _read(connection)
    return received_frames(received)[0]


def _read(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionResetError
    return data


def closes(address: Address, raw: bytes) -> bool:
    """Whether a server closes the connection that began with these bytes, within ten seconds of silence."""
    with socket.create_connection(address, 10) as connection:
        try:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True  # it was closed before all was sent
    return True


def rapid_reset(path: str, count: int) -> Iterator[bytes]:
    """So many calls, each cancelled at once."""
    block, cancel = headers(path), struct.pack(">I", 8)
    yield BEGIN
    for first in range(0, count, 100):
        yield b"".join(
            frame(HEADERS, END_HEADERS, stream, block) + frame(RST_STREAM, 0, stream, cancel)
            for stream in range(2 * first + 1, 2 * first + 201, 2)
        )


def repeated(one: bytes, count: int, before: bytes = b"") -> Iterator[bytes]:
    """The same frame so many times."""
    yield BEGIN + before
    at_once = max(1, _PIECE // len(one))
    for _ in range(0, count, at_once):
        yield one * at_once


def pings(count: int) -> Iterator[bytes]:
    return repeated(frame(PING, 0, 0, b"12345678"), count)


def settings(count: int) -> Iterator[bytes]:
    return repeated(frame(SETTINGS, 0, 0), count)


def continuations(path: str, mebibytes: int) -> Iterator[bytes]:
    """The headers of a call that never end."""
    more = frame(CONTINUATION, 0, 1, headers("", [("x", "a" * 100)] * 100))
    return repeated(more, mebibytes * 2**20 // len(more), frame(HEADERS, 0, 1, headers(path)))


def empty_data(path: str, count: int) -> Iterator[bytes]:
    """A call whose message comes in frames without a byte."""
    return repeated(frame(DATA, 0, 1), count, frame(HEADERS, END_HEADERS, 1, headers(path)))


def announced(path: str, size: int) -> Iterator[bytes]:
    """A call whose message is said to have so many bytes, of which a few come."""
    yield BEGIN + frame(HEADERS, END_HEADERS, 1, headers(path))
    yield frame(DATA, 0, 1, b"\0" + struct.pack(">I", size) + b"a" * 100)


def gzip_bomb(mebibytes: int) -> bytes:
    """A compressed message of zeros: as many as that when unpacked, a thousandth of it as sent."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(mebibytes)) + packer.flush()


def compressed_call(address: Address, path: str, packed: bytes) -> tuple[int, Frames]:
    """Make a call with one compressed message, as fast as the server's windows allow.

    The number of bytes of the message that could be sent, and the frames that the server sent until the call's end.
    """
    message = b"\1" + struct.pack(">I", len(packed)) + packed
    initial, sent, more, came, received = 65_535, 0, {0: 0, 1: 0}, list[tuple[int, int, int, bytes]](), b""
    with contextlib.suppress(ConnectionError), socket.create_connection(address, 10) as connection:
        connection.sendall(BEGIN + frame(HEADERS, END_HEADERS, 1, headers(path, [("grpc-encoding", "gzip")])))
        while not any(
            kind in (RST_STREAM, GOAWAY) or (kind, flags & END_STREAM) == (HEADERS, 1) for kind, flags, *_ in came
        ):
            frames, received = received_frames(received + _read(connection))
            came += frames
            for kind, flags, stream, payload in frames:
                if kind == SETTINGS and not flags:
                    initial = dict(struct.iter_unpack(">HI", payload)).get(INITIAL_WINDOW_SIZE, initial)
                    connection.sendall(frame(SETTINGS, ACK, 0))
                elif kind == WINDOW_UPDATE:
                    more[stream] += int.from_bytes(payload)
            while sent < len(message) and sent < (allowed := min(65_535 + more[0], initial + more[1])):
                piece = message[sent : min(allowed, sent + 16_384)]
                sent += len(piece)
                connection.sendall(frame(DATA, END_STREAM if sent == len(message) else 0, 1, piece))
    return sent, came
