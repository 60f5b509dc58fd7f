"""The planning of faults of identity."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.simulation.profiles import LENGTH, make_plan


class ScenarioTests(SynchronousTestCase):
    def test_before_all_faults_are_over(self) -> None:
        """No fault is planned before the run begins, or for a time when all must be over."""
        for seed in range(200):
            for fault in make_plan(seed, "identity").faults:
                self.assertTrue(0.0 <= fault.at < LENGTH, f"seed {seed}: {fault}")

    def test_all_kinds(self) -> None:
        """Each kind of these faults is planned, also among all other faults."""
        kinds = {
            *("NewAddress", "SwapAddresses", "TakeAddress", "RestartElsewhere", "LoseFolder", "CloneFolder"),
            *("SameName", "RegistrationUnanswered", "RestoreDatabase", "Failover", "ClockStep"),
        }
        for profile, seeds in (("identity", 100), ("all", 600)):
            planned = {type(fault).__name__ for seed in range(seeds) for fault in make_plan(seed, profile).faults}
            self.assertLessEqual(kinds, planned)

    def test_only_known_workers(self) -> None:
        """A fault is planned for existing workers, and for two different ones if it needs two."""
        for seed in range(200):
            plan = make_plan(seed, "identity")
            for fault in plan.faults:
                named = [getattr(fault, name, "") for name in ("worker", "other", "dead")]
                named = [name for name in named if name]
                self.assertEqual(len(set(named)), len(named))
                self.assertLessEqual(set(named), {worker.name for worker in plan.workers})
