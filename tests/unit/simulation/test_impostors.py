"""Programs that use the ids of workers, and the rule that finds if one is believed."""

from __future__ import annotations

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.workers import ids
from scheduler.messages import HeartbeatAnswer
from tests.simulation.faults.impostors import RULE, ForgedHeartbeat, TakeId
from tests.simulation.plan import Fault, PlannedCoreWorker
from tests.simulation.world import World
from tests.unit.simulation.scene import world
from tests.unit.simulation.worlds import broken, registry


class ImpostorTests(SynchronousTestCase):
    def struck(self, *faults: Fault) -> World:
        run = world(core=(PlannedCoreWorker("c1"),), faults=faults)
        run.begin()
        run.loop.run(10.0)
        return run

    def test_not_believed(self) -> None:
        """The program gets an entry of its own, or none, which is forgotten in the end."""
        kinds = [(folder, core) for folder in (False, True) for core in (False, True)]
        takes = [TakeId(7.0, worker, 5.0, *kind) for worker in ("w1", "c1") for kind in kinds]
        run = self.struck(*takes, ForgedHeartbeat(7.5, "w1"), ForgedHeartbeat(7.5, "c1"))
        self.assertEqual(len(registry(run).workers.all()), 2 + len(takes))
        run.loop.run(60.0)
        self.assertEqual(len(registry(run).workers.all()), 2)
        self.assertEqual(broken(run), "")

    def test_taken_for_a_worker(self) -> None:
        """The rule is broken if the program gets the id of the worker."""
        self.patch(ids, "may_hold", lambda *_: True)
        self.assertEqual(broken(self.struck(TakeId(7.0, "c1", 5.0, True, False))), RULE)

    def test_heard_as_a_worker(self) -> None:
        """The rule is broken if its heartbeat is answered."""
        run = self.struck()
        scheduler = run.scheduler
        assert scheduler is not None
        answer = HeartbeatAnswer(lease=30.0)
        self.patch(scheduler.parts.membership, "heartbeat", lambda *_: succeed(answer))
        ForgedHeartbeat(10.0, "c1").strike(run)
        run.loop.run(11.0)
        self.assertEqual(broken(run), RULE)
