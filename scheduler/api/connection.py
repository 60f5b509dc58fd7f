"""HTTP connections: deadlines for slow clients, early refusals that reach clients who are still sending, and their end.

After an early refusal the rest of the request is thrown away for a while. Closing at once would reset the connection
under a client that is still sending, and the answer would be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IHandshakeListener,
    IReactorTime,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import IResource
from zope.interface import implementer

from scheduler.api.clients import is_trusted
from scheduler.api.context import UnderWay
from scheduler.api.local_peers import is_unix, uid_of
from scheduler.api.peers import gone, keep_alive
from scheduler.api.quotas import BodyBytes, Shares
from scheduler.api.request import BaseChannel, BaseSite, Request
from scheduler.errors import Busy, Unavailable
from scheduler.limits import (
    BODY_DEADLINE_SECONDS,
    BODY_MAX_BYTES,
    HANDSHAKE_DEADLINE_SECONDS,
    HEADERS_DEADLINE_SECONDS,
    IDLE_MAX_SECONDS,
    LINGER_MAX_BYTES,
    LINGER_MAX_SECONDS,
    MAX_SPARE_CONNECTIONS,
    MAX_SPARE_CONNECTIONS_PER_ADDRESS,
    TLS_END_DEADLINE_SECONDS,
    ClientLimits,
)
from scheduler.net import IPNetwork, address_group
from scheduler.security.socket_owners import OwnerOf, is_loopback
from scheduler.security.trail import Audit

_log = Logger()


@implementer(IHandshakeListener)
class Channel(BaseChannel):
    """A connection that a client can't hold open by sending slowly."""

    site: ApiSite

    def __init__(self) -> None:
        super().__init__()
        self._deadline: IDelayedCall | None = None
        self._refused = False
        #: Bytes that are still thrown away before the connection is cut.
        self._lingering = 0
        self._host: IAddress | None = None
        self._secure = False
        #: The address or local user among whose connections this one is; ``""``: among nobody's.
        self._counted = ""

    def getHost(self) -> IAddress:
        """The address that the connection came in on. The system is asked once for each connection."""
        if self._host is None:
            self._host = super().getHost()
        return self._host

    def isSecure(self) -> bool:
        """Whether the connection is encrypted. The transport is asked once for each connection."""
        return self._secure

    def connectionMade(self) -> None:
        super().connectionMade()
        self.uid, self.is_unix = uid_of(self.transport, self.site.owner_of), is_unix(self.transport)
        keep_alive(self.transport)
        if self._tls is not None:
            self._set_deadline(HANDSHAKE_DEADLINE_SECONDS)
        self._secure = super().isSecure()
        self.site.channels.add(self)
        self._counted = self.site.counted_as(self.getPeer(), self.uid)
        self.crowded = self.site.crowd(self._counted)
        if self._counted and self.site.connections.of(self._counted) > self.site.most_with_spare:
            self.abort()

    def handshakeCompleted(self) -> None:
        """Take the end of the TLS handshake; called by the transport."""
        self._set_deadline(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._set_deadline(None)
        super().connectionLost(reason)
        if self._counted:
            self.site.connections.give_back(self._counted)
        self.site.lost(self)

    def dataReceived(self, data: bytes) -> None:
        if self._deadline is None and not self._handlingRequest:
            self._set_deadline(HEADERS_DEADLINE_SECONDS)
        super().dataReceived(data)

    def allHeadersReceived(self) -> None:
        request = self.requests[-1]
        request.headers_received(self.length)
        if request.unwelcome or (self.length or 0) > BODY_MAX_BYTES:
            request.requestHeaders.removeHeader("Expect")
        super().allHeadersReceived()
        if self.length != 0:
            self._set_deadline(BODY_DEADLINE_SECONDS)
        if request.refused_body:
            self.length = 0  # it is answered now; the rest of the body is thrown away

    def rawDataReceived(self, data: bytes) -> None:
        if self._lingering:
            self._lingering = max(self._lingering - len(data), 0)
            if not self._lingering:
                self._lingering = 1
                self.abort()
            return
        super().rawDataReceived(data)
        # It is known only as a body comes that it is too large, or that all bodies together are.
        if self.requests and self.requests[-1].refused_body and not self._handlingRequest:
            self.allContentReceived()

    def allContentReceived(self) -> None:
        self._set_deadline(None)
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        self._refused = request.refused_body
        pipelined = bool(self._dataBuffer)
        super().requestDone(request)
        if pipelined and self.persistent and not self._handlingRequest and self._deadline is None:
            self._set_deadline(HEADERS_DEADLINE_SECONDS)

    def loseConnection(self) -> None:
        if not self._refused:
            super().loseConnection()
            if self._tls is not None:
                self._set_deadline(TLS_END_DEADLINE_SECONDS)
        elif not self._lingering:
            self._lingering = LINGER_MAX_BYTES
            self._set_deadline(LINGER_MAX_SECONDS)
            cast(IConsumer, self._networkProducer).unregisterProducer()
            if self._tls is not None:
                self._tls.loseConnection()  # it says that nothing more is sent, and goes on receiving
            elif (half_close := getattr(self.transport, "loseWriteConnection", None)) is not None:
                half_close()

    def close_when_done(self) -> None:
        """Close the connection, after the answer to a request that is under way."""
        self.persistent = 0
        if not self.requests:
            self.loseConnection()

    @property
    def _tls(self) -> TLSMemoryBIOProtocol | None:
        return self.transport if isinstance(self.transport, TLSMemoryBIOProtocol) else None

    def abort(self) -> None:
        cast(ITCPTransport, self.transport).abortConnection()

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.callLater(seconds, self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        tls = self._tls
        if tls is not None and tls.disconnecting and not self._lingering:
            cast(ITransport, tls.transport).loseConnection()  # what is written still arrives
        else:
            self.abort()


class ApiSite(BaseSite):
    """The factory of connections; HTTP/1.1 only. It owns them, and ends them at shutdown."""

    protocol = Channel  # type: ignore[assignment]
    requestFactory = Request  # noqa: N815
    noisy = False  # HttpServer logs the address

    def __init__(
        self,
        resource: IResource,
        clock: IReactorTime,
        allowed_hosts: frozenset[str] | None,
        under_way: UnderWay,
        max_connections: int,
        limits: ClientLimits,
        trusted_proxies: Sequence[IPNetwork],
        owner_of: OwnerOf,
        audit: Audit | None,
        knows: Callable[[server.Request], bool],
    ) -> None:
        super().__init__(resource, timeout=IDLE_MAX_SECONDS, reactor=clock, parsePOSTFormSubmission=False)
        self.clock = clock
        self.allowed_hosts = allowed_hosts
        self.channels: set[Channel] = set()
        self.under_way = under_way
        self.max_connections = max_connections
        self.connections = Shares(limits.connections_per_address)
        self.bodies = BodyBytes(limits.body_bytes)
        self.trusted_proxies = trusted_proxies
        self.owner_of = owner_of
        self.audit = audit
        self.knows = knows
        self._drained: Deferred[None] | None = None

    def startFactory(self) -> None:
        """Do nothing. Twisted would open a log and start a timer for its time stamps, but each request logs itself."""

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        counted = "" if is_loopback(getattr(addr, "host", "")) else self.counted_as(addr)  # its user is not known yet
        if len(self.channels) >= self.max_connections + MAX_SPARE_CONNECTIONS or (
            counted and self.connections.of(counted) >= self.most_with_spare
        ):
            return None  # the connection is closed
        return super().buildProtocol(addr)

    @property
    def most_with_spare(self) -> int:
        """The connections of one address or local user beyond which further ones are closed without an answer."""
        return self.connections.most + MAX_SPARE_CONNECTIONS_PER_ADDRESS

    def counted_as(self, addr: IAddress | None, uid: int | None = None) -> str:
        """The address, or the user ``uid`` of this machine, among whose connections one from ``addr`` is.

        A user of this machine must not use up the connections of the others on it. ``""``: a proxy's connection, or
        one without an address and a user.
        """
        host = getattr(addr, "host", "")
        if is_trusted(host, self.trusted_proxies):
            return ""
        return address_group(host) if uid is None else f"user {uid}"

    def crowd(self, counted: str) -> Unavailable | None:
        """Count a new connection. The error with which its request is answered if it is one too many."""
        if counted and not self.connections.take(counted):
            return self.too_many(counted)
        return Busy("connections", self.max_connections) if len(self.channels) > self.max_connections else None

    def lost(self, channel: Channel) -> None:
        self.channels.discard(channel)
        if self._drained is not None and not self.channels:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def cut_off_the_gone(self) -> None:
        """Abort the connections whose clients are gone; call this every ``peers.CHECK_INTERVAL_SECONDS``."""
        for channel in list(self.channels):
            if gone(channel.transport):
                channel.abort()

    def drain(self, grace: float) -> Deferred[None]:
        """Refuse new requests, end streams and long polls, let other requests be answered.

        Fires when the last connection is closed. Connections that are open after ``grace`` seconds are cut.
        """
        self.draining = True
        for channel in list(self.channels):
            channel.close_when_done()
        self.under_way.end()
        if not self.channels:
            return succeed(None)
        drained: Deferred[None] = Deferred()
        self._drained = drained
        cut = self.clock.callLater(grace, self._cut)

        def over(_: None) -> None:
            if cut.active():
                cut.cancel()

        return drained.addCallback(over)

    def _cut(self) -> None:
        _log.info("cutting {count} connections that have not ended", count=len(self.channels))
        for channel in list(self.channels):
            channel.abort()
