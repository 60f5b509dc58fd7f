"""The rule that nothing is left: an idle world holds nothing, and anything held is found."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from scheduler.cluster.build import ClusterParts
from scheduler.model import JobState
from tests.simulation.rules import leftovers
from tests.unit.simulation.scene_case import SceneCase


class LeftoversTests(SceneCase):
    def setUp(self) -> None:
        super().setUp()
        self.begin()

    def left(self) -> list[str]:
        return list(leftovers.left_over(self.world))

    def until_idle(self) -> None:
        self.world.loop.run(self.world.loop.now + leftovers.REST, self.judge.at_rest)

    def test_idle(self) -> None:
        """A scheduler and a worker without work soon hold nothing."""
        self.until_idle()
        self.assertEqual(self.left(), [])
        self.judge.rested()
        self.assert_kept()

    def test_parts(self) -> None:
        """Every part that holds anything is examined, except the lines, which the queue covers."""
        names = {field.name for field in ClusterParts.__attrs_attrs__}
        self.assertEqual(names - set(leftovers.PARTS), {"service", "records", "work", "admission", "lines"})

    def test_job(self) -> None:
        """A running job is held by its worker, and a waiting job by the queue."""
        self.until_idle()
        jobs = self.world.workers["w1"].running
        assert jobs is not None
        jobs.jobs.start("j1", self.job().spec, 1.0)
        self.put(self.job("j2", JobState.QUEUED, worker_id=None))
        self.assertIn("w1.1: jobs", self.left())
        self.assertIn("scheduler.1: queue", self.left())
        self.judge.rested()
        self.assert_broken("nothing left")

    def test_load(self) -> None:
        self.until_idle()
        self.registry.reserve(self.worker_id)
        self.assertEqual(self.left(), ["scheduler.1: registry"])

    def test_timer(self) -> None:
        """An additional timer is found in the scheduler and in a worker."""
        self.until_idle()
        worker = self.world.workers["w1"].running
        assert worker is not None
        for process in (self.scheduler.process, worker.process):
            timer = process.clock.callLater(1e6, lambda: None)
            self.assertEqual(len(self.left()), 1)
            self.assertIn(f"{process.name}: ", self.left()[0])
            timer.cancel()
        self.assertEqual(self.left(), [])

    def test_call(self) -> None:
        """A call that is neither answered nor given up is found."""
        self.until_idle()
        self.world.ask("hang", lambda service: Deferred(lambda _: None), seconds=1e6)
        self.world.loop.run(self.world.loop.now + 1.0)
        self.assertIn("network: client waits for hang", self.left())

    def test_link(self) -> None:
        """A link in the middle of a call is not idle."""
        self.until_idle()
        worker = self.world.workers["w1"].running
        assert worker is not None
        self.world.loop.run(self.world.loop.now + 60.0, lambda: not worker.link.idle)
        self.assertIn("w1.1: link", self.left())
