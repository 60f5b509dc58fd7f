"""The HTTP server as a service. It binds before privileges are shed, serves once started, and drains when stopped."""

from __future__ import annotations

from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReactorTCP, IReactorTime
from twisted.logger import Logger

from scheduler.api.peers import CHECK_INTERVAL_SECONDS
from scheduler.api.site import ApiSite
from scheduler.daemon.services import Periodic
from scheduler.net import Address

#: Connections that the kernel keeps until they are accepted.
_BACKLOG = 512


class HttpServer(Service):
    """Listens for HTTP; ``bound`` is its address once it listens."""

    _log = Logger()

    def __init__(self, reactor: IReactorTCP, address: Address, site: ApiSite, drain: float) -> None:
        """``drain``: how long requests under way may take when the service stops, in seconds."""
        self.bound: Address | None = None
        self._reactor = reactor
        self._address = address
        self._site = site
        self._drain = drain
        self._port: IListeningPort | None = None
        self._looking = Periodic(cast(IReactorTime, reactor), CHECK_INTERVAL_SECONDS, site.cut_off_the_gone)

    def privilegedStartService(self) -> None:
        """Bind the port; ``CannotListenError``."""
        super().privilegedStartService()
        self._port = self._reactor.listenTCP(
            self._address.port,
            self._site,  # type: ignore[arg-type]  # klein and twisted differ in what a factory builds
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
        self._log.info("HTTP on {address}", address=str(self.bound))

    def stopService(self) -> Deferred[None]:
        """Fires when the last connection is closed."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        await self._site.drain(self._drain)
        self._looking.stopService()
