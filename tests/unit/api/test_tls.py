"""The TLS side of a connection, in memory: what the site writes arrives whole and in order, whatever its size."""

from __future__ import annotations

import random
import ssl
from pathlib import Path
from typing import Any

import trustme
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from scheduler.api.tls import over_tls
from scheduler.daemon.servers import TlsFiles

OURS = trustme.CA()

KIB = 1024


class Client:
    """The client's side of a connection to a server that is ``protocol``, whose bytes go to ``tcp``."""

    def __init__(self, protocol: Any, ca_file: str) -> None:
        self._protocol = protocol
        self._tcp = StringTransport()
        protocol.makeConnection(self._tcp)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=ca_file)
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def shake_hands(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._exchange()
        self._exchange()

    def _exchange(self) -> None:
        self._protocol.dataReceived(self._outgoing.read())
        self._take()

    def _take(self) -> None:
        self._incoming.write(self._tcp.value())
        self._tcp.clear()

    def read(self) -> bytes:
        """All that has arrived."""
        self._take()
        data = b""
        try:
            while more := self.tls.read(64 * KIB):
                data += more
        except ssl.SSLWantReadError:
            pass
        return data


class WriteTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        pair, ca_file = OURS.issue_cert("localhost"), str(folder / "ca.pem")
        files = TlsFiles(folder / "server.pem", folder / "server.key", None)
        OURS.cert_pem.write_to_path(ca_file)
        pair.private_key_pem.write_to_path(str(files.key_file))
        pair.cert_chain_pems[0].write_to_path(str(files.crt_file))
        self.clock = Clock()
        self.site = Protocol()
        factory = Factory.forProtocol(lambda: self.site)
        self.server = over_tls(factory, files, self.clock).buildProtocol(None)
        self.client = Client(self.server, ca_file)

    def write(self, *sizes: int) -> bytes:
        """Have the site write pieces of these sizes, and wait until they are sent; returns all of them."""
        assert self.site.transport is not None
        pieces = [random.randbytes(size) for size in sizes]
        for piece in pieces:
            self.site.transport.write(piece)
        self.clock.advance(0)
        return b"".join(pieces)

    def test_sizes(self) -> None:
        """A piece of any size arrives whole, in particular one that fits no whole number of records or steps."""
        self.client.shake_hands()
        for unit in (16 * KIB, 128 * KIB, 1024 * KIB):
            for size in (unit - 1, unit, unit + 1, 3 * unit + 5):
                self.assertEqual(self.write(size), self.client.read())

    def test_order(self) -> None:
        """Small pieces, which are collected, and large ones arrive in the order in which they were written."""
        self.client.shake_hands()
        self.assertEqual(self.write(1, 200 * KIB, 2, 3, 70 * KIB, 1024 * KIB, 4), self.client.read())

    def test_before_handshake(self) -> None:
        """Pieces that are written before the handshake are sent after it, in order."""
        early = self.write(10, 300 * KIB, 20)
        self.client.shake_hands()
        self.assertEqual(early + self.write(200 * KIB), self.client.read())

    def test_after_the_end(self) -> None:
        """Pieces that are written after the end of the connection are dropped."""
        self.client.shake_hands()
        before = self.write(5)
        self.server.loseConnection()
        self.write(300 * KIB, 5)
        self.assertEqual(before, self.client.read())
        self.server.connectionLost()
        self.write(300 * KIB, 5)
        self.assertEqual(b"", self.client.read())

    def test_cipher(self) -> None:
        """The fastest of the strong ciphers of TLS 1.3 is chosen, although this client would like another one."""
        self.client.shake_hands()
        self.assertEqual(("TLS_AES_128_GCM_SHA256", "TLSv1.3", 128), self.client.tls.cipher())
