"""Stops that can't be delivered yet."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from scheduler.cluster.build import RETRY_INTERVAL_SECONDS
from scheduler.errors import Busy, DeadlineExceeded, Unreachable, Unsupported, WorkerFault
from scheduler.messages import Heartbeat, JobReport, JobStatus
from scheduler.model import Job, JobState, WorkerState
from tests.house import PEER
from tests.unit.cluster.stops_case import StopTestCase
from tests.unit.cluster.values import a_job


class DurableStopTests(StopTestCase):
    """A stop that can't be delivered yet."""

    def assert_recorded(self, answer: Deferred[Job]) -> None:
        job = self.successResultOf(answer)
        self.assertEqual((job.over, job.stop_requested_at), (False, 1000.0))

    def test_unreachable(self) -> None:
        """A stop for a worker that can't be reached is recorded, and delivered when the worker is back, once."""
        self.worker_is(WorkerState.UNREACHABLE)
        self.assert_recorded(self.cluster.stop("j-1"))
        self.assertEqual(self.held(), [])
        self.worker_is(WorkerState.UNREACHABLE)
        self.assertEqual(self.held(), [])
        self.worker_is(WorkerState.ONLINE)
        call = self.take("stop_job")
        self.worker_is(WorkerState.ONLINE)
        self.assertEqual(self.held(), [])  # it is being asked
        call.answer.callback(None)
        self.worker_is(WorkerState.ONLINE)
        self.assertEqual(self.held(), [])  # it has taken it

    def test_ended_meanwhile(self) -> None:
        """A stop is not delivered if the worker reports the end of the job, or that end is being saved."""
        self.add(a_job("j-2"))
        for job_id in ("j-1", "j-2"):
            answer = self.cluster.stop(job_id)
            self.take("stop_job").answer.errback(Unreachable("w-1", sent=True))
            self.assert_recorded(answer)
        self.store.held = True
        for number, boot_id in enumerate(("boot", "another boot"), 1):
            ended = JobReport(JobStatus(f"j-{number}", JobState.STOPPED, finished_at=1001.0, signal="SIGTERM"))
            beat = Heartbeat("w-1", boot_id, ("j-1", "j-2")[number:], ended=(ended,), refusing=boot_id)
            self.membership.heartbeat(beat, PEER)
            stops = [call.args for call in self.held()]
            self.assertEqual(stops, [("j-2",)] if number == 1 else [])
            for _ in stops:
                self.take("stop_job").answer.errback(Unreachable("w-1", sent=True))
        again = self.cluster.stop("j-1")
        self.assertEqual(self.held(), [])
        while self.store.saves:
            self.store.commit()
            self.settle()
        self.assertEqual((self.successResultOf(again).state, self.held()), (JobState.STOPPED, []))

    def test_deregistered(self) -> None:
        """So is one for a worker that has left."""
        self.successResultOf(self.membership.deregister("w-1", "", PEER))
        self.assert_recorded(self.cluster.stop("j-1", "w-1"))
        self.worker_is(WorkerState.ONLINE)
        self.take("stop_job")

    def test_not_delivered(self) -> None:
        """A call that fails leaves the stop recorded; it is made again, until it succeeds."""
        answer = self.cluster.stop("j-1")
        self.take("stop_job").answer.errback(Unreachable("w-1", sent=True))
        self.assert_recorded(answer)
        for error in (DeadlineExceeded("stop", 10.0), Busy("calls", 4), WorkerFault("w-1", "what")):
            self.worker_is(WorkerState.ONLINE)
            self.take("stop_job").answer.errback(error)
            self.assertEqual(self.held(), [])
        self.worker_is(WorkerState.ONLINE)
        self.take("stop_job").answer.callback(None)
        self.worker_is(WorkerState.ONLINE)
        self.assertEqual(self.held(), [])

    def test_told_at_once(self) -> None:
        """A fault of the worker, or its inability, is reported to the caller at once."""
        for error in (WorkerFault("w-1", "what"), Unsupported("w-1", "StopJob")):
            answer = self.cluster.stop("j-1")
            self.take("stop_job").answer.errback(error)
            self.failureResultOf(answer, type(error))

    def test_after_a_restart(self) -> None:
        """A stop that was recorded by the process before is delivered by this one."""
        self.add(a_job("j-2", JobState.UNKNOWN, started_at=900.0, stop_requested_at=999.0))
        self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", "boot", ("j-1", "j-2")), PEER))
        self.clock.advance(RETRY_INTERVAL_SECONDS)
        self.assertEqual(self.take("stop_job").args, ("j-2",))

    def test_many(self) -> None:
        """Stops of one worker are delivered one after the other. One that is not answered keeps no other waiting."""
        self.add(*(a_job(f"s-{n}", created_at=float(n), stop_requested_at=999.0) for n in range(3)))
        self.worker_is(WorkerState.ONLINE)
        call = self.take("stop_job")
        self.assertEqual((call.args, self.held()), (("s-0",), []))
        call.answer.callback(None)
        call = self.take("stop_job")
        self.assertEqual(call.args, ("s-1",))
        call.answer.errback(Unreachable("w-1", sent=True))
        call = self.take("stop_job")
        self.assertEqual(call.args, ("s-2",))
        call.answer.callback(None)
        self.assertEqual(self.held(), [])
        self.worker_is(WorkerState.ONLINE)
        self.assertEqual(self.take("stop_job").args, ("s-1",))

    def test_many_on_a_worker_that_is_gone(self) -> None:
        """Once the worker itself can't be reached no other is delivered, until it can."""
        self.add(*(a_job(f"s-{n}", created_at=float(n), stop_requested_at=999.0) for n in range(3)))
        self.worker_is(WorkerState.ONLINE)
        self.house.workers.hold("probe")
        self.take("stop_job").answer.errback(Unreachable("w-1", sent=True))
        self.take("probe").answer.errback(Unreachable("w-1"))
        self.assertEqual(self.held(), [])
        self.house.workers.release("probe")
        self.worker_is(WorkerState.ONLINE)
        self.assertEqual(self.take("query_job").args[0], "s-1")
