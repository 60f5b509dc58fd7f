"""A run as a whole."""

from __future__ import annotations

from attrs import evolve, frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.simulation import world
from tests.simulation.acts import Drain, Forget
from tests.simulation.faults.network import Partition
from tests.simulation.faults.processes import Freeze, StopScheduler, StopWorker
from tests.simulation.faults.store import StoreStalls
from tests.simulation.world import World
from tests.unit.simulation.plans import BOTH, CALM


@frozen
class Restless:
    """An act that keeps the system busy without letting time pass."""

    at: float

    def begin(self, world: World) -> None:
        world.loop.after(0.0, self.begin, world)


class RunTests(SynchronousTestCase):
    """Runs of whole plans."""

    def test_comes_to_rest(self) -> None:
        """A run in which events never end while time stands still is a violation."""
        self.patch(world, "EVENTS_MAX", 20_000)
        violation = World(1, evolve(CALM, acts=(Restless(3.0),))).run().violation
        assert violation is not None
        self.assertEqual((violation.rule, violation.at), ("comes to rest", 3.0))

    def test_drain_and_resume_at_once(self) -> None:
        """A worker may be in either state if it is drained and resumed while the scheduler is frozen."""
        acts = (Drain(6.0, "w1"), Drain(9.0, "w1", resume=True))
        plan = evolve(CALM, length=40.0, faults=(Freeze(5.0, "", 10.0),), acts=acts)
        self.assertEqual([World(seed, plan).run().violation for seed in range(10)], [None] * 10)

    def test_forgotten_while_drained(self) -> None:
        """A client has a drained worker forgotten. When the worker returns, its drain is unknown."""
        acts = (Drain(6.0, "w1"), Forget(27.0, "w1"))
        run = World(1, evolve(CALM, length=50.0, faults=(Partition(10.0, "w1", 30.0, True, True),), acts=acts))
        self.assertIsNone(run.run().violation)
        self.assertIn("forget w1 <- ok", "\n".join(run.trace.lines()))

    def test_stops_late(self) -> None:
        """A program that is still stopping when all faults are over is started as soon as it has ended."""
        stalls = StoreStalls(16.0, 8.0)
        for stop in (StopWorker(17.0, "w1", down=60.0), StopScheduler(17.0, down=60.0)):
            run = World(1, evolve(CALM, faults=(stalls, stop)))
            self.assertIsNone(run.run().violation)
            starts = [line for line in run.trace.lines() if line.endswith((" starts on m1", " starts"))]
            self.assertEqual(float(starts[-1].split()[0]) // 10, 2, starts)

    def test_faults(self) -> None:
        """The faults that struck are counted by kind; planned faults that did not strike are not."""
        self.assertEqual(World(1, BOTH).run().faults, {"StopUndrained": 1})
