"""Access to all routes, over a real socket."""

from tests.doubles.authentication import Doorkeeper
from tests.integration.test_http_routes import OverSocket
from tests.unit.api.scenarios.access import AccessScenarios


class SocketAccessTests(AccessScenarios, OverSocket):
    """The scenarios, with connections that are kept."""

    def setUp(self) -> None:
        self.doorkeeper = Doorkeeper()
        self.serve(self.doorkeeper)
