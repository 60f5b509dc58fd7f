"""The rules about the first contact with a worker: each is broken by a doctored scene, and by nothing else."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.expected import EXPECTED_WAIT_MAX_SECONDS
from scheduler.errors import NotAWorker, NotFound, Unreachable
from scheduler.model import JobState, Presence, Worker, WorkerState
from scheduler.terms import QueueTerms
from tests.simulation.faults.strangers import RegisterStranger
from tests.simulation.rules.expected import BACK, LATELY, NOT_HEARD, NOT_PROBED
from tests.unit.simulation.scene import Scene, world
from tests.unit.simulation.worlds import a_world, broken, registry


class RefusedTests(SynchronousTestCase):
    def refuse(self, reason: str, after: float) -> str:
        """The rule that a refusal breaks so many seconds after the request."""
        scene = Scene()
        scene.judge.submitting("t1")
        scene.loop.now += after
        scene.judge.refused("t1", Unreachable("w1", reason=reason))
        return scene.broken

    def test_at_once(self) -> None:
        """A start must not be refused before the scheduler knows whether the worker is there."""
        for reason in (NOT_PROBED, NOT_HEARD):
            self.assertEqual(self.refuse(reason, 1.0), "a start waits")

    def test_rightly(self) -> None:
        """A start may be refused after it waited, for a known reason, and long after the scheduler's start."""
        self.assertEqual(self.refuse(NOT_PROBED, EXPECTED_WAIT_MAX_SECONDS), "")
        self.assertEqual(self.refuse("calls to it fail: connection refused", 0.0), "")
        scene = Scene()
        scene.loop.now += LATELY + 1.0
        scene.judge.submitting("t1")
        scene.judge.refused("t1", Unreachable("w1", reason=NOT_HEARD))
        self.assertEqual(scene.broken, "")


class NoWorkerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.scene = Scene()
        self.error = NotAWorker("w1", "StartJob")

    def fail_job(self, seconds: float, reason: str) -> str:
        """The rule broken by the failure of a job that may wait for so many seconds."""
        rule = next(rule for rule in self.scene.judge.rules if type(rule).__name__ == "Expected")
        job = self.scene.job(JobState.FAILED, reason=reason, terms=QueueTerms(queue_timeout=seconds))
        rule.shown(None, None, job)
        return self.scene.broken

    def test_jobs(self) -> None:
        """A job that may still wait must not fail because a program is no worker."""
        self.assertEqual(self.fail_job(0.0, str(self.error)), "")
        self.assertEqual(self.fail_job(9.0, f"queue_timeout of 9s passed; the last one asked: {self.error}"), "")
        self.assertEqual(self.fail_job(9.0, "exit status 1"), "")
        self.assertEqual(self.fail_job(9.0, str(self.error)), "no worker, no job")

    def test_online(self) -> None:
        """A program that answered that it is no worker must not be online."""
        run = a_world()
        run.loop.run(5.0)
        first, second = (registry(run).workers.get(name) for name in ("w1", "w2"))
        run.judge.call_answered(first, self.error)
        run.judge.call_answered(second, NotFound("job", "j1"))
        scheduler = run.scheduler
        assert scheduler is not None
        scheduler.parts.ledger.see(second.id, Presence(WorkerState.ONLINE, refusing="no room"))
        scheduler.parts.ledger.see(first.id, Presence())
        self.assertEqual(broken(run), "")
        scheduler.parts.ledger.see(first.id, Presence(WorkerState.ONLINE))
        self.assertEqual(broken(run), "no worker, no job")

    def test_fault(self) -> None:
        """A program that is no worker is registered, and forgotten in the end."""
        run = world(faults=(RegisterStranger(2.0, 5.0),))
        run.begin()
        run.loop.run(4.0)
        names = [worker.name for worker in registry(run).workers.all()]
        self.assertEqual(len(names), 2)
        run.loop.run(60.0)
        self.assertEqual([worker.name for worker in registry(run).workers.all()], ["w1"])


class BackTests(SynchronousTestCase):
    def restarted(self, state: WorkerState) -> str:
        """The rule broken by a worker in that state, shortly after a scheduler's start."""
        run = a_world()
        run.loop.run(5.0)
        scheduler = run.scheduler
        assert scheduler is not None
        run.judge.loaded(scheduler)
        worker: Worker = registry(run).workers.get("w1")
        run.loop.run(5.0 + BACK - 0.001)
        registry(run).see(worker.id, Presence(state))
        run.loop.run(5.0 + BACK + 0.001)
        return broken(run)

    def test_back(self) -> None:
        """A worker known from before must be online in time."""
        self.assertEqual(self.restarted(WorkerState.ONLINE), "")
        self.assertEqual(self.restarted(WorkerState.UNREACHABLE), "back after a restart")
