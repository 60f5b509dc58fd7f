"""Workers that change their labels, and the jobs of a principal whose reach they leave by that."""

from __future__ import annotations

from scheduler.errors import NotFound, Unreachable
from scheduler.model import JobState
from scheduler.terms import QueueTerms, Retry, Target
from tests.unit.security.permitted_case import W1, WAITING, PermittedCase


class RelabelledTests(PermittedCase):
    """A job goes to a worker that has other labels before the job begins."""

    def test_queued(self) -> None:
        """The job waits, and is not started beyond the reach of the principal that submitted it."""
        first = self.started(self.ci, Target(worker="w1"), QueueTerms(queue_timeout=60.0, retry=Retry(1)))
        self.fleet.add_worker("w1", labels={"zone": "b"}, slots=2)
        self.fleet.end(first.id, 1)
        self.flow()
        last = self.admin.last_attempt(first.id)
        self.assertEqual((last.retry_of, self.state(last)), (first.id, JobState.QUEUED))
        waiting_for = self.admin.waiting_for(last)
        assert waiting_for is not None
        told = ("no-match", "worker 'w1' does not have the labels zone=a")
        self.assertEqual((waiting_for.why, waiting_for.detail), told)
        self.assertEqual((self.ci.job(last.id), self.ci.waiting_for(last)), (last, waiting_for))
        self.fleet.add_worker("w1", labels={"zone": "a"}, slots=2)
        self.flow()
        self.assertIs(self.state(last), JobState.RUNNING)

    def relabel(self) -> None:
        self.fleet.add_worker("w1", labels={"zone": "b"}, slots=2)

    def test_not_answered(self) -> None:
        """A start that was not answered is not sent again."""
        for target in (W1, Target(selector={})):
            self.fleet.add_worker("w1", labels={"zone": "a"}, slots=2)
            self.fleet.lose("w1")
            job = self.started(self.ci, target, WAITING)
            self.house.workers.hold("start_job")
            self.fleet.find("w1")
            self.house.take("start_job").answer.errback(Unreachable("w1", sent=True))
            self.flow()
            self.assertIs(self.state(job), JobState.UNKNOWN)
            self.house.workers.release("start_job")
            self.relabel()
            self.fleet.find("w1")
            self.flow()
            self.assertEqual(self.admin.job(job.id).reason, "never started: its worker did not begin it")

    def test_while_it_is_saved(self) -> None:
        """A job whose record is being saved meanwhile is not started, and there is no job."""
        for target in (W1, Target(selector={})):
            self.fleet.add_worker("w1", labels={"zone": "a"}, slots=2)
            self.house.store.held = True
            starting = self.start(self.ci, target)
            self.house.store.held = False
            self.relabel()
            self.house.store.commit_all()
            self.flow()
            self.failureResultOf(starting, NotFound)  # as every job on that worker is, for this principal
            self.assertEqual(self.listed(self.admin), [])
