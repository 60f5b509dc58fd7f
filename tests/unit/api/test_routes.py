"""All routes in memory: a real client and a real server without a socket."""

from typing import Any

from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from scheduler.interfaces import IScheduler
from tests.unit.api.conversation import Server
from tests.unit.api.scenarios import Reply, RouteScenarios


class MemoryRouteTests(RouteScenarios, SynchronousTestCase):
    """The scenarios, with treq's in-memory transport."""

    def setUp(self) -> None:
        self._server = Server()
        self.scheduler, self.fleet, self.house = self._server.parts
        self._client = StubTreq(self._server.site.resource)
        # StubTreq makes a Site of its own, without our limits.
        self._client._agent._serverFactory = self._server.site

    def play(self, done: Deferred[None]) -> None:
        self.successResultOf(done)

    def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> Deferred[Reply]:
        return Deferred.fromCoroutine(self._call(method, path, body, headers))

    async def _call(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        asked = self._client.request(
            method, f"http://127.0.0.1:3000{path}", data=body, headers=fields, allow_redirects=False
        )
        for _ in range(2):
            self.house.settle()
            self._client.flush()
        response: Any = await asked
        content = await self._client.content(response)
        found = {name.decode().lower(): values[0].decode() for name, values in response.headers.getAllRawHeaders()}
        if response.length is not None and isinstance(response.length, int):
            found.setdefault("content-length", str(response.length))
        return Reply(response.code, response.phrase.decode(), found, content, method, path)


class OverriddenTests(SynchronousTestCase):
    """The double of the scheduler."""

    def test_provides(self) -> None:
        """The double provides ``IScheduler``."""
        verifyObject(IScheduler, Server().scheduler)
