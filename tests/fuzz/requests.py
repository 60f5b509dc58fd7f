"""HTTP requests: each begins as a request that some route takes, and is made odd in a few ways."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any
from urllib.parse import quote

from attrs import define

from scheduler.api.routes import ROUTES, SUBMISSIONS, Route
from tests.fuzz import values

#: Values of fields and parameters that are right, so that a request passes the first checks.
RIGHT: Mapping[str, Sequence[Any]] = {
    "worker": ("w1", "w1", "nobody"),
    "worker_id": ("w1",),
    "command": values.COMMANDS,
    "script": ("#!/bin/sh\ntrue\n", "#!/no/such\n", "true"),
    "shell": ("true", "echo a; exit 3"),
    "args": ([], ["a"], ["-x", ""]),
    "path": ("", "a", "."),
    "env": ({}, {"A": "b"}, {"LD_PRELOAD": "/no/such"}),
    "cwd": ("", "/", "/no/such"),
    "stdin": ("", "a\n"),
    "stdin_base64": ("AA==", "*"),
    "labels": ({}, {"a": "b"}),
    "selector": ({}, {"name": "w1"}, {"zone": "a"}),
    "timeout": (1, "2s", None),
    "linger": (0, "0s"),
    "stop_grace": (0, "1s"),
    "signal": ("SIGTERM", "usr1", "SIGKILL"),
    "to": ("main", "tree"),
    "queue_timeout": (0, 0.1),
    "priority": (0, -5),
    "retry": ({"attempts": 2}, {"attempts": 2, "delay": 0}),
    "state": ("running", "queued,running", "succeeded"),
    "limit": ("1", "1000"),
    "stream": ("stdout", "stderr"),
    "offset": ("0", "1"),
    "tail": ("1",),
    "follow": ("1", "0"),
    "wait": ("0", "0.1"),
    "check": ("1",),
    "output": ("", "100"),
}

HEADERS: Sequence[tuple[str, Sequence[str]]] = (
    ("Host", ("evil", "localhost:1:2", "", "127.0.0.1@evil", "[::1]", "localhost\t", "é")),
    (
        "Authorization",
        ("Bearer", "Bearer x", "Bearer sched_a_b_c", "Basic YTpi", "bearer \x80", "Bearer " + "a" * 9000),
    ),
    ("Forwarded", ("for=127.0.0.1", 'for="[::1]"', "by=;;", "for=unix:")),
    ("X-Forwarded-For", ("127.0.0.1", "::1, 10.0.0.1", "x" * 500)),
    ("Via", ("1.1 a", "")),
    ("Origin", ("http://evil", "null", "http://127.0.0.1", "")),
    ("Sec-Fetch-Site", ("cross-site", "same-origin", "x")),
    (
        "Content-Type",
        ("text/plain", "application/json; charset=utf-16", "application/json;;", "multipart/form-data", ";"),
    ),
    ("Content-Encoding", ("gzip", "")),
    ("Content-Length", ("0", "1", "-1", "+1", "0x1", "1 1", "9" * 30, "1,1", "")),
    ("Transfer-Encoding", ("chunked", "identity", "gzip, chunked", "chunked, chunked", "\x0bchunked", "x")),
    ("Expect", ("100-continue", "x")),
    ("Accept", ("text/event-stream", "text/event-stream;q=2", "*/*;q=nan", ",,,", "application/json;q=" + "9" * 300)),
    ("Range", ("bytes=0-", "bytes=-1", "bytes=5-1", "bytes=0-0,2-3", "bytes=" + "9" * 50 + "-", "lines=0-1")),
    ("Last-Event-ID", ("0,0", "0,0,end", "-1,0", "9" * 40 + ",0", "x", "0,0,0,0")),
    ("Idempotency-Key", ("a", "", "é", "a" * 300, "b")),
    ("X-Request-ID", ("a", "a b", "{0}", "é" * 100)),
    ("Connection", ("keep-alive", "upgrade", "Content-Length", "close, close")),
    ("Upgrade", ("h2c", "websocket")),
    ("Cookie", ("a=b; " * 500,)),
    ("If-None-Match", ("*", '"x"')),
    ("X-HTTP-Method-Override", ("DELETE",)),
)

METHODS = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "get",
    "G\0T",
    "É",
    "A" * 300,
)


#: Submissions are as frequent as all else that has a body.
_WEIGHED = (*ROUTES, *(route for route in ROUTES for _ in range(4) if (route.method, route.path) in SUBMISSIONS))


@define
class Draft:
    """A request before it is made bytes."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes
    version: str = "HTTP/1.1"

    def raw(self) -> bytes:
        """The bytes of the request; lengths are right unless a header says otherwise."""
        target = self.path + (f"?{self.query}" if self.query else "")
        lines = [f"{self.method} {target} {self.version}", *(f"{name}: {value}" for name, value in self.headers)]
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogatepass") + self.body


