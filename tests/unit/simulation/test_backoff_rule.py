"""The rule about backoff."""

from __future__ import annotations

from scheduler.cluster.jobs.backoff import BACKOFF_MAX_SECONDS
from scheduler.errors import Unreachable
from scheduler.model import JobState
from tests.unit.simulation.scene_case import SceneCase


class BackoffTests(SceneCase):
    def setUp(self) -> None:
        super().setUp()
        self.begin()

    def put_back(self) -> None:
        """A job that was starting on ``w1`` waits again."""
        starting = self.job(state=JobState.STARTING, worker_id=self.worker_id)
        waiting = self.job(state=JobState.QUEUED, worker_id=None)
        self.judge.rules[:] = [rule for rule in self.judge.rules if type(rule).__name__ == "Backoff"]
        self.put(starting, waiting)

    def hold(self) -> None:
        """``w1`` is in backoff."""
        self.scheduler.parts.backoff.refused(self.worker_id, Unreachable("w1"))

    def start_fails(self) -> None:
        """A start on ``w1`` fails."""
        self.judge.start_failed(self.registry.workers.get(self.worker_id))

    def test_cause(self) -> None:
        """A worker may be in backoff after a failed start."""
        self.start_fails()
        self.hold()
        self.put_back()
        self.assert_kept()

    def test_free(self) -> None:
        """A job may wait again without a failed start, if its worker is not in backoff."""
        self.put_back()
        self.assert_kept()

    def test_no_cause(self) -> None:
        self.hold()
        self.put_back()
        self.assert_broken("backoff has a cause", "j1")

    def test_old_cause(self) -> None:
        """A backoff never lasts so long."""
        self.start_fails()
        self.world.loop.run(self.world.loop.now + BACKOFF_MAX_SECONDS + 1.0)
        self.hold()
        self.put_back()
        self.assert_broken("backoff has a cause", "j1")
