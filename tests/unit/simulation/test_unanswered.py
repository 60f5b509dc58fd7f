"""Calls of the scheduler that workers carry out, and whose answers are lost."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.simulation.faults.network import Unanswered
from tests.simulation.network import DEADLINE
from tests.simulation.steps import Signal
from tests.simulation.world import World
from tests.unit.simulation.worlds import a_world, broken, job_of


class UnansweredTests(SynchronousTestCase):
    """A client sends a signal to a job at about 10 s."""

    def signalled(self, *faults: Unanswered) -> World:
        """The run until 30 s, in which the signal has arrived once."""
        job = evolve(job_of(60.0, 1.0, "w1"), then=(Signal(9.0, "SIGUSR1"),))
        world = a_world(*faults, acts=(job,), workers=("w1",))
        world.loop.run(30.0)
        (runs,) = world.judge.facts.runs.values()
        self.assertEqual(([run.signals for run in runs], broken(world)), ([["SIGUSR1"]], ""))
        return world

    def answer(self, world: World) -> tuple[float, str]:
        """The time and the text of the client's answer."""
        (line,) = (line for line in world.trace.lines() if "client" in line and "SIGUSR1 <- " in line)
        return float(line.split()[0]), line.partition(" <- ")[2]

    def test_lost(self) -> None:
        """The loss is not noticed, so the call ends at its deadline."""
        at, answer = self.answer(self.signalled(Unanswered(5.0, "signal", 10.0, reset=False)))
        self.assertIn("DeadlineExceeded", answer)
        self.assertGreater(at, 10.0 + DEADLINE)

    def test_reset(self) -> None:
        """The scheduler learns only that the connection was lost."""
        at, answer = self.answer(self.signalled(Unanswered(5.0, "signal", 10.0, reset=True)))
        self.assertIn("DeadlineExceeded", answer)
        self.assertLess(at, 11.0)

    def test_others(self) -> None:
        """Calls of other names are answered, and all calls are once the fault is over."""
        for reset in (False, True):
            for fault in (Unanswered(5.0, "stop", 10.0, reset), Unanswered(2.0, "signal", 5.0, reset)):
                self.assertEqual(self.answer(self.signalled(fault))[1], "ok")
