"""Requests whose end two programs could read differently, over a real socket.

A proxy in front must not be misled about where a request ends. So every form of a start in which that is in doubt is
refused, its connection is closed, and the request hidden behind it is never read.
"""

from __future__ import annotations

import json
import re

from scheduler.api import connection
from tests.integration.test_http_hostile import SUBMISSION, HostileCase, Wire

START = b'{"worker_id": "w1", "command": "true"}'
LENGTH = b"Content-Length: %d" % len(START)
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(START), START)

#: A request that is hidden behind another.
HIDDEN = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (
    len(json.dumps(SUBMISSION)),
    json.dumps(SUBMISSION).encode(),
)


def start(headers: bytes, body: bytes = START, line: bytes = b"POST /start HTTP/1.1") -> bytes:
    """A start with these lines among its headers."""
    return b"%s\r\nHost: localhost\r\n%s\r\n\r\n%s" % (line, headers, body)


def chunks(size: bytes) -> bytes:
    """A body of one chunk whose size is written so; ``%x`` in it is the right number."""
    return size.replace(b"%x", b"%x" % len(START)) + b"\r\n" + START + b"\r\n0\r\n\r\n"


#: Forms that the parser refuses.
REFUSED = {
    "length and chunks": start(LENGTH + b"\r\n" + CHUNKED, CHUNKS),
    "chunks and length": start(CHUNKED + b"\r\n" + LENGTH, CHUNKS),
    "two lengths": start(LENGTH + b"\r\nContent-Length: 0"),
    "two equal lengths": start(LENGTH + b"\r\n" + LENGTH),
    "a list of equal lengths": start(LENGTH + b", %d" % len(START)),
    "no length": start(b"Content-Length:"),
    **{
        f"length {form!r}": start(b"Content-Length: " + form)
        for form in (b"+38", b"-38", b"0x26", b"3_8", b"38.0", b"3e1", b"38;", b"3 8", b"\xd9\xa3\xd9\xa8", b"\xb3\xb8")
    },
    **{
        f"coding {form!r}": start(b"Transfer-Encoding: " + form, CHUNKS)
        for form in (
            b"",
            b"gzip",
            b"gzip, chunked",
            b"chunked, identity",
            b"chunked,",
            b"\x0bchunked",
            b"xchunked",
            b'"chunked"',
        )
    },
    "chunked twice": start(CHUNKED + b"\r\n" + CHUNKED, CHUNKS),
    "space before the colon of a length": start(LENGTH.replace(b":", b" :")),
    "tab before the colon of a coding": start(CHUNKED.replace(b":", b"\t:"), CHUNKS),
    "space in a name": start(b"X A: b\r\n" + LENGTH),
    "no name": start(b": b\r\n" + LENGTH),
    "no colon": start(b"X\r\n" + LENGTH),
    "bare LF": start(LENGTH).replace(b"\r\n", b"\n"),
    "bare LF after a header": start(b"X: a\n" + LENGTH),
    "bare CR after a header": start(b"X: a\r" + LENGTH),
    "NUL in a value": start(b"X: a\0b\r\n" + LENGTH),
    "NUL in a name": start(b"X\0: a\r\n" + LENGTH),
    "a folded first line": start(LENGTH, line=b"POST /start HTTP/1.1\r\n X: a"),
    **{
        f"chunk {size!r}": start(CHUNKED, chunks(size))
        for size in (
            b"-%x",
            b"+%x",
            b"0x%x",
            b" %x",
            b"%x ",
            b"",
            b"x",
            b"%x_",
            b"%x;a\nb",
            b"%x;" + b"a" * 5000,
            b"%x\n",
        )
    },
    "a chunk that is longer than its size": start(CHUNKED, CHUNKS.replace(b"}\r\n", b"}x\r\n")),
    "chunks with bare LF": start(CHUNKED, CHUNKS.replace(b"\r\n", b"\n")),
    "a line in place of a request": b"x\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    **{
        f"line {line!r}": start(LENGTH, line=line)
        for line in (
            *(b"POST /start HTTP/0.9", b"POST /start HTTP/2.0", b"POST /start HTTP/1.2", b"POST /start http/1.1"),
            *(b"POST  /start HTTP/1.1", b"POST\t/start\tHTTP/1.1", b"POST /start x HTTP/1.1", b"POST /start HTTP/1.1 "),
            *(
                b"POST /start\0 HTTP/1.1",
                b"P\xffST /start HTTP/1.1",
                b"POST /start\xff HTTP/1.1",
                b"\r\n\r\nPOST /start HTTP/1.1",
            ),
        )
    },
    "a long header": start(b"X: " + b"a" * 17_000 + b"\r\n" + LENGTH),
    "many long headers": start((b"X: " + b"a" * 1000 + b"\r\n") * 60 + LENGTH),
    "a thousand headers": start(b"X: a\r\n" * 1000 + LENGTH),
    "a long line": start(LENGTH, line=b"POST /start?" + b"a" * 17_000 + b" HTTP/1.1"),
}

