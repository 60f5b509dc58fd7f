"""The rule about workers that deregistered: it is broken by a scene made for it, and by nothing else."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from scheduler.model import Ref, Worker, WorkerState
from tests.simulation.faults.processes import KillScheduler, StopWorker
from tests.simulation.machine import EPOCH
from tests.simulation.rules.departed import LISTED
from tests.unit.simulation.worlds import a_world, broken, registry


class DepartedTests(SynchronousTestCase):
    """``w1`` deregisters at about 5 s."""

    def setUp(self) -> None:
        self.world = a_world(StopWorker(5.0, "w1", 60.0))
        self.world.loop.run(4.0)
        self.before = registry(self.world).worker("w1")

    @property
    def ledger(self) -> Any:
        assert self.world.scheduler is not None
        return self.world.scheduler.parts.ledger

    def show(self, **changes: Any) -> None:
        self.ledger.see(evolve(self.before, **changes))

    def gone(self) -> Worker:
        """The worker, once it is offline."""
        self.world.loop.run(8.0)
        self.assertEqual(broken(self.world), "")
        return registry(self.world).worker("w1")

    def test_offline(self) -> None:
        """One that is listed as it was breaks no rule, nor if it is drained and renamed then, and registers again."""
        now = self.gone()
        self.assertIs(now.state, WorkerState.OFFLINE)
        self.show(state=now.state, deregistered_at=now.deregistered_at, draining=True)
        self.show(state=now.state, deregistered_at=now.deregistered_at, name=now.id)
        self.show(state=WorkerState.UNREACHABLE)
        self.assertEqual(broken(self.world), "")

    def test_another(self) -> None:
        """One that is listed with other labels, or another drain, is not listed as it was."""
        offline = {"state": WorkerState.OFFLINE, "deregistered_at": EPOCH}
        for changes in ({"labels": {}}, {"draining": True}, {"slots": 9}, {"name": "w9"}):
            self.setUp()
            self.show(**offline, **changes)
            self.assertEqual(broken(self.world), LISTED)

    def test_removed_at_once(self) -> None:
        """One that is told that it is deregistered, and is not listed, is missing."""
        registry(self.world).remove_worker(self.before.id)
        self.world.judge.deregistered(self.before.id)
        self.assertEqual(broken(self.world), LISTED)

    def test_removed_later(self) -> None:
        """So is one that goes later, unless a client asked for that."""
        for asked, rule in (("", LISTED), ("w1", ""), (self.before.id, "")):
            self.setUp()
            self.gone()
            if asked:
                self.world.judge.forget_asked(asked)
            self.ledger.learn(Ref("worker", self.before.id))
            self.assertEqual(broken(self.world), rule)

    def test_online_before(self) -> None:
        """One that did not deregister is none of these."""
        self.ledger.learn(Ref("worker", self.before.id))
        self.assertEqual(broken(self.world), "")

    def test_without_registration(self) -> None:
        """One that is online, and has not registered, is a violation."""
        now = self.gone()
        self.show(state=WorkerState.ONLINE, deregistered_at=now.deregistered_at)
        self.assertEqual(broken(self.world), LISTED)

    def test_restart(self) -> None:
        """After a restart of the scheduler it is there, and offline."""
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
        """A backup that does not know that it deregistered is not held against the scheduler."""
        self.gone()
        self.world.database.hold(evolve(self.world.database.read(), workers=()))
        self.world.judge.set_back(self.world.database.read())
        KillScheduler(0.0, 1.0).strike(self.world)
        self.world.loop.run(11.0)
        self.assertEqual(broken(self.world), "")
