"""The HTTP server: ``make_site`` puts it together. ``ApiSite`` owns its connections, and ends them at shutdown.

A request passes, in this order: the deadlines of its connection (``connection``), the limits of a request and the guard
(``request``), and the routes (``app``). All of these answer with problem documents.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.web import server
from twisted.web.resource import IResource

from scheduler.api.app import make_app
from scheduler.api.connection import Channel
from scheduler.api.context import Context, UnderWay
from scheduler.api.peers import gone
from scheduler.api.request import Request
from scheduler.interfaces import IScheduler

#: How long a connection may be silent between requests, in seconds.
IDLE_MAX_SECONDS = 60.0

#: How many connections over the limit are answered with 503; beyond that they are closed at once.
MAX_SPARE_CONNECTIONS = 64

_log = Logger()


def make_site(
    scheduler: IScheduler,
    clock: IReactorTime,
    wall_time: Callable[[], float],
    allowed_hosts: Collection[str] | None,
    max_connections: int = 10_000,
) -> ApiSite:
    """The factory to listen with.

    ``clock`` is the reactor; ``wall_time`` gives POSIX times, for filters like ``24h``;
    ``allowed_hosts`` are names and addresses in lower case, without port or brackets; ``None``: see ``guard.refusal``.
    """
    under_way = UnderWay()
    routes = make_app(Context(scheduler, clock, wall_time, under_way)).resource()
    hosts = None if allowed_hosts is None else frozenset(allowed_hosts)
    return ApiSite(routes, clock, hosts, under_way, max_connections)


class ApiSite(server.Site):
    """The factory of connections; HTTP/1.1 only. See ``make_site``."""

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
    ) -> None:
        super().__init__(resource, timeout=IDLE_MAX_SECONDS, reactor=clock, parsePOSTFormSubmission=False)
        self.clock = clock
        self.allowed_hosts = allowed_hosts
        self.draining = False
        self.channels: set[Channel] = set()
        self.under_way = under_way
        self.max_connections = max_connections
        self._drained: Deferred[None] | None = None

    def startFactory(self) -> None:
        """Open no log file and start no timer for its time stamps: each request logs itself."""

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if len(self.channels) >= self.max_connections + MAX_SPARE_CONNECTIONS:
            return None  # the connection is closed
        return super().buildProtocol(addr)

    def lost(self, channel: Channel) -> None:
        """Forget a closed connection."""
        self.channels.discard(channel)
        if self._drained is not None and not self.channels:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def cut_off_the_gone(self) -> None:
        """Abort the connections whose clients are gone; to be called every ``peers.CHECK_INTERVAL_SECONDS``."""
        for channel in list(self.channels):
            if gone(channel.transport):
                channel.abort()

    def drain(self, grace: float) -> Deferred[None]:
        """Refuse new requests, end streams and long polls, let other requests be answered.

        Fires when the last connection is closed. Connections that are left after ``grace`` seconds are cut.
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
