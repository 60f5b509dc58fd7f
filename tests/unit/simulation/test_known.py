"""Known faults: they are recognised, hide no other fault, and leave the list once they are fixed."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.simulation import known as known_runs
from tests.simulation.acts import Drain
from tests.simulation.faults.processes import KillWorker
from tests.simulation.judge import Violation
from tests.simulation.known import Known, Run, explain
from tests.simulation.known_faults import KNOWN
from tests.simulation.plan import Plan
from tests.simulation.search import Scope, search
from tests.unit.simulation.plans import CALM, DRAIN, END, KNOWN_DRAIN, StopUndrained, make


class ExplainTests(SynchronousTestCase):
    """A known fault is recognised by its rule, its causes and the text of the violation."""

    violation = Violation("a drain stays", "worker w1 was drained, and is not any more", 6.0)

    def explained(self, plan: Plan, run: Run, *known: Known, rule: str = "a drain stays") -> tuple[list[str], bool]:
        """The names of the recognised faults, and whether they explain everything."""
        explained = explain(known, plan, evolve(self.violation, rule=rule), run)
        return [each.name for each in explained.known], explained.violation is None

    def caused_by(self, *causes: str) -> Run:
        """A run that breaks the rule only with a fault of each of these kinds."""
        kinds = set(causes)
        return lambda plan: self.violation if kinds <= {type(fault).__name__ for fault in plan.faults} else None

    def test_known(self) -> None:
        """The rule is kept without the causes of the entry."""
        self.assertEqual(self.explained(DRAIN, self.caused_by("StopUndrained"), KNOWN_DRAIN), (["drain lost"], True))

    def test_another_rule(self) -> None:
        """The same causes break another rule: the violation is new."""
        run = self.caused_by("StopUndrained")
        self.assertEqual(self.explained(DRAIN, run, KNOWN_DRAIN, rule="slots"), ([], False))

    def test_another_cause(self) -> None:
        """Another fault breaks the same rule, with and without that of the entry: the violation is new."""
        killed = KillWorker(7.0, "w1", 1.0)
        for faults in ((*DRAIN.faults, killed), (killed,)):
            run = self.caused_by("KillWorker")
            self.assertEqual(self.explained(evolve(DRAIN, faults=faults), run, KNOWN_DRAIN), ([], False))

    def test_no_cause(self) -> None:
        """The rule is broken without a fault: the violation is new."""
        self.assertEqual(self.explained(CALM, self.caused_by(), KNOWN_DRAIN), ([], False))

    def test_each_cause(self) -> None:
        """Each cause of the entry is needed; otherwise the violation is new."""
        known = evolve(KNOWN_DRAIN, causes=(("Failover", "StoreStalls"), ("KillScheduler",)))
        self.assertEqual(self.explained(END, self.caused_by("Failover", "KillScheduler"), known)[0], ["drain lost"])
        for cause in ("Failover", "KillScheduler"):
            self.assertEqual(self.explained(END, self.caused_by(cause), known), ([], False))

    def test_in_good_weather(self) -> None:
        """An entry without causes is recognised by rule and text, and hides other faults behind it."""
        known = evolve(KNOWN_DRAIN, causes=())
        self.assertEqual(self.explained(CALM, self.caused_by(), known), (["drain lost"], True))
        self.assertEqual(self.explained(CALM, self.caused_by(), known, rule="slots"), ([], False))
        known = evolve(known, looks_right=lambda violation, plan: "w2" in violation.what)
        self.assertEqual(self.explained(CALM, self.caused_by(), known), ([], False))

    def test_looks(self) -> None:
        """Rule and causes are those of the entry, and the text differs: the violation is new."""
        known = evolve(KNOWN_DRAIN, looks_right=lambda violation, plan: "w2" in violation.what)
        self.assertEqual(self.explained(DRAIN, self.caused_by("StopUndrained"), known), ([], False))

    def test_two(self) -> None:
        """Two known faults break one rule independently: each is recognised when the other is left out."""

        def either(plan: Plan) -> Violation | None:
            kinds = {type(each).__name__ for each in plan.faults}
            return self.violation if {"StopUndrained", "KillWorker"} & kinds else None

        plan = evolve(DRAIN, faults=(*DRAIN.faults, KillWorker(7.0, "w1", 1.0)))
        other = evolve(KNOWN_DRAIN, name="other", causes=(("KillWorker",),))
        (name,), everything = self.explained(plan, either, KNOWN_DRAIN, other)
        self.assertIn(name, ("drain lost", "other"))
        self.assertTrue(everything)
        self.assertEqual(self.explained(plan, either, KNOWN_DRAIN), ([], False))


class OccursTests(SynchronousTestCase):
    """An entry is valid as long as its plan shows the fault."""

    def test_all(self) -> None:
        """Each known fault still occurs; otherwise its entry must be removed."""
        self.assertEqual([known.name for known in KNOWN if not known.occurs()], [])
        self.flushLoggedErrors(ValueError)  # from those that break the rule about tracebacks

    def test_fixed(self) -> None:
        """A fault is fixed if its plan breaks no rule, or another one."""
        self.patch(known_runs, "REPLAYS", 2)
        self.assertFalse(evolve(KNOWN_DRAIN, plan=CALM).occurs())
        self.assertFalse(evolve(KNOWN_DRAIN, plan=END).occurs())

    def test_names(self) -> None:
        names = [known.name for known in KNOWN]
        self.assertEqual(sorted(set(names)), sorted(names))


class SearchTests(SynchronousTestCase):
    """The findings of a seed."""

    def found(self, profile: str, *known: str) -> list[str]:
        """The name of the known fault for each finding; ``""``: it is new."""
        entries = tuple(each for each in (KNOWN_DRAIN,) if each.name in known)
        return [each.known for each in search(Scope(entries, (profile,), make), profile, 1, shrunk=False).findings]

    def test_nothing(self) -> None:
        """A run that breaks no rule has no findings, and counts its events."""
        result = search(Scope((), ("end",), make), "calm", 1)
        self.assertEqual((result.findings, result.jobs), ((), 1))
        self.assertEqual(len(result.digest), 64)

    def test_new(self) -> None:
        """A violation that is not on the list is new."""
        self.assertEqual(self.found("drain"), [""])

    def test_known(self) -> None:
        """A violation on the list is known."""
        self.assertEqual(self.found("drain", "drain lost"), ["drain lost"])

    def test_hides_nothing(self) -> None:
        """A known fault that shows first does not hide a new one: the run is repeated without it."""
        self.assertEqual(self.found("both", "drain lost"), ["drain lost", ""])
        _, new = search(Scope((KNOWN_DRAIN,), ("both",), make), "both", 1, shrunk=False).findings
        self.assertIn("a final state stays", new.what)
        self.assertIn("--keep f2,f3,f4,a1,a2,a3,w1,w2\n", new.report)

    def test_stays_new(self) -> None:
        """A new violation is not shrunk to a known one of the same rule."""
        known = evolve(KNOWN_DRAIN, looks_right=lambda violation, plan: "worker w1" in violation.what)
        plan = evolve(
            CALM,
            faults=(StopUndrained(5.0, "w2", 1.0), StopUndrained(8.0, "w1", 1.0)),
            acts=(Drain(4.0, "w1"), Drain(4.0, "w2")),
        )
        (finding,) = search(Scope((known,), ("x",), lambda seed, profile: plan), "x", 1).findings
        self.assertEqual(finding.known, "")
        self.assertIn("--keep f1,a2,w2", finding.report)

    def test_report(self) -> None:
        """A new violation has the commands that repeat it, whole and shrunk, and its timeline."""
        (finding,) = search(Scope((), ("both",), make), "both", 1).findings
        again, shrunk = (line for line in finding.report.splitlines() if "python -m" in line)
        self.assertEqual(again, "again:  python -m tests.simulation --profile both --seed 1")
        self.assertIn("--profile both --seed 1 --keep f1,a3,w1", shrunk)
        self.assertIn("f1: at", finding.report)
        self.assertIn("drain w1 <- ok", finding.report)

    def test_failing_simulation(self) -> None:
        """An error of the simulator is a new finding, with the command that repeats it."""

        def broken(seed: int, profile: str) -> object:
            return evolve(CALM, faults=(KillWorker(1.0, "w9", 1.0),))

        (finding,) = search(Scope((), ("x",), broken), "x", 7).findings  # type: ignore[arg-type]
        self.assertEqual(finding.known, "")
        self.assertIn("--profile x --seed 7", finding.report)
        self.assertIn("KeyError", finding.report)
