"""All routes in memory."""

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from scheduler.interfaces import IScheduler
from tests.unit.api.conversation import Server
from tests.unit.api.scenarios import Reply, RouteScenarios


class InMemory(SynchronousTestCase):
    """Mixed into scenarios: their requests go to a server in memory."""

    def serve(self, server: Server) -> None:
        self._server = server
        self.scheduler, self.fleet, self.house = server.parts

    def play(self, done: Deferred[None]) -> None:
        self.successResultOf(done)

    def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> Deferred[Reply]:
        client = self._server.ask(method, path, body, **headers)
        phrase = client.socket.received.split(b"\r\n")[0].decode().split(" ", 2)[2]
        response = client.response()
        return succeed(Reply(response.status, phrase, response.headers, response.body, method, path))


class MemoryRouteTests(RouteScenarios, InMemory):
    """The scenarios, without a socket."""

    def setUp(self) -> None:
        self.serve(Server())


class OverriddenTests(SynchronousTestCase):
    """The double of the scheduler."""

    def test_provides(self) -> None:
        """The double provides ``IScheduler``."""
        verifyObject(IScheduler, Server().scheduler)
