"""Both Python clients over real sockets, to servers with faults."""

from __future__ import annotations

import functools
import gzip
import os
import ssl
from collections.abc import Callable
from typing import Any

import trustme
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from scheduler.client import ApiProblem, ConnectionFailed, TwistedClient
from tests.canned import CannedServer
from tests.clients import Blocking, Twisted

JOB = b'{"id": "j1", "state": "running"}'

#: Answers that give their length, each in another way.
WHOLE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 32\r\nX-More: 1\r\n\r\n" + JOB,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-More: 1\r\n\r\n"
    b"10\r\n" + JOB[:16] + b"\r\n10\r\n" + JOB[16:] + b"\r\n0\r\n\r\n",
)

Kind = Callable[..., Any]


def with_each_kind(test: Callable[[Any, Kind], Any]) -> Callable[[Any], Any]:
    """Run the test with both clients."""

    @functools.wraps(test)
    async def run(self: Any) -> None:
        for kind in (Blocking, Twisted):
            await test(self, kind)

    return run


class CannedTests(TestCase):
    """Answers that are broken, late, or not a scheduler's."""

    timeout = 120

    def canned(self, answer: Callable[[bytes], bytes | None], context: ssl.SSLContext | None = None) -> CannedServer:
        server = CannedServer(answer, context)
        # In a thread: it waits until the client has closed its connections, which TwistedClient does in the reactor.
        self.addCleanup(deferToThread, server.close)
        return server

    def client(self, kind: Kind, url: str, **settings: Any) -> Any:
        client = kind(url, **settings)
        self.addCleanup(client.close)
        return client

    async def refusal(self, deferred: Deferred[Any], error: type[Exception] = ConnectionFailed) -> Any:
        return await self.assertFailure(deferred, error)

    @with_each_kind
    async def test_every_prefix(self, kind: Kind) -> None:
        """An answer that is cut, at whatever byte, never counts as an answer."""
        for whole in WHOLE:
            cuts = iter(range(len(whole) + 1))
            server = self.canned(lambda _, whole=whole, cuts=cuts: whole[: next(cuts)])
            client = self.client(kind, server.url, patience=0.0)
            for _ in range(len(whole)):
                await self.refusal(client.job("j1"))
            self.assertEqual((await client.job("j1")).id, "j1")

    @with_each_kind
    async def test_no_length(self, kind: Kind) -> None:
        """A body whose end can't be distinguished from a cut does not count."""
        lengths = iter((b"", b"Content-Length: -1\r\n", b"Content-Length: abc\r\n", b"Content-Length: 9, 32\r\n"))
        server = self.canned(lambda _: b"HTTP/1.1 200 OK\r\n" + next(lengths) + b"\r\n" + JOB)
        client = self.client(kind, server.url, patience=0.0)
        for _ in range(4):
            await self.refusal(client.job("j1"))

    @with_each_kind
    async def test_snapshot(self, kind: Kind) -> None:
        """Output without following that was cut is requested again, up to its first length."""

        def answered(request: bytes) -> bytes:
            first = 0 if b"offset=0" in request else 3
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Output-Offset: %d\r\n\r\nabc" % (6 - first, first)

        server = self.canned(answered)
        client = self.client(kind, server.url)
        self.assertEqual(b"".join(await client.items("output", "j1")), b"abcabc")
        self.assertIn(b"\r\nrange: bytes=3-5\r\n", server.requests[1].lower())

    @with_each_kind
    async def test_compressed(self, kind: Kind) -> None:
        """Compression is not requested; an answer that a proxy compressed all the same is read, whatever its length."""
        output = b"".join(b"line %d\n" % number for number in range(1000))

        def answered(request: bytes) -> bytes:
            self.assertIn(b"\r\naccept-encoding: identity\r\n", request.lower())
            first = int(request.partition(b"offset=")[2].split()[0])
            body = gzip.compress(output[first:])
            head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n" % len(body)
            whole = head + b"X-Output-Offset: %d\r\n\r\n" % first + body
            return whole if first else whole[:-100]

        client = self.client(kind, self.canned(answered).url)
        self.assertEqual(b"".join(await client.items("output", "j1")), output)

    @with_each_kind
    async def test_silent(self, kind: Kind) -> None:
        """If a server accepts a start and sends nothing, the job may run."""
        client = self.client(kind, self.canned(lambda _: None).url, timeout=1.0, patience=0.0)
        error = await self.refusal(client.submit("true", worker="w1"))
        self.assertEqual(error.started, "unknown")
        self.assertIn("no answer in time", str(error))

    async def test_cancelled(self) -> None:
        """A cancelled Deferred fails with CancelledError, even if the request would not be repeated."""
        server = self.canned(lambda _: None)
        client = TwistedClient(reactor, server.url)
        signalling = client.signal("j1", "SIGHUP")
        while not server.requests:
            await deferLater(reactor, 0.01)
        signalling.cancel()
        await self.assertFailure(signalling, CancelledError)
        await client.close()

    @with_each_kind
    async def test_refused(self, kind: Kind) -> None:
        """If nothing listens, nothing was started, and the error comes at once."""
        server = self.canned(lambda _: None)
        client = self.client(kind, server.url)
        server.close()
        error = await self.refusal(client.submit("true", worker="w1"))
        self.assertIs(error.started, False)
        self.assertIn("refused", str(error))
        unknown = self.client(kind, "http://no-such-host.invalid")
        self.assertIs((await self.refusal(unknown.submit("true", worker="w1"))).started, False)

    @with_each_kind
    async def test_sent(self, kind: Kind) -> None:
        """A request is sent once, directly to the server, with the token; a redirect is an answer like any other."""
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
            self.patch(os, "environ", {**os.environ, name: "http://127.0.0.1:9"})
        where = b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
        server = self.canned(lambda _: where)
        client = self.client(kind, server.url + "/at", token="secret")
        error = await self.refusal(client.submit(["a", "é"], worker="w1", key="k"), ApiProblem)
        self.assertEqual((error.status, len(server.requests)), (307, 1))
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        self.assertEqual(lines[0], b"post /at/v1/jobs http/1.1")
        for line in (b"authorization: bearer secret", b"content-type: application/json", b"idempotency-key: k"):
            self.assertIn(line, lines)
        self.assertEqual(body, b'{"worker": "w1", "command": "a", "args": ["\\u00e9"]}')

    @with_each_kind
    async def test_once(self, kind: Kind) -> None:
        """A start whose answer is lost is repeated with the same key."""
        answers = iter([b"", WHOLE[0][:100], WHOLE[0]])
        server = self.canned(lambda _: next(answers))
        self.assertEqual((await self.client(kind, server.url).submit("true", worker="w1")).id, "j1")
        keys = {line for each in server.requests for line in each.lower().split(b"\r\n") if line[:11] == b"idempotency"}
        self.assertEqual((len(server.requests), len(keys)), (3, 1))

    @with_each_kind
    async def test_trouble(self, kind: Kind) -> None:
        """Each failure before a repetition is reported, and the first answer after that."""
        busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\nRetry-After: 0\r\n\r\n{}"
        answers = iter([b"", busy, WHOLE[0]])
        told: list[str | None] = []
        client = self.client(kind, self.canned(lambda _: next(answers)).url, on_trouble=told.append)
        await client.job("j1")
        self.assertEqual([why and bool(why) for why in told], [True, True, None])
        self.assertIn("503", told[1] or "")

    @with_each_kind
    async def test_not_http(self, kind: Kind) -> None:
        """A server that does not speak HTTP is no scheduler: nothing was started, and it is not asked again."""
        server = self.canned(lambda _: b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        client = self.client(kind, server.url)
        error = await self.refusal(client.submit("true", worker="w1"))
        self.assertEqual((error.started, len(server.requests)), (False, 1))
        self.assertIn("does not speak HTTP", str(error))

    @with_each_kind
    async def test_tls(self, kind: Kind) -> None:
        """A certificate of the authority in ``ca_file`` is trusted, only for its own name, and no other is."""
        ours, others = trustme.CA(), trustme.CA()
        ca_file = self.mktemp()
        ours.cert_pem.write_to_path(ca_file)

        def context(authority: trustme.CA, host: str) -> ssl.SSLContext:
            made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(host).configure_cert(made)
            return made

        good = self.canned(lambda _: WHOLE[0], context(ours, "127.0.0.1"))
        client = self.client(kind, good.url, ca_file=ca_file)
        self.assertEqual((await client.job("j1")).id, "j1")
        for bad in (
            self.canned(lambda _: WHOLE[0], context(others, "127.0.0.1")),
            self.canned(lambda _: WHOLE[0], context(ours, "127.0.0.2")),
        ):
            client = self.client(kind, bad.url, ca_file=ca_file)
            error = await self.refusal(client.submit("true", worker="w1"))
            self.assertEqual((error.started, bad.requests), (False, []))
            plain = self.canned(lambda _: WHOLE[0])
        client = self.client(kind, plain.url.replace("http:", "https:"), ca_file=ca_file, patience=0.0)
        await self.refusal(client.job("j1"))
