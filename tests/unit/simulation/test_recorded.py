"""The rule that the audit is whole, and has every start."""

from __future__ import annotations

from attrs import evolve

from scheduler.security.audit import Act
from tests.unit.simulation.scene_case import SceneCase


class RecordedTests(SceneCase):
    def setUp(self) -> None:
        super().setUp()
        self.begin()

    def until_idle(self) -> None:
        self.world.loop.run(self.world.loop.now + 60.0)

    def started(self, job_id: str = "j1") -> None:
        self.scheduler.parts.audit.record(Act(1.0, "token:client", "start", job_id))

    def test_recorded(self) -> None:
        """A job whose start is recorded breaks nothing; nor does one that a worker reported, or another attempt."""
        self.show(self.ended(), self.ended("j2", target=None), self.ended("j3", retry_of="j1"))
        self.started()
        self.until_idle()
        self.judge.rested()
        self.assertNotIn("audit", str(self.judge.violation))

    def test_missing(self) -> None:
        """A job without a recorded start is found."""
        self.until_idle()
        self.judge.facts.shown["j1"] = self.ended()
        self.judge.rested()
        self.assert_broken("a start is in the audit", "j1")

    def test_changed(self) -> None:
        """An entry that was changed is found."""
        self.started()
        self.until_idle()
        (kept,) = self.world.database.audit
        changed = evolve(kept, act=evolve(kept.act, who="token:evil"))
        self.patch(type(self.world.database), "audit", (changed,))
        self.judge.rested()
        self.assert_broken("the audit is a chain", "row 1")