def request(rng: Random, ids: Mapping[str, Sequence[str]]) -> bytes:
    """A request; ``ids`` are real ones for the names in paths."""
    draft = _draft(rng, rng.choice(_WEIGHED), ids)
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3))):
        rng.choice(ODDITIES)(rng, draft)
    raw = draft.raw()
    if rng.random() < 0.1:
        raw = values.mutated(rng, raw)
    if rng.random() < 0.05:
        raw += _draft(rng, rng.choice(ROUTES), ids).raw()
    return raw


def _draft(rng: Random, route: Route, ids: Mapping[str, Sequence[str]]) -> Draft:
    def part(match: re.Match[str]) -> str:
        known = ids.get(match[1], ())
        if known and rng.random() < 0.8:
            return rng.choice(known)
        return quote(values.text(rng)[:300], safe=rng.choice(("", "/", "%/")), errors="replace")

    names = [name for name in route.query if rng.random() < 0.2]
    query = "&".join(f"{name}={quote(str(_value(rng, name)), errors='replace')}" for name in names)
    headers = [("Host", "127.0.0.1"), ("Connection", "close")]
    body = b""
    if route.body is not None:
        body = values.encoded(rng, _fields(rng, route.body.names, ids))
        headers.append(("Content-Type", "application/json"))
        if rng.random() < 0.9:
            headers.append(("Content-Length", str(len(body))))
        else:
            headers.append(("Transfer-Encoding", "chunked"))
            body = _chunked(rng, body)
    return Draft(route.method, re.sub("<(.*?)>", part, route.path), query, headers, body)


def _value(rng: Random, name: str) -> Any:
    return rng.choice(RIGHT[name]) if name in RIGHT and rng.random() < 0.95 else values.text(rng)[:2000]


def _fields(rng: Random, names: Sequence[str], ids: Mapping[str, Sequence[str]]) -> Any:
    """A document with some of these names: mostly right values, a few odd ones."""
    if rng.random() < 0.03:
        return values.document(rng)
    chosen = {"worker_id", "job_id", "worker", "command", "signal"} & set(names)
    chosen |= {name for name in names if rng.random() < 0.15}
    if rng.random() < 0.7:
        for less, more in (("script", "command"), ("shell", "command"), ("selector", "worker")):
            chosen -= {less if rng.random() < 0.7 else more}
    odd = rng.random()
    found = {
        name: values.document(rng) if rng.random() < 0.15 and odd < 0.3 else _value(rng, name)
        for name in sorted(chosen)
    }
    if "job_id" in found and rng.random() < 0.7:
        found["job_id"] = rng.choice(ids["job_id"])
    if "command" in found and not isinstance(found["command"], str):
        found["command"] = rng.choice(values.COMMANDS)
    if "shell" in found and found["shell"] not in RIGHT["shell"]:
        found["shell"] = rng.choice(RIGHT["shell"])
    return found


