"""The rule about deregistered workers: it is broken by a doctored scene, and by nothing else."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from scheduler.model import Presence, Ref, Worker, WorkerState
from tests.simulation.faults.processes import KillScheduler, StopWorker
from tests.simulation.machine import EPOCH
from tests.simulation.rules.departed import LISTED
from tests.unit.simulation.worlds import a_world, broken, registry


class DepartedTests(SynchronousTestCase):
    """``w1`` deregisters at about 5 s."""

    def setUp(self) -> None:
        self.world = a_world(StopWorker(5.0, "w1", 60.0))
        self.world.loop.run(4.0)
        self.before = registry(self.world).workers.get("w1")

    @property
    def ledger(self) -> Any:
        assert self.world.scheduler is not None
        return self.world.scheduler.parts.ledger

    def show(self, **changes: Any) -> None:
        self.ledger.learn(evolve(self.before, **changes))

    def gone(self) -> Worker:
        """The worker, once it is offline."""
        self.world.loop.run(8.0)
        self.assertEqual(broken(self.world), "")
        return registry(self.world).workers.get("w1")

    def test_offline(self) -> None:
        """A worker listed unchanged breaks no rule, even if a client drains or renames it, or if it registers again."""
        now = self.gone()
        self.assertTrue(now.is_offline)
        self.show(deregistered_at=now.deregistered_at, draining=True)
        self.show(deregistered_at=now.deregistered_at, name=now.id)
        self.show()
        self.assertEqual(broken(self.world), "")

    def test_another(self) -> None:
        """A worker must not be listed with another name, drain, labels or slots."""
        for changes in ({"labels": {}}, {"draining": True}, {"slots": 9}, {"name": "w9"}):
            self.setUp()
            self.show(deregistered_at=EPOCH, **changes)
            self.assertEqual(broken(self.world), LISTED)

    def test_removed_at_once(self) -> None:
        """A worker that was told of its deregistration must be listed."""
        registry(self.world).remove_worker(self.before.id)
        self.world.judge.deregistered(self.before.id)
        self.assertEqual(broken(self.world), LISTED)

    def test_removed_later(self) -> None:
        """Only a client may have it removed later."""
        for asked, rule in (("", LISTED), ("w1", ""), (self.before.id, "")):
            self.setUp()
            self.gone()
            if asked:
                self.world.judge.forget_asked(asked)
            self.ledger.learn(Ref("worker", self.before.id))
            self.assertEqual(broken(self.world), rule)

    def test_online_before(self) -> None:
        """A worker that did not deregister may be removed."""
        self.ledger.learn(Ref("worker", self.before.id))
        self.assertEqual(broken(self.world), "")

    def test_without_registration(self) -> None:
        """A deregistered worker must not be online before it registers."""
        now = self.gone()
        self.ledger.see(now.id, Presence(WorkerState.ONLINE))
        self.assertEqual(broken(self.world), LISTED)

    def test_restart(self) -> None:
        """The worker is listed as offline after a restart of the scheduler."""
        for state, rule in ((WorkerState.OFFLINE, ""), (WorkerState.UNREACHABLE, LISTED), (None, LISTED)):
            self.setUp()
            now = self.gone()
            self.world.judge.forget_asked("w2")
            KillScheduler(0.0, 1.0).strike(self.world)
            if state is None:
                held = self.world.database.read()
                self.world.database.hold(evolve(held, workers=held.workers[1:]))
            elif state is WorkerState.UNREACHABLE:
                self.world.database.commit([[evolve(now, deregistered_at=None)]], ())
            self.world.loop.run(11.0)
            self.assertEqual(broken(self.world), rule, state)

    def test_database_set_back(self) -> None:
        """The scheduler may have forgotten the deregistration if the database was set back."""
        self.gone()
        self.world.database.hold(evolve(self.world.database.read(), workers=()))
        self.world.judge.set_back(self.world.database.read())
        KillScheduler(0.0, 1.0).strike(self.world)
        self.world.loop.run(11.0)
        self.assertEqual(broken(self.world), "")
