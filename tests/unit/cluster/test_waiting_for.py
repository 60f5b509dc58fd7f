"""The reason why a job waits, and the number of jobs before it, as clients see them."""

from __future__ import annotations

from scheduler.model import Job, JobSpec, JobState
from scheduler.terms import QueueTerms, Retry, Target
from scheduler.views import WaitingFor
from tests.fleet import W1, FleetTestCase
from tests.house import ECHO

HOUR = 3600.0
PATIENT = QueueTerms(queue_timeout=HOUR)
SLOT = Target(selector={"name": "slot"})


class WaitingTests(FleetTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.fleet.add_worker("slot", slots=1)

    def begin(self, target: Target = SLOT, terms: QueueTerms = PATIENT, spec: JobSpec = ECHO) -> Job:
        self.clock.advance(1.0)
        job: Job = self.successResultOf(self.house.submit(spec, target, terms))
        self.house.settle()
        return job

    def waiting(self, job: Job) -> WaitingFor:
        self.house.settle()
        found = self.scheduler.waiting_for(self.scheduler.job(job.id))
        assert found is not None
        self.assertNotEqual(found.detail, "")
        return found

    def why(self, job: Job) -> str:
        return self.waiting(job).why

    def places(self, *jobs: Job) -> list[int]:
        return [self.waiting(job).place for job in jobs]

    def test_not_queued(self) -> None:
        """A job that runs or has ended waits for nothing, whatever was known of it before."""
        first, queued = self.begin(), self.begin()
        self.assertIsNone(self.scheduler.waiting_for(first))
        self.fleet.end(first.id)
        self.flow()
        self.assertIs(self.state(queued), JobState.RUNNING)
        for job in (first, queued, self.scheduler.job(first.id), self.scheduler.job(queued.id)):
            self.assertIsNone(self.scheduler.waiting_for(job))

    def test_two_labels(self) -> None:
        """Where several labels are asked for, the workers that have all of them count."""
        for zone, slots in (("a", 1), ("b", 2)):
            self.fleet.add_worker(zone, slots=slots, labels={"gpu": "yes", "zone": zone})
        target = Target(selector={"gpu": "yes", "zone": "a"})
        self.begin(target)
        self.assertEqual(self.waiting(self.begin(target)).detail, "1 worker matches; its only slot is taken")

    def test_draining(self) -> None:
        """A job waits while all workers that match are drained."""
        self.begin()
        job = self.begin()
        self.successResultOf(self.scheduler.drain("slot"))
        self.assertEqual(self.why(job), "draining")
        self.successResultOf(self.scheduler.resume("slot"))
        self.assertEqual(self.why(job), "no-free-slot")

    def test_backoff(self) -> None:
        """A job waits while its worker could not start jobs, or says that it takes none."""
        self.fleet.runner("slot").shortage = "Too many open files"
        job = self.begin()
        self.flow()
        self.assertEqual(self.why(job), "backoff")
        self.fleet.runner("slot").shortage = ""
        self.clock.advance(60)
        self.fleet.find("slot")
        self.flow()
        self.assertIs(self.state(job), JobState.RUNNING)
        self.fleet.says("slot", refusing="no room on its disk")
        self.fleet.end(self.scheduler.job(job.id).id)
        self.assertEqual(self.why(self.begin()), "backoff")

    def test_delay(self) -> None:
        """An attempt waits until it is due."""
        job = self.begin(W1, QueueTerms(HOUR, retry=Retry(1, 60.0)))
        self.fleet.end(job.id, 1)
        self.flow()
        following = self.scheduler.last_attempt(job.id)
        self.assertEqual(self.why(following), "delay")
        self.fleet.lose("w1")
        self.clock.advance(60)
        self.flow()
        self.assertEqual(self.why(following), "unreachable")

    def test_place_of_an_attempt(self) -> None:
        """An attempt that is not due yet has the place that it would have if it were due."""
        job = self.begin(W1, QueueTerms(HOUR, 5, retry=Retry(1, 60.0)))
        self.fleet.end(job.id, 1)
        self.flow()
        following = self.scheduler.last_attempt(job.id)
        self.fleet.lose("w1")
        for priority in (5, 9, 0):
            self.begin(W1, QueueTerms(HOUR, priority))
        self.assertEqual(self.places(following), [3])
