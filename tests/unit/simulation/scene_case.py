"""A scene for the rules of the simulator: one worker, no faults, no clients. Each test doctors the judged events."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.registry import Registry
from scheduler.model import Job, JobState
from scheduler.terms import QueueTerms, Target
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.machine import Run
from tests.simulation.nodes import SchedulerProcess
from tests.simulation.plan import Plan, PlannedWorker
from tests.simulation.world import World

#: Seconds after which the worker is registered and has been probed.
BEGUN = 5.0

ANY = Target(selector={})


class SceneCase(SynchronousTestCase):
    """``begin`` starts the scheduler and the worker ``w1``."""

    def setUp(self) -> None:
        self.world = World(1, Plan(10.0, (PlannedWorker("w1", slots=1),), (), ()))
        self.judge = self.world.judge
        self.facts = self.judge.facts

    def begin(self) -> None:
        self.world.start_scheduler()
        self.world.workers["w1"].start()
        self.world.loop.run(BEGUN)
        self.assert_kept()

    @property
    def scheduler(self) -> SchedulerProcess:
        assert self.world.scheduler is not None
        return self.world.scheduler

    @property
    def registry(self) -> Registry:
        return self.scheduler.parts.ledger.registry

    @property
    def worker_id(self) -> str:
        return self.world.workers["w1"].folder.worker_id

    def job(self, job_id: str = "j1", state: JobState = JobState.RUNNING, **more: Any) -> Job:
        """A job of the ticket ``t1``, on ``w1``."""
        facts: dict[str, Any] = {
            "spec": JobPlan(1.0, 0, 0).spec(labels={"ticket": "t1"}),
            "created_at": self.world.scheduler_machine.wall_time(),
            "worker_id": "w-1",
            "worker_name": "w1",
            "target": ANY,
            "terms": QueueTerms(queue_timeout=600.0),
        }
        return Job(id=job_id, state=state, **(facts | more))

    def ended(self, job_id: str = "j1", state: JobState = JobState.SUCCEEDED, **more: Any) -> Job:
        """A job that has ended, by default with exit code 0."""
        facts: dict[str, Any] = {"finished_at": 1.0, "exit_code": 0}
        if state is not JobState.SUCCEEDED:
            facts = {"finished_at": 1.0, "reason": "for a reason"}
        return self.job(job_id, state, **(facts | more))

    def ran(self, job_id: str = "j1", code: int | None = 0, **more: Any) -> Run:
        """The job has run, and has ended like this."""
        run = Run(job_id, "m1", 0.0, 1.0, code, **more)
        self.judge.began(run)
        return run

    def running(self, job_id: str = "j1") -> Run:
        """The job is running."""
        run = Run(job_id, "m1", 0.0)
        self.judge.began(run)
        return run

    def acknowledged(self, job: Job) -> None:
        """A client is told that the job will run."""
        self.judge.submitting("t1")
        self.judge.acknowledged("t1", job)

    def show(self, *jobs: Job) -> None:
        """A client sees the jobs one after the other."""
        for job in jobs:
            self.judge.answered(job)

    def put(self, *jobs: Job) -> None:
        """The scheduler has the jobs, and shows them."""
        for job in jobs:
            self.scheduler.parts.ledger.learn(job, lazily=True)

    def assert_broken(self, rule: str, says: str = "") -> None:
        violation = self.judge.violation
        self.assertEqual(violation and violation.rule, rule)
        assert violation is not None
        self.assertIn(says, violation.what)

    def assert_kept(self) -> None:
        """No rule is broken."""
        self.assertIsNone(self.judge.violation)
