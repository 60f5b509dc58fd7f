"""Many runs in one process."""

from __future__ import annotations

import gc

from twisted.trial.unittest import SynchronousTestCase

from tests.simulation import rounds
from tests.simulation.rounds import Rounds, run_rounds
from tests.simulation.search import Scope
from tests.simulation.world import World
from tests.unit.simulation.plans import make


class MemoryTests(SynchronousTestCase):
    def test_garbage(self) -> None:
        """The memory holds the worlds of a few rounds, however many there are."""
        self.patch(rounds, "COLLECTED_EVERY", 2)
        gc.collect()
        gc.freeze()  # collections, and the search below, pass over the rest of the suite
        self.addCleanup(gc.unfreeze)
        for _ in run_rounds(Scope((), ("calm",), make), Rounds(1, 6), 1):
            pass
        worlds = [each for each in gc.get_objects() if isinstance(each, World)]
        self.assertLess(len(worlds), 4)
