"""Hostile requests over a real socket: methods, paths, queries, foreign pages, and ranges.

None may be answered with a 500 or a traceback, or leave a reader, a connection or a descriptor behind."""

from __future__ import annotations

import json

from tests.integration.hostile import METHODS, SUBMISSION, Answer, HostileCase
from tests.unit.api.documents import PATHS


class RouteTests(HostileCase):
    """Methods, paths, parameters, hosts and origins."""

    async def test_methods(self) -> None:
        """A method that a path does not have is 405, with the methods that it has."""
        for path, allowed in PATHS.items():
            for method in METHODS:
                if method in allowed:
                    continue
                answer = await self.ask(method, path)
                if method.isupper():
                    self.assertProblem(answer, 405, (method, path))
                    self.assertEqual(set(answer.headers["allow"].split(", ")), allowed, path)
                else:
                    self.assertIn(answer.status, (400, 405), (method, path))
        self.assertEqual(self.scheduler.calls, [])

    async def test_paths(self) -> None:
        """A path that is almost a route is 404, and never another route."""
        for path in (
            *("/", "//", "/v1", "/v2/jobs", "/healthz/", "/healthz/x", "//healthz", "/v1//jobs", "/v1/jobs/", "/START"),
            *("/v1/jobs/job-1/output/", "/v1/jobs/job-1/output/x", "/v1/jobs/job-1%2foutput", "/v1/jobs/..%2f..%2fetc"),
            *("/v1/jobs/job-1%00", "/v1/jobs/job-1%0a", "/v1/jobs/nope", "/v1/jobs/%C3%BC", "/v1/workers/%00"),
            *("/v1/workers/" + "x" * 5000, "/v1/jobs/" + "x" * 5000, "/v1/jobs/job 1".replace(" ", "%20")),
        ):
            document = self.assertProblem(await self.ask("GET", path), 404, path)
            self.assertLess(len(document["detail"]), 6000)

    async def test_targets(self) -> None:
        """A target that is no path, or not UTF-8, is 400."""
        for target in ("*", "http://localhost/healthz", "localhost:80", "/v1/jobs/%ff", "/%c3%28"):
            self.assertProblem(await self.ask("GET", target), 400, target)
        self.assertProblem(await self.ask("OPTIONS", "*"), 400)

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

    async def test_guard(self) -> None:
        """A request for another site is refused, whatever the method and the path, and nothing is done."""
        bodies = {"POST": json.dumps(SUBMISSION).encode()}
        for path in (*PATHS, "/nowhere", "/v1/jobs?bad=1"):
            for method in METHODS[:-1]:
                for head in (
                    "Origin: http://evil.example\r\n",
                    "Origin: null\r\n",
                    "Origin: \r\n",
                    "Origin: http://localhost:1\r\n",
                    "Origin: http://localhost\r\nOrigin: http://evil.example\r\n",
                    "Sec-Fetch-Site: cross-site\r\n",
                    "Sec-Fetch-Site: same-site\r\n",
                ):
                    answer = await self.ask(method, path, bodies.get(method, b""), head=head)
                    self.assertEqual(answer.status, 403, (method, path, head))
                self.assertEqual((await self.ask(method, path, host="evil.example")).status, 403, (method, path))
        self.assertEqual(self.scheduler.calls, [])

    async def test_hosts(self) -> None:
        """A request has exactly one ``Host``: a name of this server, with any port."""
        for host in ("localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:65535"):
            self.assertEqual((await self.ask("GET", "/healthz", host=host)).status, 200, host)
        for host in (
            "evil",
            "localhost.",
            "localhost.evil",
            "localhost:1:2",
            "[::1]",
            "",
            "a@localhost",
            "localhost,evil",
        ):
            self.assertIn((await self.ask("GET", "/healthz", host=host)).status, (400, 403), host)
        for raw in (
            b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
            b"GET /healthz HTTP/1.0\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nConnection: close\r\n\r\n",
        ):
            self.assertProblem(Answer(await self.send(raw)), 400, raw)

    async def test_own_origin(self) -> None:
        """A page of this server may send requests."""
        for head in (
            "Origin: http://localhost:3000\r\n",
            "Sec-Fetch-Site: same-origin\r\n",
            "Sec-Fetch-Site: none\r\n",
        ):
            self.assertEqual((await self.ask("GET", "/healthz", host="localhost:3000", head=head)).status, 200)

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


class RangeTests(HostileCase):
    """``Range`` on an output of ten bytes."""

    async def test_garbage(self) -> None:
        """A malformed range is ignored."""
        for value in (
            *("", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-4", "bytes=0-1,3-4", "bytes=--1", "bytes=1"),
            *("lines=0-1", "bytes 0-1", "bytes=0-1;", "bytes=0x0-0x1", "bytes=+0-1", "bytes=\xb2-", "bytes=1-2-3"),
            "bytes=" + "0-1," * 1000,
        ):
            answer = await self.ask("GET", "/v1/jobs/job-1/output", head=f"Range: {value}\r\n")
            self.assertEqual((answer.status, answer.body), (200, b"0123456789"), value)
        twice = await self.ask("GET", "/v1/jobs/job-1/output", head="Range: bytes=0-1\r\nRange: bytes=3-4\r\n")
        self.assertEqual((twice.status, twice.body), (200, b"0123456789"))

    async def test_ranges(self) -> None:
        """A single range is 206 with those of its bytes that exist."""
        for value, first, body in (
            ("bytes=0-0", 0, b"0"),
            ("bytes=2-4", 2, b"234"),
            ("bytes=8-", 8, b"89"),
            ("bytes=8-100", 8, b"89"),
            ("bytes=-3", 7, b"789"),
            ("bytes=-100", 0, b"0123456789"),
            ("bytes=0-" + "9" * 18, 0, b"0123456789"),
        ):
            answer = await self.ask("GET", "/v1/jobs/job-1/output", head=f"Range: {value}\r\n")
            self.assertEqual((answer.status, answer.body), (206, body), value)
            self.assertEqual(answer.headers["content-range"], f"bytes {first}-{first + len(body) - 1}/10")
            self.assertEqual(answer.headers["content-length"], str(len(body)))

    async def test_past_the_end(self) -> None:
        """A range that begins past the end is 416, with the length."""
        for value in ("bytes=10-", "bytes=10-20", "bytes=999999999999999999-", "bytes=" + "9" * 30 + "-"):
            answer = await self.ask("GET", "/v1/jobs/job-1/output", head=f"Range: {value}\r\n")
            self.assertProblem(answer, 416, value)
            self.assertEqual(answer.headers["content-range"], "bytes */10")

    async def test_not_with(self) -> None:
        """A range does not go with following, an offset, or events."""
        for query, head in (
            ("?follow=1", ""),
            ("?offset=1", ""),
            ("?tail=1", ""),
            ("", "Accept: text/event-stream\r\n"),
        ):
            answer = await self.ask("GET", f"/v1/jobs/job-1/output{query}", head=f"Range: bytes=0-1\r\n{head}")
            self.assertProblem(answer, 400, query)
