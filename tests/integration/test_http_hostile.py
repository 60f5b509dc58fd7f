"""Hostile requests over a real socket: paths, queries, hosts, bytes that are not HTTP, and a client that hangs up.

No request may be answered with a 500 or a traceback, or leave a reader, a connection or a descriptor behind.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import ProcessProtocol, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from scheduler.api.server import make_site
from scheduler.model import Job
from tests.doubles.authentication import TRUSTING
from tests.unit.api.conversation import Stage
from tests.unit.api.documents import PATHS, check_problem

SUBMISSION: dict[str, Any] = {"worker": "w1", "command": "true"}


class Wire(Protocol):
    """A connection as bytes."""

    def __init__(self) -> None:
        self.received = b""
        self.closed = False
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        """Fires when the condition holds; it is checked whenever something happens here."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append((condition, waiting))
        self._look()
        return waiting

    def holds(self, size: int) -> Deferred[None]:
        """Fires when more than ``size`` bytes have come."""
        return self.until(lambda: len(self.received) > size)

    def problem(self) -> Deferred[None]:
        """Fires when a problem document has come."""
        return self.until(lambda: b"}" in self.received)

    def end(self) -> Deferred[None]:
        """Fires when the connection is closed."""
        return self.until(lambda: self.closed)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._look()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.closed = True
        self._look()

    def _look(self) -> None:
        for entry in list(self._waiting):
            if entry[0]():
                self._waiting.remove(entry)
                entry[1].callback(None)


