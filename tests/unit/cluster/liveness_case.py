"""A worker that is probed, for tests of its reachability."""

from twisted.trial.unittest import SynchronousTestCase

from scheduler.model import WorkerState
from tests.house import House
from tests.unit.cluster.values import a_worker

ONLINE, UNREACHABLE = WorkerState.ONLINE, WorkerState.UNREACHABLE
LEASE = 30.0


class LivenessCase(SynchronousTestCase):
    """The scheduler knows ``w-1``; its probes wait in ``self.probes``."""

    def setUp(self) -> None:
        self.house = House(lambda: 1000.0, lease=LEASE)
        self.clock, self.workers = self.house.clock, self.house.workers
        self.ledger, self.liveness = self.house.parts.ledger, self.house.parts.liveness
        self.workers.hold("probe")
        self.probes = self.workers.held
        self.ledger.learn(a_worker())

    def state(self) -> WorkerState:
        return self.ledger.registry.presences.of("w-1").state

    def register(self, worker_id: str = "w-1") -> None:
        """A new process registers as the worker."""
        self.liveness.begin(worker_id)
        self.liveness.heard(worker_id)

    def go_online(self) -> None:
        self.register()
        self.answer_probe()

    def answer_probe(self) -> None:
        """The newest probe succeeds, and the worker is online."""
        self.probes.pop().answer.callback(None)
        self.assertIs(self.state(), ONLINE)
