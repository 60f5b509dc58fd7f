"""Access to all routes, in memory."""

from tests.doubles.authentication import Doorkeeper
from tests.unit.api.conversation import Server
from tests.unit.api.scenarios.access import LIMITS, AccessScenarios
from tests.unit.api.test_routes import InMemory


class MemoryAccessTests(AccessScenarios, InMemory):
    """The scenarios, without a socket."""

    def setUp(self) -> None:
        self.doorkeeper = Doorkeeper()
        self.serve(Server(authentication=self.doorkeeper, limits=LIMITS))
