"""All routes over a real socket."""

from typing import Any

import treq
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from scheduler.api.server import make_site
from scheduler.security.authentication import Authentication
from tests.doubles.authentication import TRUSTING
from tests.unit.api.conversation import HOSTS, Stage
from tests.unit.api.scenarios import NOW, Reply, RouteScenarios
from tests.unit.api.scenarios.access import LIMITS


class OverSocket(TestCase):
    """Mixed into scenarios: their requests go over real connections, which are kept."""

    def serve(self, authentication: Authentication) -> None:
        self.scheduler, self.fleet, self.house = Stage(reactor).parts
        audit = self.house.parts.audit
        self._site = make_site(self.scheduler, authentication, reactor, lambda: NOW, HOSTS, limits=LIMITS, audit=audit)
        self._port = reactor.listenTCP(0, self._site, interface="127.0.0.1")
        self._pool = HTTPConnectionPool(reactor)
        self._client = HTTPClient(Agent(reactor, pool=self._pool))

    async def tearDown(self) -> None:
        await self._pool.closeCachedConnections()
        await self._port.stopListening()
        await self._site.drain(5.0)
        self.assertTrue(self.house.parts.outputs.idle)
        await self.house.stop()

    def play(self, done: Deferred[None]) -> Deferred[None]:
        return done

    def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> Deferred[Reply]:
        return Deferred.fromCoroutine(self._call(method, path, body, headers))

    async def _call(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://127.0.0.1:{self._port.getHost().port}{path}"
        response: Any = await self._client.request(method, url, data=body, headers=fields, allow_redirects=False)
        content = await treq.content(response)
        found = {name.decode().lower(): values[0].decode() for name, values in response.headers.getAllRawHeaders()}
        if isinstance(response.length, int):
            found.setdefault("content-length", str(response.length))
        return Reply(response.code, response.phrase.decode(), found, content, method, path)


class SocketRouteTests(RouteScenarios, OverSocket):
    """The scenarios, with connections that are kept."""

    def setUp(self) -> None:
        self.serve(TRUSTING)
