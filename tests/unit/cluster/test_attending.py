"""A job that runs only while a client attends it, as clients see it."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred

from scheduler.errors import DeadlineExceeded
from scheduler.model import Job, JobState, Stream
from scheduler.terms import QueueTerms, Retry, Target
from tests.fleet import W1, FleetTestCase
from tests.house import ECHO

MINUTE = 60.0
ATTENDED = QueueTerms(unattended_timeout=MINUTE)
WHY = "stopped: no client followed it or waited for it for 60 s"


class AttendingTests(FleetTestCase):
    def begin(self, terms: QueueTerms = ATTENDED, target: Target = W1) -> Job:
        job: Job = self.successResultOf(self.house.submit(ECHO, target, terms))
        self.house.settle()
        return job

    def pass_(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.house.settle()

    def assert_alive(self, job: Job) -> None:
        self.assertFalse(self.state(job).final)

    def assert_stopped(self, job: Job) -> None:
        ended = self.scheduler.job(job.id)
        self.assertEqual((ended.state, ended.reason), (JobState.STOPPED, WHY))
        self.assertIsNotNone(ended.stop_requested_at)

    def assert_ends_after(self, seconds: float, job: Job) -> None:
        """The job is stopped after that time, and not before."""
        self.pass_(seconds - 0.5)
        self.assert_alive(job)
        self.pass_(0.5)
        self.assert_stopped(job)

    def test_nobody(self) -> None:
        """A job that no client attends is stopped after its time, and its reason says why."""
        self.assert_ends_after(MINUTE, self.begin())
        self.assertEqual(self.house.timers(), 0)

    def test_without(self) -> None:
        """A job without the timeout runs on, whoever attends it, and costs no timer."""
        job = self.begin(QueueTerms())
        self.scheduler.open_output(job.id, Stream.STDOUT, 0).close()
        self.flow()
        self.assertEqual(self.house.timers(), 0)
        self.pass_(1e6)
        self.assertIs(self.state(job), JobState.RUNNING)

    def test_follower(self) -> None:
        """A job runs while a client follows it; when the last one has left, the time begins."""
        job = self.begin()
        readers = [self.scheduler.open_output(job.id, stream, 0) for stream in Stream]
        self.pass_(10 * MINUTE)
        readers[0].close()
        readers[0].close()
        self.pass_(10 * MINUTE)
        self.assert_alive(job)
        readers[1].close()
        self.assert_ends_after(MINUTE, job)

    def test_follower_that_reads(self) -> None:
        """A follower that reads counts as long as its connection lives, with output or without."""
        job = self.begin()
        reader = self.scheduler.open_output(job.id, Stream.STDOUT, 0)
        self.fleet.write(job.id, b"one")
        reading = reader.read()
        self.flow()
        self.assertEqual(self.successResultOf(reading).data, b"one")
        reading = reader.read()
        self.pass_(10 * MINUTE)
        self.assert_alive(job)
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.assert_ends_after(MINUTE, job)

    def test_wait(self) -> None:
        """A job runs while a client waits for its end; a client that hangs up no longer counts."""
        job = self.begin()
        waits: list[Deferred[Job]] = [
            self.scheduler.wait(job.id, 5 * MINUTE),
            self.scheduler.wait_for_attempts(job.id, 600 * MINUTE),
        ]
        self.pass_(10 * MINUTE)
        self.assert_alive(job)
        self.successResultOf(waits[0])
        waits[1].cancel()
        self.failureResultOf(waits[1], CancelledError)
        self.assert_ends_after(MINUTE, job)

    def test_wait_that_is_over(self) -> None:
        """The time begins when a wait is answered before the end."""
        job = self.begin()
        self.pass_(30)
        self.scheduler.wait(job.id, 45)
        self.pass_(45)
        self.assert_ends_after(MINUTE, job)

    def test_questions(self) -> None:
        """Requests that are answered at once do not count: the job itself, its output so far, a wait of no time."""
        job = self.begin()
        self.pass_(20)
        self.scheduler.job(job.id)
        self.successResultOf(self.scheduler.read_output(job.id, Stream.STDOUT, 0, 9))
        self.pass_(20)
        for wait in (self.scheduler.wait, self.scheduler.wait_for_attempts):
            wait(job.id, 0)
        self.pass_(0)
        self.assert_ends_after(20, job)

    def test_end(self) -> None:
        """A job that ends by itself is like any other, and nothing is kept for it."""
        job = self.begin()
        reader = self.scheduler.open_output(job.id, Stream.STDOUT, 0)
        self.fleet.end(job.id, 3)
        reader.close()
        self.assertEqual(self.scheduler.job(job.id).reason, "exit status 3")
        self.scheduler.open_output(job.id, Stream.STDOUT, 0).close()
        self.flow()
        self.assertEqual(self.house.timers(), 0)

    def test_stopped_by_a_client(self) -> None:
        """A stop that a client asked for keeps its own reason."""
        job = self.begin()
        self.fleet.runner().ends_on_stop = False
        stopping = self.scheduler.stop(job.id)
        self.pass_(10 * MINUTE)
        self.failureResultOf(stopping, DeadlineExceeded)
        self.assertEqual(self.scheduler.job(job.id).stop_reason, None)

    def test_queued(self) -> None:
        """A job that nobody attends is withdrawn from the queue."""
        self.fleet.lose("w1")
        job = self.begin(evolve(ATTENDED, queue_timeout=3600.0))
        self.assertIs(job.state, JobState.QUEUED)
        waiting = self.scheduler.wait(job.id, 2 * MINUTE)
        self.pass_(2 * MINUTE)
        self.successResultOf(waiting)
        self.assert_ends_after(MINUTE, job)
        self.assertIsNone(self.scheduler.job(job.id).started_at)

    def test_unreachable(self) -> None:
        """A job whose worker can't be called now is stopped when the worker is back, for the same reason."""
        job = self.begin()
        self.fleet.lose("w1")
        self.pass_(MINUTE)
        self.assert_alive(job)
        self.assertIsNotNone(self.scheduler.job(job.id).stop_requested_at)
        self.fleet.find("w1")
        self.flow()
        self.assert_stopped(job)

    def test_attempts(self) -> None:
        """A client that waits for the attempts attends the one that is to run; a new attempt does not extend time."""
        job = self.begin(evolve(ATTENDED, queue_timeout=3600.0, retry=Retry(5)))
        waiting = self.scheduler.wait_for_attempts(job.id, 3600)
        self.pass_(10)
        self.fleet.end(job.id, 1)
        self.flow()
        second = self.scheduler.last_attempt(job.id)
        self.assertNotEqual(second.id, job.id)
        self.assertEqual(second.terms.unattended_timeout, MINUTE)
        self.pass_(10 * MINUTE)
        self.assert_alive(second)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.pass_(50)
        self.fleet.end(self.scheduler.job(second.id).id, 1)
        self.flow()
        third = self.scheduler.last_attempt(job.id)
        self.assert_alive(third)
        for _ in range(10):  # one leap beyond its time would be time in which the process did not run
            self.pass_(1)
        self.assert_stopped(third)
        self.assertEqual(self.scheduler.last_attempt(job.id).id, third.id)

    def test_an_attempt_that_has_ended(self) -> None:
        """Whoever has read one to its end, or asks for its end, does not attend the next by that."""
        job = self.begin(evolve(ATTENDED, queue_timeout=3600.0, retry=Retry(5)))
        reader = self.scheduler.open_output(job.id, Stream.STDOUT, 0)
        reading = reader.read()
        self.fleet.end(job.id, 1)
        self.assertTrue(self.successResultOf(reading).end)
        self.flow()
        self.pass_(20)
        self.successResultOf(self.scheduler.wait(job.id, 300))
        self.assert_ends_after(MINUTE - 22, self.scheduler.last_attempt(job.id))
        reader.close()