class Answer:
    """A complete response and its parts."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}


class HostileCase(TestCase):
    """A server with a worker ``w1`` and a job ``job-1`` that runs."""

    timeout = 60

    def setUp(self) -> None:
        self.scheduler, self.fleet, self.house = Stage(reactor).parts
        self.job: Job = self.fleet.add_job(output=b"0123456789")
        self.site = make_site(self.scheduler, TRUSTING, reactor, lambda: 1_700_000_000.0, ("localhost", "127.0.0.1"))
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.sockets = sockets()

    def is_idle(self) -> bool:
        """Whether nobody follows output or waits for a job."""
        return self.house.parts.outputs.idle and self.house.parts.ledger.idle

    async def tearDown(self) -> None:
        await self.eventually(lambda: not self.site.channels, "all connections are closed")
        self.assertTrue(self.house.parts.outputs.idle)
        await self.house.stop()
        self.assertTrue(self.is_idle())
        self.assertEqual(sockets() - self.sockets, set())
        self.assertEqual(self.flushLoggedErrors(), [])

    async def eventually(self, condition: Callable[[], bool], what: str) -> None:
        for _ in range(1000):
            if condition():
                return
            await deferLater(reactor, 0.01)
        self.fail(f"not in time: {what}")

    async def connect(self) -> Wire:
        return await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port), Wire())

    async def send(self, raw: bytes) -> bytes:
        """Send bytes; the answer until the server closes."""
        wire = await self.connect()
        wire.transport.write(raw)
        await wire.end()
        return wire.received

    async def ask(self, method: str, path: str, body: bytes = b"", host: str = "localhost", head: str = "") -> Answer:
        """Send a request; ``head`` are more header lines, each with its CRLF."""
        raw = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{head}"
        if body:
            raw += f"Content-Length: {len(body)}\r\n"
        return Answer(await self.send(f"{raw}\r\n".encode("latin-1") + body))

    async def submit(self, body: Any, path: str = "/v1/jobs") -> Answer:
        return await self.ask("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())

    def assertProblem(self, answer: Answer, status: int, about: object = None) -> dict[str, Any]:
        self.assertEqual(answer.status, status, (about, answer.raw[:500]))
        self.assertEqual(answer.headers["content-type"], "application/problem+json", about)
        self.assertEqual(answer.headers["cache-control"], "no-store", about)
        self.assertEqual(answer.headers["x-content-type-options"], "nosniff", about)
        self.assertNotIn("access-control-allow-origin", answer.headers, about)
        document: dict[str, Any] = json.loads(answer.body)
        check_problem(document, status)
        self.assertTrue(document["title"])
        self.assertNotIn("Traceback", answer.raw.decode())
        return document


def sockets() -> set[str]:
    """The sockets that this process has open."""
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    return {found for found in (os.readlink(link) for link in links if os.path.lexists(link)) if "socket:" in found}


class RouteTests(HostileCase):
    """Requests that are wrong or go nowhere."""

    async def test_paths(self) -> None:
        """A path that is almost a route is 404, and never another route."""
        for path in (
            *("/", "//", "/v1", "/v2/jobs", "/healthz/", "/healthz/x", "//healthz", "/v1//jobs", "/v1/jobs/", "/START"),
            *("/v1/jobs/job-1/output/", "/v1/jobs/job-1/output/x", "/v1/jobs/job-1%2foutput", "/v1/jobs/..%2f..%2fetc"),
            *("/v1/jobs/job-1%00", "/v1/jobs/job-1%0a", "/v1/jobs/nope", "/v1/jobs/%C3%BC", "/v1/workers/%00"),
            *("/v1/workers/" + "x" * 5000, "/v1/jobs/" + "x" * 5000, "/v1/jobs/job 1".replace(" ", "%20")),
        ):
            self.assertLess(len(self.assertProblem(await self.ask("GET", path), 404, path)["detail"]), 6000)

    async def test_queries(self) -> None:
        """Unknown, repeated and meaningless parameters are 400 and named."""
        for path, name in (
            ("/healthz?x=1", "x"),
            ("/v1/jobs?limit=0", "limit"),
            ("/v1/jobs?limit=1001", "limit"),
            ("/v1/jobs?limit=1e2", "limit"),
            ("/v1/jobs?limit=", "limit"),
            ("/v1/jobs?limit=" + "9" * 5000, "limit"),
            ("/v1/jobs?limit=1&limit=1", "limit"),
            ("/v1/jobs?state=running,dead", "state"),
            ("/v1/jobs?state=", "state"),
            ("/v1/jobs?label=x", "label"),
            ("/v1/jobs?label=a=1&label=a=2", "label"),
            ("/v1/jobs?created_after=yesterday", "created_after"),
            ("/v1/jobs?created_after=2026-13-01T00:00:00Z", "created_after"),
            ("/v1/jobs?created_after=9999-12-31T23:59:60-23:59", "created_after"),
            ("/v1/jobs?finished_before=0001-01-01T00:00:00%2B23:59&finished_before=1h", "finished_before"),
            ("/v1/jobs?created_by=%00", "created_by"),
            ("/v1/jobs?cursor=nonsense", "cursor"),
            ("/v1/jobs/job-1?wait=301", "wait"),
            ("/v1/jobs/job-1?wait=-1", "wait"),
            ("/v1/jobs/job-1?wait=nan", "wait"),
            ("/v1/jobs/job-1/output?stream=stdin", "stream"),
            ("/v1/jobs/job-1/output?offset=-1", "offset"),
            ("/v1/jobs/job-1/output?offset=1,2", "offset"),
            ("/v1/jobs/job-1/output?offset=0x10", "offset"),
            ("/v1/jobs/job-1/output?tail=1&offset=1", "tail"),
            ("/v1/jobs/job-1/output?follow=yes", "follow"),
        ):
            self.assertEqual(self.assertProblem(await self.ask("GET", path), 400, path)["field"], name, path)
        for path in ("/v1/jobs?worker=%ff", "/v1/jobs?%ff=1", "/v1/jobs?%00=1"):
            self.assertProblem(await self.ask("GET", path), 400, path)
        for path in ("/v1/jobs?worker=\xff", "/v1/jobs?\x01=1"):
            self.assertEqual((await self.ask("GET", path)).status, 400, path)
        for path in (
            "/start",
            "/stop",
            "/query",
            "/v1/jobs/job-1/stop",
            "/v1/workers/w1/drain",
            "/v1/workers/w1/resume",
        ):
            self.assertProblem(await self.ask("POST", f"{path}?a=b"), 400, path)
        self.assertProblem(await self.ask("POST", "/v1/jobs/stop"), 400)
        self.assertEqual(self.scheduler.calls[:1] and self.scheduler.calls[0][0], "jobs")  # the cursor is its to refuse

    async def test_hosts(self) -> None:
        """A request has exactly one ``Host``: a name of this server, with any port."""
        for host in ("localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:65535"):
            self.assertEqual((await self.ask("GET", "/healthz", host=host)).status, 200, host)
        for host in (
            *("evil", "localhost.", "localhost.evil", "localhost:1:2", "[::1]", "", "a@localhost", "localhost,evil"),
        ):
            self.assertIn((await self.ask("GET", "/healthz", host=host)).status, (400, 403), host)
        for raw in (
            b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
            b"GET /healthz HTTP/1.0\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nConnection: close\r\n\r\n",
        ):
            self.assertProblem(Answer(await self.send(raw)), 400, raw)

    async def test_two_ranges(self) -> None:
        """Two ``Range`` headers are several ranges, which are ignored."""
        answer = await self.ask("GET", "/v1/jobs/job-1/output", head="Range: bytes=0-1\r\nRange: bytes=3-4\r\n")
        self.assertEqual((answer.status, answer.body), (200, b"0123456789"))

    async def test_no_http(self) -> None:
        """Bytes that are not HTTP are answered with a bare 400, or the connection is closed."""
        for raw in (
            b"\r\n\r\n\r\n",
            b"\0" * 100 + b"\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET /healthz\r\n\r\n",
            b"GET /healthz HTTP/9.9.9\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost localhost\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nA B: c\r\n\r\n",
            b"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
            b"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            b"POST /start HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\nx",
            b"POST /start HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
            b"POST /start HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 100_000 + b"\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"A: a\r\n" * 1000 + b"\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 500 + b"\r\n\r\n",
        ):
            received = await self.send(raw)
            self.assertTrue(not received or received.startswith(b"HTTP/1.1 400"), (raw[:80], received[:80]))
        self.assertEqual(self.scheduler.calls, [])

    async def test_while_streaming(self) -> None:
        """A client that leaves in the middle of a stream that it does not read frees its readers."""
        job = self.fleet.add_job(output=b"x" * 20_000_000, errors=b"y" * 20_000_000)
        for path, head in (
            (f"/v1/jobs/{job.id}/output", ""),
            (f"/v1/jobs/{job.id}/output?follow=1", ""),
            (f"/v1/jobs/{job.id}/output", "Accept: text/event-stream\r\n"),
        ):
            wire = await self.connect()
            wire.transport.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode())
            await wire.holds(1000)
            wire.transport.pauseProducing()
            wire.transport.abortConnection()
            await self.eventually(lambda: not self.site.channels, "noticed")
            self.assertTrue(self.house.parts.outputs.idle)


class _Program(ProcessProtocol):
    def __init__(self) -> None:
        self.out = b""
        self.ended: Deferred[int] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.out += data

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(reason.value.exitCode)


class BodyTests(HostileCase):
    """Bodies that are broken, of another type, or too large."""

    async def test_broken(self) -> None:
        """A body that is no JSON object is 400 on every route with a body."""
        for path in (path for path, methods in PATHS.items() if "POST" in methods):
            for body in (b"{", b"[]", b"null", b"1", b'"a"', b"\xff", b"\0", b"{} {}", b'{"a":NaN}', b"[" * 100_000):
                self.assertProblem(await self.submit(body, path), 400, (path, body[:20]))
            self.assertProblem(await self.submit({"nonsense": 1}, path), 400, path)
        self.assertEqual(self.scheduler.calls, [])

    async def test_nul_and_newline(self) -> None:
        """A NUL or newline in any string is refused or passed on, and never a fault of the server."""
        places: list[Callable[[str], Any]] = [
            *(
                (lambda text, name=name: {name: text})
                for name in ("command", "path", "cwd", "stdin", "script", "worker")
            ),
            *((lambda text, name=name: {name: text}) for name in ("stdin_base64", "timeout", "stop_grace", "nonsense")),
            lambda text: {"args": [text]},
            *((lambda text, name=name: {name: {"A": text}}) for name in ("env", "labels", "selector")),
            *((lambda text, name=name: {name: {text: "a"}}) for name in ("env", "labels", "selector")),
        ]
        for text in ("a\0b", "\0", "a\nb", "\n", "\r\n", "\x1b[2J", "\ud800", "\u2028", "\U0010ffff", "", " "):
            for place in places:
                body = place(text)
                base = {k: v for k, v in SUBMISSION.items() if not (k == "command" and "script" in body)}
                base = {k: v for k, v in base.items() if not (k == "worker" and "selector" in body)}
                answer = await self.submit(base | body)
                self.assertIn(answer.status, (201, 400, 404, 409), (body, answer.raw[:300]))
                if "\0" in text:
                    self.assertEqual(answer.status, 400, body)
            for path in ("/start", "/stop", "/query"):
                for field in ("worker_id", "job_id", "command", "path"):
                    base = {"worker_id": "w1", **({"command": "a"} if path == "/start" else {"job_id": "job-1"})}
                    answer = await self.submit(base | {field: text}, path)
                    self.assertIn(answer.status, (200, 201, 400, 404), (path, field, text))

    async def test_pipelined_behind_too_large(self) -> None:
        """Bytes after a refused body are never taken for a request."""
        smuggled = (
            b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 33\r\n\r\n" + json.dumps(SUBMISSION).encode()
        )
        wire = await self.connect()
        wire.transport.write(
            b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n" + smuggled * 50
        )
        await wire.problem()
        wire.transport.loseConnection()
        await wire.end()
        self.assertEqual(wire.received.count(b"HTTP/1.1 "), 1)
        self.assertEqual(self.scheduler.calls, [])

    async def test_curl_sees_the_refusal(self) -> None:
        """curl sees the 413 for 100 MB, whether it waits for 100 Continue, sends at once, or sends in chunks."""
        curl = shutil.which("curl")
        if curl is None:
            self.skipTest("needs curl")
        with tempfile.NamedTemporaryFile() as large:
            large.truncate(100_000_000)
            url = f"http://localhost:{self.port.getHost().port}/v1/jobs"
            for more in ([], ["-H", "Expect:"], ["-H", "Expect:", "-H", "Transfer-Encoding: chunked"]):
                program = _Program()
                arguments = [
                    "curl",
                    "-4sS",
                    "-o",
                    "-",
                    "-w",
                    "\n%{http_code}",
                    *more,
                    "--data-binary",
                    f"@{large.name}",
                    url,
                ]
                reactor.spawnProcess(program, curl, arguments, env={"no_proxy": "*"})
                self.assertEqual(await program.ended, 0, (more, program.out))
                self.assertTrue(program.out.endswith(b"\n413"), (more, program.out[-300:]))
                self.assertIn(b'"status":413', program.out)
