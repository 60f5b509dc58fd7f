"""Which jobs a filter by worker means, where workers get other names."""

from scheduler.errors import NotFound
from scheduler.model import Job, JobState
from scheduler.terms import QueueTerms, Target
from scheduler.views import JobFilter
from tests.fleet import FleetTestCase
from tests.house import ECHO


class ByWorkerTests(FleetTestCase):
    """``worker``: an id, or a name and who has it now."""

    def setUp(self) -> None:
        super().setUp()
        self.fleet.add_worker("w2")
        self.first, self.second = self.submit(Target(worker="w1")), self.submit(Target(worker="w2"))

    def queue(self, worker: str) -> Job:
        """A job that waits for that worker."""
        self.clock.advance(1.0)
        terms = QueueTerms(queue_timeout=3600)
        job: Job = self.successResultOf(self.house.submit(ECHO, Target(worker=worker), terms))
        self.assertIs(job.state, JobState.QUEUED)
        return job

    def of(self, worker: str) -> list[str]:
        """Ids of the jobs that the filter means."""
        return self.ids(JobFilter(worker=worker))

    def stop(self, worker: str) -> list[str]:
        """Ids of the jobs that a stop of all that the filter means was about."""
        return [job.id for job in self.successResultOf(self.scheduler.stop_matching(JobFilter(worker=worker)))]

    def assert_unknown(self, worker: str) -> None:
        """The filter is refused, in a list and in a stop."""
        which = JobFilter(worker=worker)
        for error in (
            self.refusal(NotFound, self.scheduler.jobs, which, 10, None),
            self.refusal(NotFound, self.scheduler.stop_matching, which),
        ):
            self.assertEqual((error.kind, error.name), ("worker", worker))

    def test_renamed(self) -> None:
        """By its new name a worker has all its jobs; by the old one, which none has now, those it was given by that."""
        self.fleet.rename("w1", "new")
        third = self.submit(Target(worker="new"))
        self.assertEqual(self.of("new"), [third.id, self.first.id])
        self.assertEqual(self.of("id-w1"), [third.id, self.first.id])
        self.assertEqual(self.of("w1"), [self.first.id])
        self.assertEqual(set(self.stop("new")), {third.id, self.first.id})
        self.assertEqual(self.state(self.second), JobState.RUNNING)

    def test_swapped(self) -> None:
        """Where two have swapped their names, a stop reaches the jobs of the one that has the name now."""
        for name, other in (("w1", "w3"), ("w2", "w1"), ("w1", "w2")):
            self.fleet.rename(name, other)
        self.assertEqual((self.of("w1"), self.of("w2")), ([self.second.id], [self.first.id]))
        self.assertEqual(self.stop("w1"), [self.second.id])
        self.assertEqual((self.state(self.first), self.state(self.second)), (JobState.RUNNING, JobState.STOPPED))
        self.assertEqual(self.stop("id-w1"), [self.first.id])

    def test_queued(self) -> None:
        """A job that is queued for a name is of whoever has it; one that is queued for an id is of that worker."""
        self.fleet.lose("w1")
        by_name, by_id = self.queue("w1"), self.queue("id-w1")
        self.assertEqual(self.of("w1"), [by_id.id, by_name.id, self.first.id])
        self.assertEqual(self.of("id-w1"), [by_id.id, by_name.id, self.first.id])
        self.fleet.rename("w2", "w1")
        self.house.settle()
        self.assertEqual(self.scheduler.job(by_name.id).worker_id, "id-w2")
        self.assertEqual(self.of("w1"), [by_name.id, self.second.id])
        self.assertEqual(self.of("id-w1"), [by_id.id, self.first.id])
        self.assertEqual(self.stop("id-w1"), [by_id.id, self.first.id])

    def test_queued_for_a_name_that_none_has(self) -> None:
        """A job that is queued for a name is found by it, and by no later name of the worker that had it."""
        self.fleet.lose("w1")
        job = self.queue("w1")
        self.fleet.rename("w1", "new")
        self.house.settle()
        self.assertEqual(self.state(job), JobState.QUEUED)
        self.assertEqual((self.of("new"), self.of("w1")), ([self.first.id], [job.id, self.first.id]))
        self.assertEqual(self.stop("w1"), [job.id, self.first.id])

    def test_forgotten(self) -> None:
        """The jobs of a worker that was forgotten are found by its id and its name while there are any."""
        self.fleet.lose("w1")
        self.successResultOf(self.scheduler.forget("w1"))
        self.assertEqual((self.of("w1"), self.of("id-w1")), ([self.first.id], [self.first.id]))
        self.assertTrue(self.successResultOf(self.scheduler.remove(self.first.id)))
        self.assert_unknown("w1")
        self.assert_unknown("id-w1")

    def test_nobody(self) -> None:
        """A name that neither a worker nor a job has is refused; that of a worker without jobs is not."""
        self.fleet.add_worker("idle")
        self.assertEqual((self.of("idle"), self.of("id-idle")), ([], []))
        self.assertEqual(self.stop("idle"), [])
        self.assert_unknown("nosuch")
        self.assert_unknown("id-nosuch")
        self.assertEqual(self.ids(JobFilter(worker="w1", created_by="nobody")), [])
