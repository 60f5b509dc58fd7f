"""The rule that what was told is durable, seen when a scheduler starts again."""

from __future__ import annotations

from tests.simulation.clients import Reply
from tests.unit.simulation.scene_case import SceneCase


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
        """What was noted is saved."""
        self.world.loop.run(self.world.loop.now + 1.0)

    def test_shown(self) -> None:
        """A job that was shown is there."""
        self.put(self.job())
        self.commit()
        self.restart()
        self.assert_kept()

    def test_shown_and_gone(self) -> None:
        self.put(self.job())
        self.restart()  # before that is durable
        self.assert_broken("shown is stored", "j1")

    def test_may_be_gone(self) -> None:
        """One that a client removed may be gone, one that was dropped, and one that its worker tells of again."""
        self.judge.removal_asked("j1")
        self.put(self.job(), self.job("j2"), self.job("j3", target=None))
        self.scheduler.parts.ledger.drop_job(self.job("j2"))
        self.restart()
        self.assert_kept()

    def test_stop(self) -> None:
        """The stop that a client was told of is there."""
        stopped = self.job(stop_requested_at=1.0)
        self.put(stopped)
        self.replied("stop", stopped)
        self.commit()
        self.restart()
        self.assert_kept()

    def test_set_back(self) -> None:
        """A database that was set back does not know of a stop that came later."""
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
