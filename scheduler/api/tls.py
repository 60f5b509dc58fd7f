"""HTTPS: TLS 1.2 or newer in front of the connections of a site.

Theory of operation. A connection exists for the site as soon as it is accepted, so the limits on connections, and a
deadline (``connection``), apply to the handshake too. The files are looked at in each handshake, so a rotation needs no
restart. A client that speaks plain HTTP here is told so in plain HTTP, before it is hung up on.

Output is written in pieces of up to a megabyte. Twisted encrypts them 16 KiB at a time, the size of a TLS record, with
several calls for each; ``_InSteps`` takes larger steps. They are not larger still, because each connection keeps a
buffer for one.
"""

from __future__ import annotations

import re
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IAddress, IOpenSSLServerConnectionCreator, IProtocol, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.daemon.rotation import Current
from scheduler.daemon.servers import TlsFiles

#: The ciphers of TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has no others.
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!eNULL"

#: The ciphers of TLS 1.3. All are strong (RFC 8446, appendix B.4), so the fastest comes first.
_CIPHERS_1_3 = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

#: A mode of OpenSSL that has no name in pyOpenSSL (ssl.h, ``SSL_MODE_ENABLE_PARTIAL_WRITE``): without it a write
#: encrypts all that it is given.
_MODE_PARTIAL_WRITE = 1

#: Bytes of data in a TLS record at most (RFC 8446, 5.1).
_RECORD_BYTES = 16 * 1024

#: Bytes that are encrypted with one call. A connection that once wrote as many keeps a buffer of a third more.
_STEP_BYTES = 2 * _RECORD_BYTES

_HTTP = b"http/1.1"

#: The beginning of a request in plain HTTP; a TLS handshake begins with the byte 22.
_PLAIN = re.compile(rb"[A-Z]{1,16}(?: |\Z)")

_TOLD = (
    b'{"type":"/problems/invalid-request","title":"Bad Request","status":400,'
    b'"detail":"this port speaks HTTPS; use https:// in the URL"}\n'
)
_PLAIN_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_TOLD), _TOLD)
)


@implementer(IOpenSSLServerConnectionCreator)
class RotatingPair:
    """Makes the TLS side of each connection, with the certificate that the files hold at that time."""

    def __init__(self, files: TlsFiles) -> None:
        """Read the files. Raises ``OSError`` or ``OpenSSL.SSL.Error`` if they can't be used."""
        self._current = Current(files, _context)

    def serverConnectionForTLS(self, _: object) -> SSL.Connection:
        return SSL.Connection(self._current.get(), None)


class _InSteps(TLSMemoryBIOProtocol):
    """The TLS side of a connection, which encrypts large writes in large steps."""

    def write(self, data: bytes) -> None:
        tls: SSL.Connection | None = self.getHandle()
        if len(data) <= _RECORD_BYTES or tls is None:
            super().write(data)
            return
        tcp: Any = self.transport
        view = memoryview(data)
        for at in range(0, len(data), _STEP_BYTES):
            try:
                tls.send(view[at : at + _STEP_BYTES])
            except SSL.Error:  # the handshake is not over, or the connection is: Twisted handles both
                super().write(data[at:])
                return
            tcp.write(tls.bio_read(2 * _STEP_BYTES))  # more than there can be


class _Transport(BufferingTLSTransport, _InSteps):
    """The TLS side of a connection. A client that speaks plain HTTP gets an answer in plain HTTP."""

    _first = True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Drop what was not sent. Twisted's error for the end of TLS keeps it until the garbage collector comes."""
        tcp: Any = self.transport
        super().connectionLost(reason)
        tcp.dataBuffer = b""

    def dataReceived(self, bytes: bytes) -> None:  # noqa: A002 - twisted's name
        tcp: Any = self.transport
        first, self._first = self._first, False
        if first and _PLAIN.match(bytes):
            tcp.write(_PLAIN_ANSWER)
            tcp.loseConnection()
        elif not tcp.disconnecting:
            super().dataReceived(bytes)


class _Factory(TLSMemoryBIOFactory):
    """Makes connections with TLS of those that the site accepts."""

    protocol = _Transport

    def buildProtocol(self, addr: IAddress | None) -> Any:
        inner: IProtocol | None = self.wrappedFactory.buildProtocol(addr)
        return None if inner is None else self.protocol(self, inner)


def over_tls(site: Any, files: TlsFiles, clock: IReactorTime) -> TLSMemoryBIOFactory:
    """Make the factory that serves ``site`` over TLS. Raises as ``RotatingPair`` does."""
    return _Factory(RotatingPair(files), False, site, clock)


def _context(files: TlsFiles) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_TICKET)
    context.clear_mode(_MODE_PARTIAL_WRITE)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # an idle connection keeps no buffers
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(_CIPHERS)
    context.set_tls13_ciphersuites(_CIPHERS_1_3)
    context.set_alpn_select_callback(_select)
    context.use_certificate_chain_file(str(files.crt_file))
    context.use_privatekey_file(str(files.key_file))
    context.check_privatekey()
    return context


def _select(_: SSL.Connection, offered: list[bytes]) -> Any:
    return _HTTP if _HTTP in offered else SSL.NO_OVERLAPPING_PROTOCOLS
