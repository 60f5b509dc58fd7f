"""The HTTP server: ``make_site`` puts it together, and ``HttpServer`` is its service.

A request passes, in this order: the deadlines of its connection (``connection``), the limits of a request and the guard
(``request``), and the routes (``app``). All of these answer with problem documents.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReactorTCP, IReactorTime
from twisted.logger import Logger

from scheduler.api.app import make_app
from scheduler.api.connection import ApiSite
from scheduler.api.context import Context, UnderWay
from scheduler.api.peers import CHECK_INTERVAL_SECONDS
from scheduler.api.quotas import Followers
from scheduler.api.recording import RecordingDoor
from scheduler.api.tls import over_tls
from scheduler.daemon.servers import TlsFiles
from scheduler.daemon.services import Periodic
from scheduler.interfaces import IScheduler
from scheduler.limits import MAX_CONNECTIONS, ClientLimits
from scheduler.net import Address, IPNetwork
from scheduler.security.authentication import Authentication
from scheduler.security.logins import FailedLogins
from scheduler.security.socket_owners import OwnerOf
from scheduler.security.trail import Audit

#: Connections that the kernel keeps until they are accepted.
_BACKLOG = 512


def make_site(
    scheduler: IScheduler,
    authentication: Authentication,
    clock: IReactorTime,
    wall_time: Callable[[], float],
    allowed_hosts: Collection[str] | None,
    max_connections: int = MAX_CONNECTIONS,
    limits: ClientLimits = ClientLimits(),  # noqa: B008 - it can't change
    trusted_proxies: Sequence[IPNetwork] = (),
    owner_of: OwnerOf = lambda _, __: None,
    audit: Audit | None = None,
) -> ApiSite:
    """Make the factory of connections, to listen with.

    ``clock`` is the reactor; ``wall_time`` gives POSIX times, for filters like ``24h``; ``allowed_hosts`` are names and
    addresses in lower case, without port or brackets; ``None``: see ``guard.refusal``. ``owner_of`` finds the local
    user at the other end of a connection. ``audit`` records acts and refusals; ``None``: nothing does, in a test.
    """
    under_way = UnderWay()
    door = RecordingDoor(authentication, FailedLogins(limits.failed_logins_per_minute, clock.seconds), audit)
    followers = Followers(limits.followers_per_principal)
    routes = make_app(Context(scheduler, door, clock, wall_time, under_way, followers, audit)).resource()
    hosts = None if allowed_hosts is None else frozenset(allowed_hosts)
    return ApiSite(
        routes, clock, hosts, under_way, max_connections, limits, trusted_proxies, owner_of, audit, door.knows
    )


class HttpServer(Service):
    """Listens for HTTP; ``bound`` is its address once it listens.

    It binds before privileges are shed, serves once started, and drains when stopped.
    """

    _log = Logger()

    def __init__(
        self, reactor: IReactorTCP, address: Address, site: ApiSite, drain: float, tls: TlsFiles | None = None
    ) -> None:
        """``drain``: seconds that requests under way may take after the service is told to stop. ``tls``: for HTTPS."""
        self.bound: Address | None = None
        self._reactor = reactor
        self._address = address
        self._site = site
        self._drain = drain
        self._tls = tls
        self._port: IListeningPort | None = None
        self._looking = Periodic(cast(IReactorTime, reactor), CHECK_INTERVAL_SECONDS, site.cut_off_the_gone)

    def privilegedStartService(self) -> None:
        """Bind the port. Raises ``CannotListenError`` if that fails."""
        super().privilegedStartService()
        clock = cast(IReactorTime, self._reactor)
        factory: Any = self._site if self._tls is None else over_tls(self._site, self._tls, clock)
        self._port = self._reactor.listenTCP(
            self._address.port,
            factory,
            backlog=_BACKLOG,
            interface=self._address.host,
        )
        # No request is answered before the service starts. The kernel keeps new connections until then.
        self._port.stopReading()  # type: ignore[attr-defined]
        where: Any = self._port.getHost()
        self.bound = Address(self._address.host, where.port)

    def startService(self) -> None:
        super().startService()
        if self._port is None:
            self.privilegedStartService()
        self._port.startReading()  # type: ignore[union-attr]
        self._looking.startService()
        scheme = "HTTP" if self._tls is None else "HTTPS"
        self._log.info("{scheme} on {address}", scheme=scheme, address=str(self.bound))

    def stopService(self) -> Deferred[None]:
        """Stop the server. Fires when the last connection is closed."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        await self._site.drain(self._drain)
        self._looking.stopService()
