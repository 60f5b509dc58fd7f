"""HTTPS over real sockets: versions, rotation, and clients that do not finish a handshake or the end of TLS."""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trustme
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from scheduler.api import connection
from scheduler.api.connection import MAX_SPARE_CONNECTIONS
from scheduler.api.server import HttpServer, make_site
from scheduler.client import Client, ClientError
from scheduler.daemon.servers import TlsFiles
from scheduler.net import Address
from tests.doubles.authentication import TRUSTING
from tests.integration.test_http_sockets import read_answer, request
from tests.unit.api.conversation import HOSTS, NOW, Response, Stage, read_response

OURS = trustme.CA()

HEALTH = request("GET /healthz")


class TlsCase(TestCase):
    """A server with a certificate, and timers that the test turns."""

    timeout = 60
    max_connections = 10_000

    async def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.files = TlsFiles(self.folder / "server.pem", self.folder / "server.key", None)
        self.ca_file = self.folder / "ca.pem"
        OURS.cert_pem.write_to_path(str(self.ca_file))
        self.issue()
        self.clock = Clock()
        self.scheduler, self.fleet, self.house = Stage(self.clock).parts
        self.site = make_site(
            self.scheduler, TRUSTING, self.clock, lambda: NOW, HOSTS, max_connections=self.max_connections
        )
        self.server = HttpServer(reactor, Address("127.0.0.1", 0), self.site, drain=5.0, tls=self.files)
        self.server.startService()
        self.addCleanup(self.server.stopService)
        assert self.server.bound is not None
        self.port = self.server.bound.port

    async def tearDown(self) -> None:
        await self.eventually(lambda: not self.site.channels)
        await self.house.stop()
        self.assertEqual(self.flushLoggedErrors(), [])

    async def eventually(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await deferLater(reactor, 0.01)

    def issue(self, *hosts: str) -> bytes:
        """Put a new pair into the files; returns the certificate (DER)."""
        pair = OURS.issue_cert(*(hosts or ("localhost", "127.0.0.1")))
        self.put(self.files.key_file, pair.private_key_pem.bytes())
        self.put(self.files.crt_file, b"".join(blob.bytes() for blob in pair.cert_chain_pems))
        return ssl.PEM_cert_to_DER_cert(pair.cert_chain_pems[0].bytes().decode())

    @staticmethod
    def put(path: Path, content: bytes) -> None:
        draft = path.with_suffix(".new")
        draft.write_bytes(content)
        os.replace(draft, path)

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    def connect(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", self.port), 20)
        return (context or self.context()).wrap_socket(raw, server_hostname="localhost")

    async def ask(self, sent: bytes = HEALTH, context: ssl.SSLContext | None = None) -> Response:
        def ask_thd() -> bytes:
            with self.connect(context) as secured:
                secured.sendall(sent)
                return read_answer(secured)

        response = read_response(await deferToThread(ask_thd))
        assert response is not None
        return response

    async def plain(self) -> socket.socket:
        """A connection on which no handshake has begun, once the server has it."""
        before = len(self.site.channels)
        opened = socket.create_connection(("127.0.0.1", self.port), 20)
        self.addCleanup(opened.close)
        await self.eventually(lambda: len(self.site.channels) > before)
        return opened


class HandshakeTests(TlsCase):
    async def test_answers(self) -> None:
        """A client that trusts the authority is answered over TLS 1.3 and 1.2, and only HTTP/1.1 is offered."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.context()
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(["h2", "http/1.1"])
            self.assertEqual((await self.ask(context=context)).status, 200)

            def chosen_thd(context: ssl.SSLContext = context) -> str | None:
                with self.connect(context) as secured:
                    return secured.selected_alpn_protocol()

            self.assertEqual(await deferToThread(chosen_thd), "http/1.1")

    async def test_origin(self) -> None:
        """Only a page of this server by https may use it; one by http may not."""
        for scheme, status in (("https", 200), ("http", 403)):
            sent = request("GET /healthz", b"", f"Origin: {scheme}://localhost")
            self.assertEqual((await self.ask(sent)).status, status)

    async def test_old_versions(self) -> None:
        """TLS 1.1 and older, and ciphers without forward secrecy, are refused."""
        for version, ciphers in (
            (ssl.TLSVersion.TLSv1, "ALL:@SECLEVEL=0"),
            (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0"),
            (ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256"),
            (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA"),
        ):
            context = self.context()
            context.set_ciphers(ciphers)
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = version
            await self.assertFailure(deferToThread(self.connect, context), ssl.SSLError)

    async def test_plain_http(self) -> None:
        """A client that speaks plain HTTP is told so in plain HTTP, and nothing is done for it."""
        for sent in (HEALTH, b"G", b"POST "):

            def ask_thd(sent: bytes = sent) -> bytes:
                with socket.create_connection(("127.0.0.1", self.port), 20) as opened:
                    opened.sendall(sent)
                    return read_answer(opened)

            answer = read_response(await deferToThread(ask_thd))
            assert answer is not None
            self.assertEqual((answer.status, answer.complete), (400, True))
            self.assertIn("https://", json.loads(answer.body)["detail"])
        self.assertEqual(self.scheduler.calls, [])

    async def test_garbage(self) -> None:
        """Bytes that are neither a handshake nor HTTP end the connection."""
        for sent in (
            b"\0" * 100,
            b"\x16\x03\x01\xff\xff" + b"\xff" * 70_000,
            b"\r\n\r\n\r\n",
            b"get / HTTP/1.1\r\n\r\n",
        ):
            opened = await self.plain()
            await deferToThread(opened.sendall, sent)
            self.assertNotIn(b"HTTP", await deferToThread(_read_all, opened))

    async def test_never_ending(self) -> None:
        """A handshake that is not complete at the deadline is cut, however its bytes come."""
        for begin in (b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            opened = await self.plain()
            (channel,) = self.site.channels
            opened.sendall(begin)
            for _ in range(3):
                self.clock.advance(connection.HANDSHAKE_DEADLINE_SECONDS / 4)
                opened.sendall(begin and b"\x01")
                await deferLater(reactor, 0.01)
                self.assertIn(channel, self.site.channels)
            self.clock.advance(connection.HANDSHAKE_DEADLINE_SECONDS / 4)
            await self.eventually(lambda: not self.site.channels)

    async def test_silent_after_handshake(self) -> None:
        """After the handshake the deadlines of a request apply, and an idle connection is closed."""
        secured = await deferToThread(self.connect)
        self.addCleanup(secured.close)
        (channel,) = self.site.channels
        await self.eventually(lambda: self.house.timers() == 1)  # of an idle connection
        self.clock.advance(connection.HANDSHAKE_DEADLINE_SECONDS)
        self.assertIn(channel, self.site.channels)
        secured.sendall(b"GET /healthz HTTP/1.1\r\n")
        await self.eventually(lambda: self.house.timers() == 2)
        self.clock.advance(connection.HEADERS_DEADLINE_SECONDS)
        await self.eventually(lambda: not self.site.channels)


class EndTests(TlsCase):
    async def test_end_not_confirmed(self) -> None:
        """The server ends TLS after the last answer, and does not wait long for a client to confirm that."""
        secured = await deferToThread(self.connect)
        self.addCleanup(secured.close)
        await deferToThread(secured.sendall, HEALTH)
        answer = await deferToThread(read_answer, secured)
        self.assertIn(b" 200 ", answer)
        self.assertEqual(await deferToThread(secured.recv, 1), b"")  # TLS ended, the connection is open
        self.assertEqual(len(self.site.channels), 1)
        self.clock.advance(connection.TLS_END_DEADLINE_SECONDS)
        await self.eventually(lambda: not self.site.channels)

    async def test_slow_reader(self) -> None:
        """A client that has read nothing of its answer at the deadline for the end of TLS still gets all of it."""
        job = self.fleet.add_job(output=b"x" * 400_000)
        secured = await deferToThread(self.connect)
        self.addCleanup(secured.close)
        (channel,) = self.site.channels
        await deferToThread(secured.sendall, request(f"GET /v1/jobs/{job.id}/output"))
        await self.eventually(lambda: channel.transport.disconnecting)
        self.clock.advance(connection.TLS_END_DEADLINE_SECONDS)
        await self.eventually(lambda: not self.site.channels)
        answer = read_response(await deferToThread(read_answer, secured))
        assert answer is not None
        self.assertEqual((answer.complete, len(answer.body)), (True, 400_000))

    async def test_unsent(self) -> None:
        """All that a client has not read is freed once the connection is lost, before the garbage collector comes."""
        job = self.fleet.add_job(output=b"x" * 32_000_000)
        secured = await deferToThread(self.connect)
        self.addCleanup(secured.close)
        await deferToThread(secured.sendall, request(f"GET /v1/jobs/{job.id}/output"))
        await self.eventually(lambda: len(self.site.channels) == 1)
        (channel,) = self.site.channels
        tcp = channel.transport.transport
        await self.eventually(lambda: len(tcp.dataBuffer) > 100_000)
        secured.close()
        await self.eventually(lambda: not self.site.channels)
        self.assertEqual(len(tcp.dataBuffer), 0)

    async def test_refused_body(self) -> None:
        """A client that sends 20 MB before it looks up sees the refusal of its body."""
        answer = await self.ask(request("POST /start", b"x" * 20_000_000))
        self.assertEqual((answer.status, answer.complete), (413, True))

    async def test_cut_in_the_middle(self) -> None:
        """A connection that breaks at any point of the handshake or of a request leaves nothing behind."""
        for sent in (b"", b"\x16", b"\x16\x03\x01\x02\x00"):
            opened = await self.plain()
            opened.sendall(sent)
            opened.close()
            await self.eventually(lambda: not self.site.channels)
        for sent in (b"", b"GET /heal", HEALTH):
            secured = await deferToThread(self.connect)
            secured.sendall(sent)
            secured.close()
            await self.eventually(lambda: not self.site.channels)
        # Timers that are left would be of connections that are gone.
        self.assertEqual(self.house.timers(), 0)


class RotationTests(TlsCase):
    async def served(self) -> bytes | None:
        def served_thd() -> bytes | None:
            with self.connect() as secured:
                return secured.getpeercert(True)

        return await deferToThread(served_thd)

    async def test_rotation(self) -> None:
        """The next handshake has the certificate that the files hold, and a connection under way goes on."""
        before = await deferToThread(self.connect)
        self.addCleanup(before.close)
        new = self.issue()
        self.assertEqual(await self.served(), new)
        await deferToThread(before.sendall, HEALTH)
        self.assertIn(b" 200 ", await deferToThread(read_answer, before))
        before.close()

    async def test_unusable(self) -> None:
        """Files that can't be used are logged, and the certificate before them stays in use."""
        first = await self.served()
        other = OURS.issue_cert("localhost").private_key_pem.bytes()
        lines: list[Any] = []
        globalLogPublisher.addObserver(lines.append)
        self.addCleanup(globalLogPublisher.removeObserver, lines.append)
        for spoil in (
            lambda: self.put(self.files.key_file, other),
            lambda: self.put(self.files.key_file, b"nonsense"),
            self.files.key_file.unlink,
        ):
            lines.clear()
            spoil()
            self.assertEqual(await self.served(), first)
            self.assertTrue([line for line in lines if "certificates stay as they were" in line["log_format"]])
        new = self.issue()
        self.assertEqual(await self.served(), new)


class ClientTests(TlsCase):
    async def test_client(self) -> None:
        """The Python client speaks https with a CA file, and refuses a server of an authority that it does not know."""
        url = f"https://localhost:{self.port}"

        def version_thd(ca_file: str | None) -> str:
            with Client(url, ca_file=ca_file, patience=0) as client:
                return client.version()

        self.assertTrue(await deferToThread(version_thd, str(self.ca_file)))
        error = await self.assertFailure(deferToThread(version_thd, None), ClientError)
        self.assertIn("certificate", str(error))


class CrowdedTests(TlsCase):
    max_connections = 2

    async def test_crowded(self) -> None:
        """The limit on connections counts those that have not finished a handshake; more are refused, then closed."""
        waiting = [await self.plain() for _ in range(self.max_connections)]
        self.assertEqual((await self.ask()).status, 503)
        await self.eventually(lambda: len(self.site.channels) == self.max_connections)
        waiting += [await self.plain() for _ in range(MAX_SPARE_CONNECTIONS)]
        await self.assertFailure(deferToThread(self.connect), OSError)
        for opened in waiting:
            opened.close()
        await self.eventually(lambda: not self.site.channels)
        self.assertEqual((await self.ask()).status, 200)


def _read_all(opened: socket.socket) -> bytes:
    received = b""
    try:
        while data := opened.recv(65536):
            received += data
    except ConnectionError:
        pass
    return received