#: Forms that are refused with a problem document.
FORBIDDEN = {
    "identity": start(b"Transfer-Encoding: identity\r\n" + LENGTH),
    "identity and chunked": start(b"Transfer-Encoding: identity\r\n" + CHUNKED, CHUNKS),
    "identity without a length": start(b"Transfer-Encoding: Identity", b""),
    "a second host": start(b"Host: evil\r\n" + LENGTH),
    "the same host again": start(b"Host: localhost\r\n" + LENGTH),
    "a folded host": start(b" evil\r\n" + LENGTH),
    "a target with a host": start(LENGTH, line=b"POST http://localhost/start HTTP/1.1"),
    "a target with another host": start(LENGTH, line=b"POST http://evil/start HTTP/1.1"),
    "a target without a path": start(LENGTH, line=b"POST localhost:80 HTTP/1.1"),
    "an asterisk": start(LENGTH, line=b"OPTIONS * HTTP/1.1"),
    "CONNECT": start(LENGTH, line=b"CONNECT localhost:80 HTTP/1.1"),
    "a method in lower case": start(LENGTH, line=b"post /start HTTP/1.1"),
}

#: Forms with one meaning only, in which a start succeeds and the next request is read.
ALLOWED = {
    "length": start(LENGTH),
    "chunks": start(CHUNKED, CHUNKS),
    "chunked in capitals, behind a tab": start(b"TRANSFER-ENCODING:\tCHUNKED", CHUNKS),
    "zeros before a length": start(b"Content-Length: 00%d" % len(START)),
    "zeros before a chunk's size": start(CHUNKED, chunks(b"00%x")),
    "a chunk's extension": start(CHUNKED, chunks(b"%x;a=b")),
    "trailers, which are ignored": start(CHUNKED, CHUNKS[:-2] + b"Host: evil\r\nContent-Length: 5\r\n\r\n"),
    "a folded header, which is one line (RFC 9112, 5.2)": start(b"X: a\r\n Content-Length: 5\r\n" + LENGTH),
    "a folded length": start(LENGTH.replace(b": ", b":\r\n ")),
    "headers just below the limits": start(b"X: a\r\n" * 400 + b"X: " + b"a" * 10_000 + b"\r\n" + LENGTH),
    "an empty line first": b"\r\n" + start(LENGTH),
}


