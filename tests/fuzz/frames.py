"""HTTP/2 connections whose frames are odd: of any kind, length and order, or no frames at all."""

from __future__ import annotations

import struct
from random import Random

from tests.fuzz import values
from tests.integration.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    headers,
)

PATHS = (
    *("/jobscheduler.Scheduler/RegisterWorker", "/jobscheduler.Worker/QueryJob", "/jobscheduler.Worker/StreamJob"),
    *(
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/",
        "",
        "x",
        "/a/b",
        "//",
        "/jobscheduler.Worker/",
    ),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)


def conversation(rng: Random) -> bytes:
    """The bytes of a connection's client."""
    kind = rng.random()
    if kind < 0.1:
        return rng.randbytes(rng.choice((1, 9, 24, 100, 5000)))
    if kind < 0.15:
        return b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n"
    if kind < 0.2:
        return b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(500)
    frames = b"".join(_frame(rng) for _ in range(rng.choice((1, 3, 10, 40))))
    raw = PREFACE + frame(SETTINGS, 0, 0, _settings(rng)) + frames
    return values.mutated(rng, raw) if kind < 0.5 else raw


def _settings(rng: Random) -> bytes:
    numbers = (0, 1, 16_383, 16_384, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
    return b"".join(struct.pack(">HI", rng.randrange(8), rng.choice(numbers)) for _ in range(rng.randrange(4)))


def _stream(rng: Random) -> int:
    return rng.choice((0, 1, 1, 1, 2, 3, 5, 7, 2**31 - 1, rng.randrange(1, 200)))


def _frame(rng: Random) -> bytes:
    stream = _stream(rng)
    content = rng.choice((b"", b"\n\x01a", b"\xff", rng.randbytes(50)))
    size = rng.choice((len(content), len(content), 0, 1, 2**32 - 1, 5_000_000))
    message = bytes([rng.choice((0, 0, 0, 1, 2, 255))]) + struct.pack(">I", size) + content
    block = headers(
        rng.choice(PATHS), [(rng.choice(("a", "grpc-timeout", "grpc-encoding", "te")), rng.choice(_VALUES))]
    )
    flags = rng.choice((0, END_STREAM, END_HEADERS, END_STREAM | END_HEADERS, 0x08, 0x20, 0xFF))
    return rng.choice(
        (
            frame(HEADERS, END_HEADERS, stream, block),
            frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, message),
            frame(HEADERS, flags, stream, rng.randbytes(rng.randrange(60))),
            frame(CONTINUATION, flags, stream, block),
            frame(DATA, flags, stream, message),
            frame(RST_STREAM, 0, stream, struct.pack(">I", rng.choice((0, 8, 2**32 - 1)))),
            frame(SETTINGS, rng.choice((0, 0, 1)), rng.choice((0, stream)), _settings(rng)),
            frame(PING, rng.choice((0, 1)), rng.choice((0, stream)), rng.randbytes(rng.choice((8, 8, 7)))),
            frame(GOAWAY, 0, 0, struct.pack(">II", stream, 0) + b"a" * rng.randrange(50)),
            frame(
                WINDOW_UPDATE, 0, rng.choice((0, stream)), struct.pack(">I", rng.choice((0, 1, 2**31 - 1, 2**32 - 1)))
            ),
            frame(rng.randrange(256), rng.randrange(256), stream, rng.randbytes(rng.randrange(100))),
        )
    )


_VALUES = ("", "1S", "99999999H", "-1S", "0n", "gzip", "deflate", "x", "identity", "a" * 100, "\x00", "\x7f")
