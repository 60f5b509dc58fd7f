"""Checks that tests wire the scheduler's parts only by ``make_cluster``, in House."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.import_law import imports

TESTS = Path(__file__).parent.parent

#: Names whose use means wiring, because they are made of other parts of the scheduler.
PARTS = {
    "scheduler.cluster.build.make_cluster",
    "scheduler.cluster.expected.Expected",
    "scheduler.cluster.jobs.attendance.Attendance",
    "scheduler.cluster.jobs.choice.Choice",
    "scheduler.cluster.jobs.dispatcher.Dispatcher",
    "scheduler.cluster.jobs.outlook.Outlook",
    "scheduler.cluster.jobs.queue.Queue",
    "scheduler.cluster.jobs.removals.Removals",
    "scheduler.cluster.jobs.retention.Retention",
    "scheduler.cluster.jobs.signals.Signals",
    "scheduler.cluster.jobs.starts.Starts",
    "scheduler.cluster.jobs.stops.Stops",
    "scheduler.cluster.jobs.submissions.Submissions",
    "scheduler.cluster.ledger.Ledger",
    "scheduler.cluster.output.outputs.Outputs",
    "scheduler.cluster.service.Cluster",
    "scheduler.cluster.workers.liveness.Liveness",
    "scheduler.cluster.workers.membership.Membership",
    "scheduler.cluster.workers.observed.ObservedClient",
    "scheduler.cluster.workers.polling.Polling",
    "scheduler.cluster.workers.reconcile.Reconciler",
}

#: Their modules: the text of a test that imports none of them is not parsed.
MODULES = {name.rpartition(".")[0] for name in PARTS}

#: Uses that are allowed all the same.
ALLOWED = {
    ("house.py", "scheduler.cluster.build.make_cluster"),
    # Its processes may die at any event, so they are no doubles.
    ("simulation/nodes.py", "scheduler.cluster.build.make_cluster"),
    # The class alone, with a store.
    ("unit/cluster/ledger_case.py", "scheduler.cluster.ledger.Ledger"),
    ("unit/cluster/test_ledger.py", "scheduler.cluster.ledger.Ledger"),
    ("unit/cluster/test_ledger_tokens.py", "scheduler.cluster.ledger.Ledger"),
    # The class, to have something happen before it starts.
    ("unit/cluster/test_attendance.py", "scheduler.cluster.jobs.attendance.Attendance"),
    # A second instance without memory, to compare with the house's.
    ("unit/cluster/test_outlook.py", "scheduler.cluster.jobs.outlook.Outlook"),
}


class WiringTests(SynchronousTestCase):
    def test_once(self) -> None:
        """No test wires parts of the scheduler by hand, and no exception is outdated."""
        found = {
            (str(path.relative_to(TESTS)), each.name)
            for path in TESTS.rglob("*.py")
            for text in [path.read_text(encoding="utf-8")]
            if any(module in text for module in MODULES)
            for each in imports(path.stem, text)
            if each.name in PARTS
        }
        self.assertEqual(found, ALLOWED)
