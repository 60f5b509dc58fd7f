"""A failing run as a person reads it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.simulation.plan import Plan
from tests.simulation.selection import Selection
from tests.simulation.timeline import described, timeline, without_repeats
from tests.simulation.world import World
from tests.unit.simulation.plans import BOTH, DRAIN, END


def shown(plan: Plan) -> list[str]:
    """The timeline of a run, without times."""
    world = World(1, plan)
    outcome = world.run()
    assert outcome.violation is not None
    return [line[12:] for line in timeline(world, outcome)]


class TimelineTests(SynchronousTestCase):
    """The timeline holds the events that concern the broken rule."""

    def test_job(self) -> None:
        """All events of the job are shown under the name of its ticket: request, answer, start, end, states."""
        lines = shown(END)
        story = [line.split(maxsplit=1)[1] for line in lines if "t2" in line]
        for wanted in (
            "submit -> 10.0.0.1:3000 t2",
            "shows job t2 starting on w2",
            "job t2 begins, for 5 s, to exit with 0",
            "submit t2 <- job t2 running on w2",
            "job t2 ends with 0",
            "shows job t2 succeeded on w2 code 0",
            "loads job t2 succeeded on w2 code 0",
        ):
            self.assertIn(wanted, story)
        self.assertIn("a final state stays", lines[-1])

    def test_faults(self) -> None:
        """Each fault is shown, and each process that starts."""
        text = "\n".join(shown(END))
        for wanted in ("the database gives way", "the scheduler is killed", "scheduler.2  starts"):
            self.assertIn(wanted, text)

    def test_others(self) -> None:
        """Only requests and answers of other jobs are shown, and no routine events."""
        lines = shown(END)
        self.assertFalse([line for line in lines if "t1" in line and not line.startswith("client")])
        self.assertFalse([line for line in lines if "probe" in line or "ended=[] <- ok" in line])

    def test_no_job(self) -> None:
        """All jobs are shown if a rule is broken for no particular job."""
        text = "\n".join(shown(DRAIN))
        self.assertIn("shows job t1 running", text)
        self.assertIn("drain w1 <- ok", text)

    def test_ids_of_workers(self) -> None:
        """The id of a worker is shown as its name."""
        self.assertIn("deregister -> 10.0.0.1:50000 <w1>", "\n".join(shown(DRAIN)))

    def test_repeats(self) -> None:
        """Repeated lines are shown once, with their number and the time of the last."""
        entries = [(1.0, "a", "x"), (2.0, "b", "x"), (3.0, "b", "x"), (4.0, "b", "x"), (5.0, "a", "y"), (6.0, "a", "y")]
        self.assertEqual(
            list(without_repeats(entries)),
            [
                (1.0, "a", "x"),
                (2.0, "b", "x"),
                (4.0, "", "(the last line 2 times more)"),
                (5.0, "a", "y"),
                (6.0, "", "(the last line 1 times more)"),
            ],
        )


class DescribedTests(SynchronousTestCase):
    def test_order(self) -> None:
        """Workers come first, then faults and acts by their times, each under its name in the whole plan."""
        names = [line.split(":")[0] for line in described(BOTH, Selection(("f1", "f3", "a2", "a3", "w1")))]
        self.assertEqual(names, ["w1", "a3", "f1", "a2", "f3"])

    def test_text(self) -> None:
        """Each part is described with its present values."""
        lines = described(DRAIN, Selection(("f1", "w1"), (("f1.down", 2.5), ("w1.slots", 1))))
        self.assertEqual(lines, ["w1: a worker with 1 slot", "f1: at 5.000 s worker w1 is stopped, for 2.5 s"])
