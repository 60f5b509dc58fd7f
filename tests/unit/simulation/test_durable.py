"""The rule that acknowledged facts are durable, judged when a scheduler restarts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scheduler.model import Ref
from tests.simulation.clients import Reply
from tests.simulation.faults.store import StoreFails, StoreStalls
from tests.unit.simulation.scene_case import SceneCase
from tests.unit.simulation.worlds import a_world, broken, job_of, registry


class DurableTests(SceneCase):
    def setUp(self) -> None:
        super().setUp()
        self.begin()

    def restart(self) -> None:
        self.scheduler.process.end()
        self.world.start_scheduler()
        self.world.loop.run(self.world.loop.now + 1.0)

    def replied(self, name: str, value: object, job_id: str = "j1") -> None:
        self.judge.replied(Reply(name, job_id, 1.0, 2.0, value))

    def commit(self) -> None:
        """Save the noted changes."""
        self.world.loop.run(self.world.loop.now + 1.0)

    def test_shown(self) -> None:
        """A job that was shown is there, which it is not if the scheduler ends before the change is durable."""
        self.put(self.job())
        self.commit()
        self.restart()
        self.assert_kept()
        self.put(self.job("j2"))
        self.restart()
        self.assert_broken("shown is stored", "j2")

    def test_may_be_gone(self) -> None:
        """A job may be gone if a client removed it, if it was dropped, or if its worker will report it again."""
        self.judge.removal_asked("j1")
        self.put(self.job(), self.job("j2"), self.job("j3", target=None))
        self.scheduler.parts.ledger.learn(self.job("j2").ref)
        self.restart()
        self.assert_kept()

    def test_stop(self) -> None:
        """An acknowledged stop is there."""
        stopped = self.job(stop_requested_at=1.0)
        self.put(stopped)
        self.replied("stop", stopped)
        self.commit()
        self.restart()
        self.assert_kept()

    def test_end(self) -> None:
        """An end that a worker may forget is stored, unless a client removed the job."""
        self.ran()
        self.put(self.ended())
        self.commit()
        self.judge.removal_asked("j2")
        self.judge.ends_acknowledged(["j1", "j2"])
        self.assert_kept()

    def test_end_is_not_stored(self) -> None:
        """An acknowledged end that is not stored, or not any more, breaks the rule."""
        self.put(self.job())
        self.commit()
        self.judge.ends_acknowledged(["j1"])
        self.assert_broken("acknowledged is stored", "j1")
        self.setUp()
        self.ran()
        self.put(self.ended())
        self.commit()
        self.scheduler.parts.ledger.learn(Ref("job", "j1"))
        self.commit()
        self.judge.ends_acknowledged(["j1"])
        self.assert_broken("acknowledged is stored", "j1")

    def test_set_back(self) -> None:
        """A database that was set back does not know of a later stop."""
        self.put(self.job())
        self.commit()
        self.replied("stop", self.job(stop_requested_at=1.0))
        self.facts.set_back["j1"] = None
        self.restart()
        self.assert_kept()

    def test_stop_is_gone(self) -> None:
        self.put(self.job())
        self.commit()
        self.replied("stop", self.job(stop_requested_at=1.0))
        self.restart()
        self.assert_broken("a stop is kept", "j1")


class StalledTests(SynchronousTestCase):
    """The store stalls for longer than a call may take; then one commit fails."""

    def test_end(self) -> None:
        """An end that was reported meanwhile is saved later, and is not acknowledged before."""
        stalls, fails = StoreStalls(11.0, 12.5), StoreFails(23.4, 0.1002, share=1.0, though_committed=0.0)
        world = a_world(stalls, fails, acts=(job_of(11.0, 1.0, "w1"),), workers=("w1",))
        world.loop.run(60.0)
        lines = world.trace.lines()
        self.assertTrue(any("heartbeat" in line and "deadline" in line for line in lines))
        self.assertEqual([line for line in lines if "a commit fails" in line][1:], [])
        self.assertEqual(broken(world), "")
        (job_id,) = world.judge.facts.runs
        self.assertTrue(registry(world).jobs.get(job_id).state.final)
        self.assertIn(job_id, world.database.ended)
