"""Hostile bodies over a real socket."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.integration.hostile import SUBMISSION, Answer, HostileCase
from tests.unit.api.documents import PATHS


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

    async def test_types(self) -> None:
        """A body of another type is 415."""
        for kind in (
            "text/plain",
            "multipart/form-data; boundary=x",
            "application/xml",
            "application/json; charset=latin1",
        ):
            answer = await self.ask("POST", "/v1/jobs", b"{}", head=f"Content-Type: {kind}\r\n")
            self.assertProblem(answer, 415, kind)
        for kind in ("application/json", "Application/JSON; charset=UTF-8", "application/x-www-form-urlencoded"):
            answer = await self.ask("POST", "/v1/jobs", b"{}", head=f"Content-Type: {kind}\r\n")
            self.assertProblem(answer, 400, kind)
        for encoding in ("gzip", "br", "identity, gzip"):
            answer = await self.ask("POST", "/v1/jobs", b"{}", head=f"Content-Encoding: {encoding}\r\n")
            self.assertProblem(answer, 415, encoding)

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

    async def test_ten_thousand_arguments(self) -> None:
        """Ten thousand arguments start a job."""
        answer = await self.submit(SUBMISSION | {"args": [str(i) for i in range(10_000)]})
        self.assertEqual(answer.status, 201)
        self.assertEqual(len(self.scheduler.calls[0][1].args), 10_000)

    async def test_largest(self) -> None:
        """A body of exactly 1 MiB is read, a larger one is refused, with a length or in chunks."""
        body = json.dumps(SUBMISSION).encode()
        body += b" " * (1024 * 1024 - len(body))
        self.assertEqual((await self.submit(body)).status, 201)
        self.assertProblem(await self.submit(body + b" "), 413)
        for extra, status in ((b"", 201), (b" ", 413)):
            data = body + extra
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (data[:1000], data[1000:600_000], data[600_000:]))
            raw = (
                b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            self.assertEqual(Answer(await self.send(raw + chunks + b"0\r\n\r\n")).status, status)

    async def test_too_large_unread(self) -> None:
        """A body that is too large is refused before any of it has come, and without 100 Continue."""
        for head in (b"", b"Expect: 100-continue\r\n"):
            wire = await self.connect()
            wire.transport.write(
                b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n" + head + b"\r\n"
            )
            await wire.problem()
            answer = Answer(wire.received)
            self.assertProblem(answer, 413)
            self.assertEqual(answer.headers["connection"], "close")
            wire.transport.loseConnection()
            await wire.end()

    async def test_expect(self) -> None:
        """A client that sends ``Expect`` gets 100 Continue."""
        wire = await self.connect()
        body = json.dumps(SUBMISSION).encode()
        wire.transport.write(
            b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        await wire.until(lambda: wire.received == b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.transport.write(body)
        await wire.end()
        self.assertIn(b"\r\n\r\nHTTP/1.1 201 ", wire.received)

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