def statuses(received: bytes) -> list[int]:
    """The statuses of all answers."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", received)]


class SmugglingTests(HostileCase):
    """Each form with a request hidden behind it."""

    def submissions(self) -> int:
        """The number of jobs that were submitted since the last call."""
        found = [call for call in self.scheduler.calls if call[0] == "submit"]
        self.scheduler.calls.clear()
        return len(found)

    async def test_refused(self) -> None:
        """The answer is at most one 400, the connection is closed, and neither request is carried out."""
        for name, raw in REFUSED.items():
            received = await self.send(raw + HIDDEN)
            self.assertIn(statuses(received), ([], [400]), name)
            self.assertEqual(self.submissions(), 0, name)

    async def test_refused_in_pieces(self) -> None:
        """The same holds if the form arrives in pieces, and the hidden request after it."""
        for name in ("length and chunks", "coding b'gzip, chunked'", "chunk b'+%x'", "NUL in a value", "no name"):
            raw = REFUSED[name]
            wire = await self.connect()
            for at in range(0, len(raw), 7):
                wire.transport.write(raw[at : at + 7])
            await wire.until(lambda wire=wire: wire.closed or bool(wire.received))
            wire.transport.write(HIDDEN)
            await wire.end()
            self.assertIn(statuses(wire.received), ([], [400]), name)
            self.assertEqual(self.submissions(), 0, name)

    async def test_forbidden(self) -> None:
        """The answer is a problem document, neither request is carried out, and the connection is closed."""
        for name, raw in FORBIDDEN.items():
            received = await self.send(raw + HIDDEN)
            self.assertEqual(statuses(received), [400], (name, received))
            self.assertIn(b"application/problem+json", received, name)
            self.assertEqual(self.submissions(), 0, name)

    async def test_allowed(self) -> None:
        """A form without doubt is carried out, and so is the request behind it, which is not hidden."""
        for name, raw in ALLOWED.items():
            received = await self.send(raw + HIDDEN)
            self.assertEqual(statuses(received), [201, 201], (name, received))
            self.assertEqual(self.submissions(), 2, name)

    async def test_endless_chunk(self) -> None:
        """A chunk that is said to be larger than any body is refused when the limit is passed, not before its end."""
        wire = await self.connect()
        wire.transport.write(start(CHUNKED, b"f" * 16 + b"\r\n") + b" " * 1_100_000)
        await wire.problem()
        self.assertEqual(statuses(wire.received), [413])
        wire.transport.loseConnection()
        await wire.end()
        self.assertEqual(self.submissions(), 0)


class PipeliningTests(HostileCase):
    """Several requests on one connection, sent at once."""

    async def test_in_order(self) -> None:
        """Answers come in the order of the requests, even if the first has to wait."""
        job = self.job.id
        wire = await self.connect()
        requests = [f"/v1/jobs/{job}?wait=300", "/healthz", "/nowhere", "/v1/jobs?limit=0", "/v1/workers/w1"]
        for target in requests:
            wire.transport.write(
                f"GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {len(target)}\r\n\r\n".encode()
            )
        await self.eventually(lambda: bool(self.scheduler.calls), "the first request waits")
        self.assertEqual(wire.received, b"")
        self.fleet.end(job)
        await wire.until(lambda: len(statuses(wire.received)) == len(requests))
        self.assertEqual(statuses(wire.received), [200, 200, 404, 400, 200])
        ids = re.findall(rb"(?i)x-request-id: ([0-9]+)\r", wire.received)
        self.assertEqual(ids, [b"%d" % len(target) for target in requests])
        wire.transport.loseConnection()
        await wire.end()

    async def test_none_after_a_refusal(self) -> None:
        """Requests behind one that the parser refuses are not read; those before it are answered."""
        good = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        received = await self.send(good + good + REFUSED["two equal lengths"] + good + HIDDEN)
        self.assertEqual(statuses(received), [200, 200, 400])
        self.assertEqual([call for call in self.scheduler.calls if call[0] == "submit"], [])

    async def test_none_after_close(self) -> None:
        """Requests behind one with ``Connection: close`` are not read."""
        received = await self.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" + HIDDEN)
        self.assertEqual(statuses(received), [200])
        received = await self.send(
            b"GET /healthz HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n" + HIDDEN
        )
        self.assertEqual(statuses(received), [200])
        self.assertEqual([call for call in self.scheduler.calls if call[0] == "submit"], [])

    async def test_many(self) -> None:
        """A thousand requests at once are answered one after the other."""
        wire: Wire = await self.connect()
        wire.transport.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        await wire.until(lambda: len(statuses(wire.received)) == 1000)
        self.assertEqual(set(statuses(wire.received)), {200})
        wire.transport.loseConnection()
        await wire.end()


class SlowTests(HostileCase):
    """Clients that send slowly, beside others."""

    async def test_many_slow(self) -> None:
        """Two hundred requests whose headers or bodies do not end keep no other from being answered, and are cut."""
        self.patch(connection, "HEADERS_DEADLINE_SECONDS", 3.0)
        self.patch(connection, "BODY_DEADLINE_SECONDS", 3.0)
        slow = [await self.connect() for _ in range(200)]
        for number, wire in enumerate(slow):
            wire.transport.write(start(LENGTH, b"{") if number % 2 else b"GET /healthz HTTP/1.1\r\nHost: local")
        for _ in range(20):
            self.assertEqual((await self.ask("GET", "/healthz")).status, 200)
        for wire in slow:
            await wire.end()
            self.assertEqual(wire.received, b"")
        self.assertEqual((await self.ask("GET", "/healthz")).status, 200)
