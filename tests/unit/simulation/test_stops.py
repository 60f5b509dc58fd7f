"""The rules about stops."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from scheduler.model import Job, JobState, Worker
from scheduler.terms import Target
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.plan import Plan, PlannedWorker
from tests.simulation.rules.stops import PROMPTLY, Stops
from tests.simulation.world import World


class StopsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(1, Plan(10.0, (PlannedWorker("w1"),), (), ()))
        self.world.start_scheduler()
        self.world.loop.run(1.0)
        self.broken: list[str] = []
        self.rule = Stops(self.world.judge.facts, lambda rule, what, job: self.broken.append(rule))

    def show(self, job_id: str = "j1", state: JobState = JobState.RUNNING, **more: Any) -> None:
        """The scheduler has the job, and shows it."""
        job = Job(job_id, JobPlan(1.0, 0, 0).spec(), state, 1.0, target=Target(worker="w1"), worker_id="w-1", **more)
        assert self.world.scheduler is not None
        ledger = self.world.scheduler.parts.ledger
        before = ledger.registry.jobs.find(job_id)
        ledger.learn(job, lazily=True)
        self.rule.shown(self.world.scheduler, before, job)

    def test_carried_out(self) -> None:
        """A job with a stop on record has ended when all sides agree."""
        self.show(stop_requested_at=1.0)
        self.show(state=JobState.STOPPED, stop_requested_at=1.0, finished_at=2.0)
        self.world.loop.run(1.0 + 2 * PROMPTLY)
        self.rule.agreed()
        self.assertEqual(self.broken, [])

    def test_not_carried_out(self) -> None:
        self.show(stop_requested_at=1.0)
        self.world.loop.run(1.0 + 2 * PROMPTLY)
        self.rule.agreed()
        self.assertEqual(self.broken, ["a stop is carried out"])

    def test_asked_just_now(self) -> None:
        """A stop takes a while."""
        self.show(stop_requested_at=1.0)
        self.rule.agreed()
        self.assertEqual(self.broken, [])

    def test_after_the_end(self) -> None:
        """No stop is sent to a worker at the moment when it reports the end of the job."""
        worker = Worker("w-1", "w1", "10.0.1.2:30000")
        self.rule.ends_reported("w-2", ["j1"])
        self.rule.ends_reported("w-1", ["j2"])
        self.rule.stopping(worker, "j1")
        self.world.loop.run(2.0)
        self.rule.stopping(worker, "j2")
        self.assertEqual(self.broken, [])
        self.rule.ends_reported("w-1", ["j1"])
        self.rule.stopping(worker, "j1")
        self.assertEqual(self.broken, ["no stop after the end"])

    def test_while_the_end_is_saved(self) -> None:
        """No stop is sent while the end of the job is being saved."""
        self.show()
        assert self.world.scheduler is not None
        ledger = self.world.scheduler.parts.ledger
        ledger.learn(evolve(ledger.registry.jobs.get("j1"), state=JobState.SUCCEEDED, finished_at=2.0))
        self.rule.stopping(Worker("w-1", "w1", "10.0.1.2:30000"), "j1")
        self.assertEqual(self.broken, ["no stop after the end"])

    def test_ends_the_chain(self) -> None:
        """No attempt follows a job with a stop on record."""
        self.show(stop_requested_at=1.0)
        self.show("j2", JobState.QUEUED, retry_of="j1")
        self.assertEqual(self.broken, ["a stop ends the chain"])

    def test_set_back(self) -> None:
        """A database that was set back may lack the stop, until the job is shown with it again."""
        self.show(stop_requested_at=1.0)
        self.world.judge.facts.set_back["j1"] = None
        shown = self.world.judge.facts.shown.pop("j1")
        self.show("j2", JobState.QUEUED, retry_of="j1")
        self.assertEqual(self.broken, [])
        self.world.judge.facts.shown["j1"] = shown
        self.show("j3", JobState.QUEUED, retry_of="j1")
        self.assertEqual(self.broken, ["a stop ends the chain"])

    def test_next_attempt(self) -> None:
        """An attempt follows if no stop was requested, or if the stop was lost before it was acknowledged."""
        self.show(stop_requested_at=1.0)
        self.show()
        self.show("j2", JobState.QUEUED, retry_of="j1")
        self.assertEqual(self.broken, [])
