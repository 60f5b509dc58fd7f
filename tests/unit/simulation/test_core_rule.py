"""The rules about lost jobs of core workers."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from scheduler.model import Job, JobState
from scheduler.terms import QueueTerms, Target
from tests.simulation.acts import Submit
from tests.simulation.faults.processes import Freeze, KillScheduler, KillWorker, Reboot
from tests.simulation.machine import Plan
from tests.simulation.plan import PlannedCoreWorker
from tests.unit.simulation.scene import world
from tests.unit.simulation.worlds import registry


class CoreJobTests(SynchronousTestCase):
    """A job of 600 s on the only core worker."""

    def setUp(self) -> None:
        submit = Submit(8.0, "t1", Plan(600.0, 0, 0), Target(worker="c1"))
        self.world = world(acts=(submit,), core=(PlannedCoreWorker("c1", jobs_run_on=True),))
        self.world.begin()
        self.world.loop.run(10.0)
        (self.job,) = self.world.judge.facts.shown.values()

    def show(self, job: Job) -> str:
        """The violation found when the job is shown."""
        assert self.world.scheduler is not None
        self.world.scheduler.parts.ledger.learn(job, lazily=True)
        violation = self.world.judge.violation
        return "" if violation is None else str(violation)

    def lost(self) -> Job:
        return evolve(self.job, state=JobState.LOST, reason="forgotten", finished_at=1.0)

    def test_lost(self) -> None:
        """The job runs on its worker, so it must not be lost."""
        self.assertIn("core jobs are kept", self.show(self.lost()))

    def test_untraceable(self) -> None:
        """The worker never answered with its id of the job, so the job may run on after clients removed it."""
        facts = self.world.judge.facts
        self.assertEqual(self.show(evolve(self.lost(), remote_id=None)), "")
        registry(self.world).remove_job(self.job.id)
        self.world.judge.agreed()
        self.assertIn(f"job {self.job.id} runs, and is None", str(self.world.judge.violation))
        self.world.judge.violation = None
        facts.removals[self.job.id] = None
        self.world.judge.agreed()
        self.assertIsNone(self.world.judge.violation)


class DroppedTests(SynchronousTestCase):
    """A job that ends on a core worker which is killed before the scheduler asks for the end."""

    def test_lost(self) -> None:
        """The job is lost only if the next process does not know its end."""
        submit = Submit(8.0, "t1", Plan(1.0, 0, 0), Target(worker="c1"))
        faults = (KillWorker(9.5, "c1", 1.0), Freeze(8.5, "", 3.0), KillScheduler(9.6, 1.0))
        for run_on, state in ((False, JobState.LOST), (True, JobState.SUCCEEDED)):
            run = world(acts=(submit,), core=(PlannedCoreWorker("c1", jobs_run_on=run_on),), faults=faults)
            self.assertIsNone(run.run().violation)
            self.assertEqual([job.state for job in run.judge.facts.shown.values()], [state])


class WaitsTests(SynchronousTestCase):
    """A job that is queued for a core worker, which is started again."""

    def test_runs(self) -> None:
        """The worker gets its id back, and runs the job."""
        submit = Submit(14.0, "t1", Plan(1.0, 0, 0), Target(worker="c1"), QueueTerms(1000.0))
        run = world(acts=(submit,), core=(PlannedCoreWorker("c1"),), faults=(Reboot(10.0, "c1", 6.0),))
        self.assertIsNone(run.run().violation)
        self.assertEqual([job.state for job in run.judge.facts.shown.values()], [JobState.SUCCEEDED])
