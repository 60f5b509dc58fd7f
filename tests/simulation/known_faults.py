"""The known faults of the product, each with a plan that shows it."""

from __future__ import annotations

from tests.simulation import known_set_back
from tests.simulation.acts import Drain
from tests.simulation.faults.processes import StopWorker
from tests.simulation.known import Known
from tests.simulation.plan import Plan, PlannedWorker

_DURABILITY = (
    Known(
        name="a drain is lost when a worker leaves",
        why="A worker that is stopped with no job deregisters and is forgotten, and with it that it was drained.",
        rules=("a drain stays",),
        causes=(("StopWorker",),),
        plan=Plan(
            length=10.0,
            workers=(PlannedWorker("w1"),),
            faults=(StopWorker(2.0, "w1", down=1.0),),
            acts=(Drain(1.0, "w1"),),
        ),
    ),
)

KNOWN: tuple[Known, ...] = (
    *_DURABILITY,
    *known_set_back.KNOWN,
)
