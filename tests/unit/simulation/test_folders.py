"""State folders whose ended jobs are evicted."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.simulation.faults.folders import Eviction
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.machine import Spool
from tests.simulation.plan import Plan, PlannedWorker
from tests.simulation.world import World


class EvictionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(1, Plan(10.0, (PlannedWorker("w1"),), (), ()))
        self.folder = self.world.workers["w1"].folder
        self.strike = Eviction(0.0, "w1", 5.0).strike

    def keep(self, job_id: str, acknowledged: bool) -> Spool:
        spool = self.folder.spools[job_id] = Spool(job_id, JobPlan(1.0, 0, 0).spec(), 1.0, "b")
        spool.acknowledged = acknowledged
        return spool

    def test_acknowledged(self) -> None:
        """Acknowledged jobs are removed, and their ids stay used. Others stay."""
        self.keep("j1", True)
        self.keep("j2", False)
        self.strike(self.world)
        self.assertEqual((list(self.folder.spools), self.folder.used), (["j2"], {"j1": "pruned"}))

    def test_later(self) -> None:
        """A job acknowledged during the fault is removed then; one acknowledged afterwards stays."""
        self.strike(self.world)
        self.folder.evict(self.keep("j1", True))
        self.world.loop.run(6.0)
        self.folder.evict(self.keep("j2", True))
        self.assertEqual(list(self.folder.spools), ["j2"])
