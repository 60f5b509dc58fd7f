"""The mutations fit the code that they change."""

from __future__ import annotations

import json
import sys

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.simulation.judge import Violation
from tests.simulation.mutations.loading import Simulation, load
from tests.simulation.mutations.mutation import Outdated
from tests.simulation.mutations.search import RECORDED, first
from tests.simulation.mutations.table import MUTATIONS
from tests.simulation.profiles import PROFILES, make_plan
from tests.simulation.world import World


class TableTests(SynchronousTestCase):
    def test_present(self) -> None:
        """The text of each mutation is in the code exactly once, and its replacement is Python."""
        outdated = []
        for mutation in MUTATIONS:
            try:
                compile(mutation.source(), mutation.file, "exec")
            except Outdated as error:
                outdated.append(str(error))
        self.assertEqual(outdated, [], "\n".join(outdated))

    def test_named(self) -> None:
        """Names are unique, and each mutation has a profile and a rule."""
        names = [mutation.name for mutation in MUTATIONS]
        self.assertEqual(len(names), len(set(names)))
        for mutation in MUTATIONS:
            self.assertIn(mutation.profile, PROFILES)
            self.assertTrue(mutation.rules and mutation.promise.endswith("."), mutation.name)


class RecordedTests(SynchronousTestCase):
    def test_complete(self) -> None:
        """Each mutation has a recorded seed, so that all can be tried at once. Otherwise record them."""
        self.assertEqual(list(json.loads(RECORDED.read_text())), [mutation.name for mutation in MUTATIONS])


class LoadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.mutation = next(each for each in MUTATIONS if each.name == "do not free reserved slots")

    def test_outdated(self) -> None:
        """A mutation whose text is missing, or there more than once, must be adapted."""
        for text in ("no such line\n", "\n"):
            with self.assertRaises(Outdated):
                evolve(self.mutation, old=text).source()

    def test_not_loaded(self) -> None:
        """A mutation of code that the simulator does not run is refused."""
        self.assertRaises(Outdated, load, evolve(self.mutation, file="worker/commands.py", old="", new=""))

    def test_loaded_beside(self) -> None:
        """The changed code is loaded beside the present code, which stays unchanged."""
        loaded = {name: module for name, module in sys.modules.items() if name.startswith(("scheduler", "tests"))}
        changed = load(self.mutation)
        self.assertEqual({name: sys.modules.get(name) for name in loaded}, loaded)
        theirs, ours = (
            world(1, plan(1, "store")) for world, plan in ((changed.world, changed.make_plan), (World, make_plan))
        )
        for each in (theirs, ours):
            each.start_scheduler()
        theirs, ours = (each.scheduler.parts.ledger.registry for each in (theirs, ours))
        for registry in (theirs, ours):
            registry.reserve("w")
            registry.release("w")
        self.assertEqual((theirs.load("w"), ours.load("w")), (1, 0))


class _Run:
    """A run that breaks that rule."""

    def __init__(self, rule: str | None) -> None:
        self.violation = None if rule is None else Violation(rule, "what", 1.0)

    def run(self) -> _Run:
        return self


def _run(seed: int, rule: str | None) -> _Run:
    return _Run(rule)


class FirstTests(SynchronousTestCase):
    def seed(self, changed: dict[int, str], unchanged: dict[int, str], *rules: str) -> int | None:
        """The seed that finds the mutation. Each code breaks these rules in these seeds."""
        mutation = evolve(MUTATIONS[0], rules=rules)
        codes = [
            Simulation(lambda seed, profile, broken=broken: broken.get(seed), _run) for broken in (changed, unchanged)
        ]
        return first(range(1, 10), mutation, *codes).seed

    def test_found(self) -> None:
        """The first seed in which a rule is broken counts."""
        self.assertEqual(self.seed({3: "A", 5: "A"}, {}, "A"), 3)

    def test_not_found(self) -> None:
        self.assertIsNone(self.seed({}, {}, "A"))

    def test_other_rule(self) -> None:
        """A rule that the mutation is not expected to break does not count."""
        self.assertEqual(self.seed({3: "B", 5: "A"}, {}, "A"), 5)

    def test_known(self) -> None:
        """A rule that the unchanged code breaks in the same seed does not count."""
        self.assertEqual(self.seed({3: "A", 4: "A", 5: "A"}, {3: "A", 4: "B"}, "A"), 4)
