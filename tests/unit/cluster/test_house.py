"""The house itself: what its words do to a scheduler."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scheduler.model import Job, JobState, WorkerState
from scheduler.terms import QueueTerms, Target
from tests.house import ANY, ECHO, House
from tests.unit.cluster.values import a_worker

PATIENT = QueueTerms(queue_timeout=3600.0)


class HouseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House()
        self.house.add(a_worker(slots=1))

    def submit(self, terms: QueueTerms = PATIENT) -> Job:
        return self.successResultOf(self.house.submit(ECHO, ANY, terms=terms))

    def state(self, job: Job) -> JobState:
        return self.house.job(job.id).state

    def test_end(self) -> None:
        """A job that ends is reported by its worker, acknowledged, and the next one starts once all has settled."""
        first, second = self.submit(), self.submit()
        self.house.end(first, 3)
        self.house.settle()
        states = [self.state(first), self.state(second)]
        self.assertEqual(states, [JobState.FAILED, JobState.RUNNING])
        self.assertEqual(self.house.runners["w-1"].unacknowledged(), ())
        self.assertEqual(self.house.clock.seconds(), 0.0)

    def test_unreported_end(self) -> None:
        """An end that is not reported is not known."""
        job = self.submit()
        self.house.end(job, report=False)
        self.assertIs(self.state(job), JobState.RUNNING)
        self.house.report("w-1")
        self.assertIs(self.state(job), JobState.SUCCEEDED)

    def test_lose_and_find(self) -> None:
        """The jobs of a worker that is lost are unknown, and run again when it is found."""
        job = self.submit()
        self.house.lose("w-1")
        self.assertEqual(
            (self.house.presence("w-1").state, self.state(job)), (WorkerState.UNREACHABLE, JobState.UNKNOWN)
        )
        self.house.find("w-1")
        self.assertEqual((self.house.presence("w-1").state, self.state(job)), (WorkerState.ONLINE, JobState.RUNNING))

    def worker_state(self) -> WorkerState:
        return self.house.presence("w-1").state

    def test_vanish(self) -> None:
        """A worker that vanished is thought to be online until it is called."""
        self.house.vanish("w-1")
        self.assertIs(self.worker_state(), WorkerState.ONLINE)
        self.house.submit(ECHO, Target(worker="w-1")).addErrback(lambda _: None)
        self.assertIs(self.worker_state(), WorkerState.UNREACHABLE)

    def test_restart(self) -> None:
        """After a restart durable records are known, unsaved ones are not, and running jobs are found again."""
        job = self.submit()
        self.house.store.held = True
        self.house.submit(ECHO, Target(worker="w-1"))
        self.house.restart()
        self.assertEqual(self.house.store.saves, [])
        self.house.store.held = False
        self.assertEqual([each.id for each in self.house.parts.ledger.registry.jobs.unfinished("w-1")], [job.id])
        self.assertIs(self.state(job), JobState.UNKNOWN)
        self.house.report("w-1")
        self.assertIs(self.state(job), JobState.RUNNING)

    def test_timers(self) -> None:
        """Only the timers of what is going on are counted."""
        self.submit()
        self.house.clock.advance(10.0)
        self.assertEqual(self.house.timers(), 0)
        self.submit()
        self.assertGreater(self.house.timers(), 0)
