"""Hostile values: texts, numbers, JSON documents, names and addresses. Commands are harmless: they really run."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

#: Commands that a case may start. None of them changes anything, whatever its arguments are.
COMMANDS = ("true", "false", "echo", "/bin/true", "no-such-command", "/", "/dev/null", "./true", "../true", "")

TEXTS = (
    *("", " ", "a", "0", "-1", "null", "true", "\0", "a\0b", "\n", "a\nb", "\r\n", "\t", "\x1b[2J", "\x7f", "\x85"),
    *("\ud800", "\udfff", "\u2028", "\ufeff", "\u202e", "\U0010ffff", "é", "e\u0301", "ﬀ", "İ", "\uffff"),
    *("..", "../..", "../../etc/passwd", "/etc/passwd", "/", "//", ".", "~", "%00", "%2f", "%2e%2e", "%", "%zz"),
    *(
        "{log_source.__class__}",
        "{0}",
        "%s%n",
        "$(id)",
        "`id`",
        "'; --",
        '" OR 1=1',
        "<script>",
        "&amp;",
        "\\",
        "\\u0000",
    ),
    *("a" * 64, "a" * 65, "a" * 253, "a" * 254, "a" * 4096, "a" * 70_000, "é" * 2048, "\0" * 100),
    *("SCHEDULER_JOB_ID", "NOTIFY_SOCKET", "LD_PRELOAD", "PATH", "A=B", "1A", "name", "id", "__proto__"),
    *(
        "2026-01-01T00:00:00Z",
        "0000-00-00T00:00:00Z",
        "9999-12-31T23:59:60Z",
        "1h",
        "-1s",
        "1e308s",
        "NaN",
        "inf",
        "1e999",
    ),
    *("9" * 40, "0x10", "1_000", "\u0661", "1.5", "+1", "1,2", "1;2", "a=b", "a=b,c=d", "=", "==", "a=", "=b"),
)

NUMBERS = (
    *(0, 1, -1, 2, 10, 63, 64, 255, 1000, 1001, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53, 2**63 - 1, 2**63, -(2**63)),
    *(2**64, 10**30, 10**400, 0.1, -0.0, 1e-320, 1e308, 1.5, 253402300799, 253402300800),
)

#: Addresses: those that gRPC would read as more than a host and a port, and those that are none.
HOSTS = (
    *("127.0.0.1:1", "localhost:1", "[::1]:1", "0.0.0.0:1", "[::]:1", "127.1:1", "2130706433:1", "0x7f000001:1"),
    *("unix:/tmp/x", "unix:/tmp/x:1", "unix:///tmp/x", "unix-abstract:x:1", "dns:///localhost:1", "dns:localhost:1"),
    *(
        "ipv4:127.0.0.1:1",
        "ipv4:127.0.0.1:1,127.0.0.2:2",
        "ipv6:[::1]:1",
        "vsock:1:1",
        "xds:///x:1",
        "passthrough:///x:1",
    ),
    *("127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1", ":1", "127.0.0.1:", "[::1", "[fe80::1%lo]:1"),
    *("[fe80::1%25lo]:1", "[::ffff:127.0.0.1]:1", "169.254.169.254:80", "10.0.0.1:1", "a b:1", "user@localhost:1"),
    *("http://localhost:1", "localhost:1/x", "localhost:1?x", "xn--:1", "é:1", "." * 250 + ":1", "a." * 120 + "a:1"),
)

ENV_NAMES = (
    "A",
    "_",
    "",
    "1A",
    "A=B",
    "A B",
    "A\0",
    "é",
    "LD_PRELOAD",
    "PATH",
    "HOME",
    "IFS",
    "BASH_ENV",
    "SCHEDULER_X",
)


def text(rng: Random) -> str:
    """A text: one of the list, two of them, or random characters."""
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(TEXTS)
    if kind < 0.75:
        return rng.choice(TEXTS)[:100] + rng.choice(TEXTS)[:100]
    ranges = ((0, 0x20), (0x20, 0x7F), (0x80, 0x2FF), (0xD800, 0xE000), (0xE000, 0x110000))
    low, high = rng.choice(ranges)
    return "".join(chr(rng.randrange(low, high)) for _ in range(rng.randrange(40)))


def encodable(rng: Random) -> str:
    """A text without half of a surrogate pair."""
    return text(rng).encode("utf-8", "replace").decode()


def number(rng: Random) -> float:
    """An integer or a float."""
    return rng.choice(NUMBERS) if rng.random() < 0.8 else rng.uniform(-1e3, 1e3)


def document(rng: Random, depth: int = 3) -> Any:
    """Any JSON value."""
    makers: list[Callable[[], Any]] = [
        lambda: None,
        lambda: rng.random() < 0.5,
        lambda: number(rng),
        lambda: text(rng),
        lambda: rng.choice(HOSTS),
        lambda: [document(rng, depth - 1) for _ in range(rng.randrange(4))],
        lambda: {text(rng): document(rng, depth - 1) for _ in range(rng.randrange(4))},
    ]
    return rng.choice(makers if depth else makers[:5])()


def encoded(rng: Random, value: Any) -> bytes:
    """The JSON of a value, which may be a little wrong."""
    kind = rng.random()
    if kind < 0.8:
        return json.dumps(value).encode()
    if kind < 0.85:
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if kind < 0.9:
        depth = rng.choice((10, 500, 5_000, 100_000))
        opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
        return opening * depth + b"1" + closing * depth
    if kind < 0.93:
        return json.dumps(value).encode(rng.choice(("utf-16", "utf-32", "utf-8-sig")))
    return mutated(rng, json.dumps(value).encode())


def mutated(rng: Random, data: bytes) -> bytes:
    """The bytes with a few changes."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 2, 8, 64)))
        some = bytes(rng.randrange(256) for _ in range(rng.choice((1, 1, 2, 8))))
        odd = rng.choice((b"\0", b"\r", b"\n", b"\r\n", b"\xff", b" ", b":", b"\t", b'"', b"%", b"\x80", some))
        data = rng.choice(
            (
                data[:at] + odd + data[at:],
                data[:at] + odd + data[end:],
                data[:at] + data[end:],
                data[:end] + data[at:end] + data[end:],
                data[:at],
            )
        )
    return data