def _chunked(rng: Random, body: bytes) -> bytes:
    cut = rng.randrange(len(body) + 1)
    pieces = [piece for piece in (body[:cut], body[cut:]) if piece]
    size = rng.choice(("{:x}", "{:X}", "{:04x}", "{:x};a=b", "{:x};" + "a" * 2000, "0x{:x}", "+{:x}", "-{:x}", " {:x}"))
    good = rng.random() < 0.8
    chunks = b"".join(
        (("{:x}" if good else size).format(len(piece))).encode() + b"\r\n" + piece + b"\r\n" for piece in pieces
    )
    return chunks + rng.choice((b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"00\r\n\r\n", b"0\n\n", b""))


def _odd_method(rng: Random, draft: Draft) -> None:
    draft.method = rng.choice(METHODS)


def _odd_path(rng: Random, draft: Draft) -> None:
    odd = values.text(rng)[:5000]
    draft.path = rng.choice(
        (
            quote(odd, errors="replace"),
            draft.path + quote(odd, errors="replace"),
            draft.path + "/" + quote(odd, safe="%", errors="replace"),
            draft.path.replace("/", rng.choice(("//", "/./", "/../", "%2f", "\\", "/;a=b/"))),
            f"http://127.0.0.1{draft.path}",
            f"//evil{draft.path}",
            draft.path.upper(),
            "*",
            "",
            odd,
        )
    )


def _odd_query(rng: Random, draft: Draft) -> None:
    odd = values.text(rng)[:3000]
    name = rng.choice(("limit", "label", "state", "wait", "cursor", "worker", "offset", "follow", "", odd))
    more = rng.choice(
        ("", "=", f"={quote(odd, errors='replace')}", f"={odd}", "=%ff", f"={rng.choice(values.NUMBERS)}"[:300])
    )
    draft.query += f"&{quote(name, errors='replace')}{more}" * rng.choice((1, 1, 2, 300))


def _odd_header(rng: Random, draft: Draft) -> None:
    name, some = rng.choice(HEADERS)
    value = rng.choice(some) if rng.random() < 0.9 else values.text(rng)[:2000].replace("\n", "")
    if rng.random() < 0.5:
        draft.headers = [each for each in draft.headers if each[0] != name]
    draft.headers.insert(rng.randrange(len(draft.headers) + 1), (name, value))


def _odd_name(rng: Random, draft: Draft) -> None:
    name, value = rng.choice(draft.headers) if draft.headers else ("A", "b")
    odd = rng.choice(
        (f"{name} ", f" {name}", f"\t{name}", name.lower(), f"{name}\0", f"{name}\x0b", f"X\r\n {name}", "", "é")
    )
    draft.headers.append((odd, value))


def _many_headers(rng: Random, draft: Draft) -> None:
    draft.headers += [(f"X-{number}", "a" * rng.choice((1, 100))) for number in range(rng.choice((50, 400, 1000)))]


def _long_header(rng: Random, draft: Draft) -> None:
    draft.headers.append(("X-Long", "a" * rng.choice((8_000, 16_000, 17_000, 100_000))))


def _odd_body(rng: Random, draft: Draft) -> None:
    draft.body = rng.choice(
        (
            b"",
            b"\0" * 1000,
            b"{}",
            b"[]",
            b"null",
            b"\xff" * 100,
            b" " * 1_100_000,
            json.dumps(values.document(rng)).encode(),
        )
    )
    if rng.random() < 0.7:
        draft.headers = [each for each in draft.headers if each[0] not in ("Content-Length", "Transfer-Encoding")]
        draft.headers.append(("Content-Length", str(len(draft.body))))


def _odd_version(rng: Random, draft: Draft) -> None:
    draft.version = rng.choice(
        ("HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.2", "http/1.1", "HTTP/1.1 ", "HTTP/1.1.1", "", "x")
    )


#: As often as they are named; those that the parser refuses are seldom.
ODDITIES: tuple[Callable[[Random, Draft], None], ...] = (
    *(_odd_method, _odd_path, _odd_path, _odd_query, _odd_query, _odd_query, _odd_query, _odd_header, _odd_header),
    *(_odd_header, _odd_header, _odd_name, _many_headers, _long_header, _odd_body, _odd_body, _odd_version),
)
