"""Jobs that a client removes, as clients see them."""

from __future__ import annotations

from twisted.internet.defer import maybeDeferred

from scheduler.errors import JobNotEnded, JobRemoved, KeyReused, NotFound
from scheduler.model import Job, JobState, Stream
from scheduler.request_keys import RequestKey
from scheduler.terms import NO_WAITING, QueueTerms, Retry, Target
from scheduler.views import JobFilter
from tests.fleet import W1, FleetTestCase
from tests.house import ECHO, EPOCH

KEY = RequestKey("k", "f" * 64)


class RemovingTests(FleetTestCase):
    def remove(self, job: Job) -> bool:
        """Whether that is done."""
        done: bool = self.successResultOf(self.scheduler.remove(job.id))
        return done

    def check_gone(self, job: Job) -> None:
        """The job is as unknown as one that never was."""
        self.house.settle()
        for method in (self.scheduler.job, self.scheduler.last_attempt):
            self.assertRaises(NotFound, method, job.id)
        self.assertNotIn(job.id, self.ids())
        self.refusal(NotFound, self.scheduler.wait, job.id, 1.0)
        self.refusal(NotFound, self.scheduler.stop, job.id)
        self.refusal(NotFound, self.scheduler.read_output, job.id, Stream.STDOUT, 0, 1)
        self.refusal(NotFound, self.scheduler.remove, job.id)

    def test_ended(self) -> None:
        """A job that has ended is gone with its output, and others stay."""
        job, other = self.ended(3, b"hello"), self.ended()
        self.assertTrue(self.remove(job))
        self.check_gone(job)
        self.assertEqual(self.ids(), [other.id])

    def test_not_ended(self) -> None:
        """A job that runs, or is queued, stays as it is; a job that never was is not found."""
        running = self.submit()
        self.fleet.lose("w1")
        queued = self.successResultOf(self.house.submit(ECHO, W1, QueueTerms(queue_timeout=60.0)))
        for job in (running, queued):
            before = self.scheduler.job(job.id)
            error = self.refusal(JobNotEnded, self.scheduler.remove, job.id)
            self.assertEqual((error.job_id, error.state), (job.id, before.state.value))
            self.assertEqual(self.scheduler.job(job.id), before)
        self.refusal(NotFound, self.scheduler.remove, "nothing")

    def test_later(self) -> None:
        """While its worker can't be reached it stays, says since when it is to go, and goes when the worker is back."""
        job = self.ended(0, b"hello")
        self.fleet.lose("w1")
        for _ in range(2):
            self.assertFalse(self.remove(job))
            self.clock.advance(5.0)
            self.assertEqual(self.scheduler.job(job.id).remove_requested_at, EPOCH + 1)
        self.assertIs(self.state(job), JobState.SUCCEEDED)
        self.assertEqual(self.ids(), [job.id])
        self.fleet.find("w1")
        self.check_gone(job)

    def test_out_of_reach_at_the_call(self) -> None:
        """So it is where that shows at the call."""
        job = self.ended()
        self.house.vanish("id-w1")
        self.assertFalse(self.remove(job))
        self.fleet.find("w1")
        self.check_gone(job)

    def test_forgotten_worker(self) -> None:
        """When its worker is forgotten, or was, it goes at once: nobody is left to be told."""
        waiting, other = self.ended(), self.ended()
        self.fleet.lose("w1")
        self.assertFalse(self.remove(waiting))
        self.successResultOf(self.scheduler.forget("w1"))
        self.check_gone(waiting)
        self.assertTrue(self.remove(other))
        self.check_gone(other)

    def test_never_given_to_a_worker(self) -> None:
        """A job that was stopped in the queue is removed at once."""
        self.fleet.lose("w1")
        job = self.successResultOf(self.house.submit(ECHO, W1, QueueTerms(queue_timeout=60.0)))
        self.successResultOf(self.scheduler.stop(job.id))
        self.assertTrue(self.remove(job))
        self.check_gone(job)

    def test_core_worker(self) -> None:
        """A core worker keeps nothing that could be removed."""
        self.fleet.add_worker("old", core=True)
        job = self.submit(Target(worker="old"))
        self.fleet.end(job.id)
        self.assertTrue(self.remove(job))
        self.check_gone(job)

    def test_lost_and_reported(self) -> None:
        """The end that a worker reports of a job that was removed while it was away makes no job again."""
        job = self.submit()
        self.fleet.end(job.id, 3, report=False)
        self.fleet.lose("w1")
        self.successResultOf(self.scheduler.forget("w1"))
        self.assertTrue(self.remove(job))
        self.fleet.come_back("w1")
        self.fleet.find("w1")
        self.check_gone(job)

    def test_key(self) -> None:
        """Its key stays: the request sent again is told that the job was removed, and runs nothing."""
        job = self.successResultOf(self.house.submit(ECHO, W1, NO_WAITING, KEY))
        self.fleet.end(job.id)
        self.assertTrue(self.remove(job))
        self.assertTrue(self.scheduler.replays(KEY))
        for _ in range(2):
            submitting = maybeDeferred(self.house.submit, ECHO, W1, NO_WAITING, KEY)
            self.assertEqual(self.failureResultOf(submitting, JobRemoved).value.job_id, job.id)
        other = RequestKey(KEY.key, "0" * 64)
        self.failureResultOf(maybeDeferred(self.house.submit, ECHO, W1, NO_WAITING, other), KeyReused)
        self.assertEqual(self.ids(), [])

    def attempts(self) -> tuple[Job, Job]:
        """A job that failed, and the one that followed it and did, too."""
        first = self.successResultOf(self.house.submit(ECHO, W1, QueueTerms(queue_timeout=60.0, retry=Retry(1))))
        self.fleet.end(first.id, 3)
        self.flow()
        first = self.scheduler.job(first.id)
        self.fleet.end(self.scheduler.job(first.retried_by or "").id, 4)
        return first, self.scheduler.job(first.retried_by or "")

    def test_attempt_before(self) -> None:
        """Each attempt is a job of its own: the last one stays when the one before it goes."""
        first, second = self.attempts()
        self.assertTrue(self.remove(first))
        self.check_gone(first)
        self.assertEqual(self.scheduler.job(second.id).retry_of, first.id)
        self.assertEqual(self.scheduler.last_attempt(second.id), second)
        self.assertEqual(self.ids(JobFilter(group_id=first.id)), [second.id])

    def test_attempt_after(self) -> None:
        """Without the last attempt the one before it is the last, whoever waits or stops."""
        first, second = self.attempts()
        self.assertTrue(self.remove(second))
        self.check_gone(second)
        self.assertEqual(self.scheduler.last_attempt(first.id), first)
        self.assertEqual(self.successResultOf(self.scheduler.wait_for_attempts(first.id, 1.0)), first)
        self.assertEqual(self.successResultOf(self.scheduler.stop(first.id)), first)
        self.successResultOf(self.scheduler.stop_matching(JobFilter(worker="w1")))

    def test_follower(self) -> None:
        """A reader of its output gets the error that there is no such job."""
        job = self.ended(0, b"hello")
        reader = self.scheduler.open_output(job.id, Stream.STDOUT, 2)
        self.assertTrue(self.remove(job))
        self.house.settle()
        self.refusal(NotFound, reader.read)
        reader.close()
        self.refusal(NotFound, self.scheduler.open_output, job.id, Stream.STDOUT, 0)
