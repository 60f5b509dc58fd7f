"""Jobs that nobody attends: restarts, shutdowns, and stops that can't be made."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import fail

from scheduler.cluster.build import RETRY_INTERVAL_SECONDS
from scheduler.cluster.jobs.attendance import (
    STOP_RETRY_INTERVAL_SECONDS,
    TIMER_LATE_MAX_SECONDS,
    Attendance,
    Leave,
    reason,
)
from scheduler.errors import DeadlineExceeded, NotFound, StartUnanswered, StoreFailed, WorkerFault
from scheduler.messages import Heartbeat, JobReport, JobStatus
from scheduler.model import Job, JobState, Stream, Submission
from scheduler.terms import QueueTerms, Retry, Target
from tests.house import PEER
from tests.unit.cluster.case import ECHO, W1, ClusterTestCase
from tests.unit.cluster.values import a_job

ATTENDED = QueueTerms(unattended_timeout=60.0)
PATIENT = evolve(ATTENDED, queue_timeout=3600.0)
WHY = reason(60.0)


class AttendanceTests(ClusterTestCase):
    def attended(self, job_id: str = "j-1", state: JobState = JobState.RUNNING, **changes: Any) -> Job:
        """A job that runs, or waits, and that nobody attends."""
        facts: dict[str, Any] = {"started_at": 900.0, "target": W1, "terms": ATTENDED}
        if state is JobState.QUEUED:
            facts |= {"started_at": None, "target": Target(selector={"gpu": "yes"}), "terms": PATIENT}
        job = a_job(job_id, state, None if state is JobState.QUEUED else "w-1", **(facts | changes))
        self.add(job)
        return job

    def timers(self) -> int:
        return self.house.timers()

    def assert_asked(self) -> None:
        """Its worker is asked to stop it."""
        self.assertEqual(self.take("stop_job").args, ("j-1",))
        self.assertEqual(self.cluster.job("j-1").stop_reason, WHY)

    def test_timers(self) -> None:
        """Only a job that has the timeout, has not ended, and is not attended has a timer."""
        before = self.timers()
        for number in range(100):
            self.add(a_job(f"other-{number}"))
        self.assertEqual(self.timers(), before)
        job = self.attended()
        self.assertEqual(self.timers(), before + 1)
        for _ in range(3):
            self.add(evolve(self.cluster.job("j-1"), stdout_bytes=5))
        self.assertEqual(self.timers(), before + 1)
        leave = self.attendance.attend(job.id)
        self.assertEqual(self.timers(), before)
        leave()
        self.assertEqual(self.timers(), before + 1)
        self.add(evolve(job, state=JobState.SUCCEEDED, finished_at=1001.0))
        self.assertEqual((self.timers(), self.attendance.idle), (before, True))

    def test_leaving_twice(self) -> None:
        """A client leaves once, however often it says so."""
        self.attended()
        first, second = self.attendance.attend("j-1"), self.attendance.attend("j-1")
        first()
        first()
        self.clock.advance(600)
        self.assertEqual(self.held(), [])
        second()
        self.clock.advance(60)
        self.assert_asked()

    def test_restart(self) -> None:
        """A scheduler that was restarted begins the time anew, of jobs that run, that wait, and that are orphans."""
        self.attended()
        self.attended("q", JobState.QUEUED)
        self.attended("o", JobState.LOST, orphan=True, reason="forgotten")
        self.attended("f", JobState.FAILED)
        self.clock.advance(59)
        self.begin()
        self.clock.advance(59)
        self.assertIs(self.cluster.job("q").state, JobState.QUEUED)
        self.clock.advance(1)
        self.assertEqual((self.cluster.job("q").state, self.cluster.job("q").reason), (JobState.STOPPED, WHY))
        for job_id in ("j-1", "o"):
            self.assertEqual(self.cluster.job(job_id).stop_reason, WHY)
        self.assertIsNone(self.cluster.job("f").stop_reason)

    def test_paused(self) -> None:
        """Time in which the scheduler did not run ends no job: clients that came meanwhile are heard first."""
        self.attended()
        self.clock.advance(50)
        self.clock.advance(10 + TIMER_LATE_MAX_SECONDS + 0.5)
        self.assertEqual(self.held(), [])
        leave = self.attendance.attend("j-1")
        self.clock.advance(60)
        leave()
        self.clock.advance(59)
        self.assertEqual(self.held(), [])
        self.clock.advance(1)
        self.assert_asked()

    def test_durable(self) -> None:
        """The reason is kept with the stop, so it is known after a restart in between."""
        self.attended()
        self.clock.advance(60)
        self.begin()
        self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", "boot", ("j-1",)), PEER))
        self.assertEqual(self.cluster.job("j-1").stop_reason, WHY)
        ended = JobStatus("j-1", JobState.STOPPED, "signal: terminated", finished_at=1061.0, signal="SIGTERM")
        self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", "boot", ended=(JobReport(ended),)), PEER))
        job = self.cluster.job("j-1")
        self.assertEqual((job.state, job.reason, job.signal), (JobState.STOPPED, WHY, "SIGTERM"))

    def test_before_the_service_runs(self) -> None:
        """A client that comes between the restart and the start of the service counts."""
        self.attended()
        leaves: list[Leave] = []
        start = Attendance.startService

        def attended_first(attendance: Attendance) -> None:
            leaves.append(attendance.attend("j-1"))
            start(attendance)

        self.patch(Attendance, "startService", attended_first)
        self.begin()
        self.clock.advance(600)
        self.assertEqual(self.cluster.job("j-1").stop_reason, None)
        leaves[0]()
        self.clock.advance(60)
        self.assertEqual(self.cluster.job("j-1").stop_reason, WHY)

    def test_shutdown(self) -> None:
        """A shutdown, which sends all clients away, stops no job."""
        self.attended()
        self.attended("j-2")
        leave = self.attendance.attend("j-1")
        self.attendance.stopService()
        leave()
        self.clock.advance(600)
        self.assertEqual(self.held(), [])

    def test_follower_of_one_that_starts(self) -> None:
        """A client whose submission is answered with the output attends the job from when its worker is called."""
        accepted = self.successResultOf(self.cluster.submit(Submission(ECHO, W1, ATTENDED)))
        reader = self.cluster.open_output(accepted.job.id, Stream.STDOUT, 0)
        self.clock.advance(600)
        self.assertIsNone(self.cluster.job(accepted.job.id).stop_requested_at)
        reader.close()

    def test_while_starting(self) -> None:
        """A job is not stopped before its start is answered, however long that takes: its client may wait for that."""
        for error in (None, DeadlineExceeded("start", 100.0)):
            answer = self.house.submit(ECHO, W1, ATTENDED)
            start = self.take("start_job")
            (job,) = (job for job in self.jobs() if job.state is JobState.STARTING)
            self.clock.advance(100)
            self.assertIsNone(self.cluster.job(job.id).stop_requested_at)
            if error is None:
                start.answer.callback(JobStatus(job.id, JobState.RUNNING))
                self.successResultOf(answer)
            else:
                start.answer.errback(error)
                self.failureResultOf(answer, StartUnanswered)
            self.clock.advance(59)
            self.assertIsNone(self.cluster.job(job.id).stop_requested_at)
            self.clock.advance(1)
            self.assertEqual(self.cluster.job(job.id).stop_reason, WHY)
            self.workers.held.clear()

    def test_queued_and_not_saved(self) -> None:
        """A withdrawal that can't be saved is tried again, until it can or a client comes."""
        self.attended(state=JobState.QUEUED)
        full = self.patch(self.store, "save", lambda records: fail(StoreFailed("disk full")))
        self.clock.advance(60)
        self.assertIs(self.cluster.job("j-1").state, JobState.QUEUED)
        leave = self.attendance.attend("j-1")
        full.restore()
        self.clock.pump([STOP_RETRY_INTERVAL_SECONDS] * 20)
        self.assertIs(self.cluster.job("j-1").state, JobState.QUEUED)
        leave()
        full = self.patch(self.store, "save", lambda records: fail(StoreFailed("disk full")))
        self.clock.advance(60)
        full.restore()
        self.clock.pump([STOP_RETRY_INTERVAL_SECONDS / 2] * 2)
        self.assertEqual(self.cluster.job("j-1").reason, WHY)

    def test_fault(self) -> None:
        """A stop that its worker does not take stays recorded, and is delivered like any other."""
        self.attended()
        self.clock.advance(60)
        self.take("stop_job").answer.errback(WorkerFault("w-1", "what"))
        self.assertEqual(self.held(), [])
        self.clock.advance(RETRY_INTERVAL_SECONDS)
        self.take("stop_job")

    def test_that_went_wrong(self) -> None:
        """A bug in a stop is logged, and the job is asked about again."""
        self.attended()
        self.patch(self.stops, "stop", lambda job, why: _bug())
        self.clock.advance(60)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.advance(STOP_RETRY_INTERVAL_SECONDS)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_last_attempt(self) -> None:
        """The stop of one that was about to be followed by another attempt goes on to that, with the reason."""
        terms = evolve(PATIENT, retry=Retry(3, 600.0))
        self.attended(terms=terms, group_id="j-1", started_at=None)
        self.clock.advance(59)
        self.store.held = True
        self.add(evolve(self.cluster.job("j-1"), state=JobState.FAILED, reason="exit status 1", finished_at=1059.0))
        self.clock.advance(1)
        self.store.held = False
        while len(self.store.saves):
            self.store.commit()
            self.settle()
        first, last = self.cluster.job("j-1"), self.cluster.last_attempt("j-1")
        self.assertEqual((first.state, first.reason), (JobState.FAILED, "exit status 1"))
        self.assertEqual((last.state, last.reason), (JobState.STOPPED, WHY))

    def test_dropped(self) -> None:
        """A job that never came to be leaves nothing."""
        job = self.attended()
        self.ledger.learn(job.ref)
        self.settle()
        self.assertTrue(self.attendance.idle)
        self.attendance.attend("j-1")()
        self.failureResultOf(self.cluster.wait_for_attempts("j-1", 5), NotFound)

    def test_store_fails(self) -> None:
        """No job is stopped for want of a client before it is durable that it is to be, and why."""
        self.attended()
        self.store.held = True
        self.clock.advance(60)
        self.assertIsNone(self.cluster.job("j-1").stop_requested_at)
        self.store.fail()
        self.stops.retry()
        self.settle()
        self.assertEqual(self.held(), [])
        self.clock.advance(1)
        self.store.commit()  # it works again
        self.clock.advance(STOP_RETRY_INTERVAL_SECONDS - 1)
        self.assertEqual(self.held(), [])
        self.store.commit()
        self.assert_asked()

    def test_store_fails_and_a_client_comes(self) -> None:
        """The job is not stopped, then."""
        self.attended()
        self.store.held = True
        self.clock.advance(60)
        self.store.fail()
        leave = self.attendance.attend("j-1")
        self.store.held = False
        self.clock.pump([STOP_RETRY_INTERVAL_SECONDS] * 20)
        self.assertIsNone(self.cluster.job("j-1").stop_requested_at)
        self.assertEqual(self.held(), [])
        leave()

    def test_changed_meanwhile(self) -> None:
        """A change of the job that was saved during the save of its stop does not undo the stop."""
        job = self.attended()
        self.store.held = True
        self.clock.advance(60)
        self.ledger.learn(evolve(job, stdout_bytes=5))
        self.store.commit()
        self.assertIsNone(self.cluster.job("j-1").stop_requested_at)
        self.store.commit_all()
        self.assert_asked()
        self.assertEqual(self.cluster.job("j-1").stdout_bytes, 5)

    def test_ended_meanwhile(self) -> None:
        """A job that ends while its stop is being saved is as it ended."""
        job = self.attended()
        self.store.held = True
        self.clock.advance(60)
        self.ledger.learn(evolve(job, state=JobState.SUCCEEDED, finished_at=1060.0))
        self.store.commit_all()
        ended = self.cluster.job("j-1")
        self.assertEqual((ended.state, ended.stop_requested_at, self.held()), (JobState.SUCCEEDED, None, []))


async def _bug() -> None:
    raise ZeroDivisionError
