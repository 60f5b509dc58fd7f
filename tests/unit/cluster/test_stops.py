"""Stops, of jobs in every state, of workers in every state."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from scheduler.cluster import lifecycle
from scheduler.cluster.build import RETRY_INTERVAL_SECONDS
from scheduler.cluster.jobs.stops import STOP_MARGIN_SECONDS, STOP_WAIT_MAX_SECONDS
from scheduler.errors import (
    Busy,
    DeadlineExceeded,
    LeftRunning,
    NotFound,
    StoreFailed,
    Unreachable,
    Unsupported,
    WorkerFault,
)
from scheduler.messages import Heartbeat, JobReport, JobStatus
from scheduler.model import DEFAULT_STOP_GRACE_SECONDS, Job, JobSpec, JobState, Presence, WorkerState
from scheduler.views import JobFilter
from scheduler.worker.shim import phases
from tests.house import HOME
from tests.unit.cluster.case import ECHO, W1, ClusterTestCase, call_or_fail
from tests.unit.cluster.values import a_job, a_worker


class StopTests(ClusterTestCase):
    def end(self, state: JobState) -> None:
        ended = JobStatus("j-1", state, "signal: terminated", finished_at=1001.0, signal="SIGTERM")
        heartbeat = Heartbeat("w-1", "boot", ended=(JobReport(ended),))
        self.successResultOf(self.membership.heartbeat(heartbeat, HOME))
        self.settle()

    def test_stop_waits_for_the_end(self) -> None:
        """A stop is answered once the end of the job has been reported."""
        self.add(a_job())
        answer = self.cluster.stop("j-1")
        self.take("stop_job").answer.callback(None)
        self.assertNoResult(answer)
        self.assertEqual(self.cluster.job("j-1").stop_requested_at, 1000.0)
        self.end(JobState.STOPPED)
        self.assertIs(self.successResultOf(answer).state, JobState.STOPPED)

    def test_no_end_in_time(self) -> None:
        """A stop whose job has not ended within its grace and a margin is not called one."""
        self.add(a_job(spec=JobSpec(command="x", stop_grace=3.0)))
        answer = self.cluster.stop("j-1")
        self.take("stop_job").answer.callback(None)
        self.clock.advance(3.0 + STOP_MARGIN_SECONDS)
        self.failureResultOf(answer, DeadlineExceeded)

    def test_the_margin(self) -> None:
        """The margin is longer than a shim waits for killed processes, so its report comes in time."""
        self.assertGreaterEqual(STOP_MARGIN_SECONDS, phases.KILL_WAIT_MAX_SECONDS + 2.0)

    def test_a_long_grace(self) -> None:
        """A stop that was delivered, of a job with much time to end, is answered with the job as it is."""
        self.add(a_job(spec=JobSpec(command="x", stop_grace=600.0)))
        answer = self.cluster.stop("j-1")
        self.take("stop_job").answer.callback(None)
        self.clock.advance(STOP_WAIT_MAX_SECONDS - 1)
        self.assertNoResult(answer)
        self.clock.advance(1)
        job = self.successResultOf(answer)
        self.assertEqual((job.state, job.stop_requested_at), (JobState.RUNNING, 1000.0))

    def test_ended_already(self) -> None:
        """A stop of an ended job asks nothing of the worker."""
        self.add(a_job(state=JobState.SUCCEEDED))
        self.assertIs(self.successResultOf(self.cluster.stop("j-1", "w-1")).state, JobState.SUCCEEDED)
        self.assertEqual(self.held(), [])

    def test_no_record(self) -> None:
        """A job its worker does not know is lost, which is an end."""
        self.add(a_job())
        answer = self.cluster.stop("j-1")
        self.take("stop_job").answer.errback(NotFound("job", "j-1"))
        self.assertIs(self.successResultOf(answer).state, JobState.LOST)

    def test_what_is_left_is_looked_at(self) -> None:
        """Left processes are shown until the worker says that they are gone; one that can't tell changes nothing."""
        self.add(a_job(state=JobState.STOPPED, leftover=(12, 13), remote_id="r"))
        for answer, left, text in (
            (JobStatus("r", JobState.STOPPED, leftover=(13,)), (13,), "1 process could not be ended: 13"),
            (None, (12, 13), "2 processes could not be ended: 12, 13"),
            (JobStatus("r", JobState.RUNNING), (12, 13), "2 processes could not be ended: 12, 13"),
            (NotFound("job", "r"), (12, 13), "12, 13, as seen at its end (its worker no longer keeps the job)"),
            (DeadlineExceeded("stop", 10.0), (12, 13), "as seen at its end"),
            (Unsupported("w-1", "StopJob"), (12, 13), "as seen at its end"),
        ):
            stop = self.cluster.stop("j-1")
            call = self.take("stop_job")
            self.assertEqual(call.args, ("r",))
            (call.answer.errback if isinstance(answer, Exception) else call.answer.callback)(answer)
            error = self.failureResultOf(stop, LeftRunning).value
            self.assertEqual((error.job_id, error.leftover), ("j-1", left))
            self.assertIn(text, error.reason)
        self.add(a_worker(), online=False)
        error = self.failureResultOf(self.cluster.stop("j-1"), LeftRunning).value
        self.assertEqual((error.leftover, self.held()), ((12, 13), []))
        self.add(a_worker())
        stop = self.cluster.stop("j-1")
        self.take("stop_job").answer.callback(JobStatus("r", JobState.STOPPED))
        self.assertEqual(self.successResultOf(stop), self.cluster.job("j-1"))

    def test_a_hundred_are_left(self) -> None:
        """No more than a hundred are named, and that there may be more is said."""
        self.assertIn("at least 100 processes could", lifecycle.leftover_text(tuple(range(1, 101))))

    def test_while_starting(self) -> None:
        """A stop of a job that is starting is sent once the start was answered."""
        self.house.submit(ECHO, W1)
        start = self.take("start_job")
        job_id = self.only_job().id
        self.cluster.stop(job_id)
        self.assertEqual(self.held(), [])
        start.answer.callback(JobStatus(job_id, JobState.RUNNING))
        self.assertEqual(self.take("stop_job").args, (job_id,))

    def test_of_another_worker(self) -> None:
        """A stop that names the wrong worker stops nothing."""
        self.add(a_job(), a_worker("w-2"))
        self.failureResultOf(call_or_fail(self.cluster.stop, "j-1", "w-2"), NotFound)
        self.assertEqual(self.held(), [])

    def test_matching(self) -> None:
        """All that match are stopped; one that can't be is answered as it is."""
        self.add(a_worker("w-2"), online=False)
        self.add(a_job(), a_job("j-2", JobState.UNKNOWN, "w-2"), a_job("j-3", JobState.FAILED))
        answer = self.cluster.stop_matching(JobFilter())
        self.take("stop_job").answer.callback(None)
        self.end(JobState.STOPPED)
        stopped = {job.id: (job.state, job.stop_requested_at) for job in self.successResultOf(answer)}
        self.assertEqual(stopped, {"j-1": (JobState.STOPPED, 1000.0), "j-2": (JobState.UNKNOWN, 1000.0)})

    def test_matching_has_its_time(self) -> None:
        """Stopping many is answered within a minute, whatever some of them take."""
        self.add(a_job(spec=JobSpec(command="x", stop_grace=600.0)), a_job("j-2"))
        answer = self.cluster.stop_matching(JobFilter())
        self.clock.advance(STOP_WAIT_MAX_SECONDS)
        self.assertEqual({job.state for job in self.successResultOf(answer)}, {JobState.RUNNING})


class DurableStopTests(ClusterTestCase):
    """A stop that can't be delivered yet."""

    def setUp(self) -> None:
        super().setUp()
        self.add(a_job(started_at=900.0))

    def worker_is(self, state: WorkerState) -> None:
        self.add(a_worker(), online=state is WorkerState.ONLINE)
        self.stops.retry()
        self.settle()

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
            self.membership.heartbeat(beat, HOME)
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
        self.successResultOf(self.membership.deregister("w-1", ""))
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
        self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", "boot", ("j-1", "j-2")), HOME))
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

    def test_queued(self) -> None:
        """A queued job is stopped at once, and nobody is called."""
        self.add(a_job("q", JobState.QUEUED, worker_id="w-9", target=None))
        job = self.successResultOf(self.cluster.stop("q"))
        self.assertEqual((job.state, job.reason), (JobState.STOPPED, "stopped before it was started"))
        self.assertEqual((job.stop_requested_at, job.finished_at), (1000.0, 1000.0))
        self.assertEqual(self.held(), [])

    def test_a_start_that_is_not_answered(self) -> None:
        """A job whose start is not answered is asked about first; one that came up is then stopped."""
        started = self.house.submit(ECHO, W1)
        start = self.take("start_job")
        job_id = next(job.id for job in self.jobs() if job.state is JobState.STARTING)
        answer = self.cluster.stop(job_id)
        self.assertEqual(self.cluster.job(job_id).stop_requested_at, 1000.0)
        self.worker_is(WorkerState.ONLINE)
        self.assertEqual(self.held(), [])  # the start is under way
        start.answer.errback(DeadlineExceeded("start", 10.0))
        self.failureResultOf(started)
        query = self.take("query_job")
        self.assertEqual(query.args, (job_id, True))
        query.answer.callback(JobStatus(job_id, JobState.RUNNING, started_at=990.0))
        self.take("stop_job").answer.callback(None)
        self.assertNoResult(answer)
        ended = JobStatus(job_id, JobState.STOPPED, "signal: terminated", finished_at=1001.0)
        self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", "boot", ("j-1",), (JobReport(ended),)), HOME))
        self.settle()
        self.assertIs(self.successResultOf(answer).state, JobState.STOPPED)

    def test_a_start_that_never_arrived(self) -> None:
        """A start that never arrived is sealed, so that it never does, and the job is stopped."""
        self.add(a_job("u", JobState.UNKNOWN))
        answer = self.cluster.stop("u")
        self.take("query_job").answer.errback(NotFound("job", "u"))
        job = self.successResultOf(answer)
        self.assertEqual((job.state, job.reason), (JobState.STOPPED, "stopped before it was started"))

    def test_a_start_nobody_can_be_asked_about(self) -> None:
        """A job whose worker can't be reached is stopped later."""
        self.add(a_job("u", JobState.UNKNOWN))
        answer = self.cluster.stop("u")
        self.take("query_job").answer.errback(DeadlineExceeded("query", 10.0))
        self.assertIs(self.successResultOf(answer).state, JobState.UNKNOWN)
        self.worker_is(WorkerState.ONLINE)
        self.take("query_job")

    def test_a_start_that_was_never_sent(self) -> None:
        """A job whose start never left is none, and so can't be stopped."""
        self.house.submit(ECHO, W1).addErrback(lambda _: None)
        start = self.take("start_job")
        answer = self.cluster.stop(next(job.id for job in self.jobs() if job.state is JobState.STARTING))
        start.answer.errback(Unreachable("w-1"))
        self.failureResultOf(answer, NotFound)


class OrphanStopTests(ClusterTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.add(a_job(state=JobState.LOST, reason="forgotten", orphan=True))

    def end(self) -> None:
        ended = JobStatus("j-1", JobState.STOPPED, "signal: terminated", finished_at=1001.0)
        answer = self.successResultOf(
            self.membership.heartbeat(Heartbeat("w-1", "boot", (), (JobReport(ended),)), HOME)
        )
        self.assertEqual(answer.acknowledged, ("j-1",))
        self.settle()

    def test_stop(self) -> None:
        """An orphan is stopped; that it is none any more is the end that is waited for."""
        answer = self.cluster.stop("j-1")
        self.take("stop_job").answer.callback(None)
        self.assertNoResult(answer)
        self.end()
        job = self.successResultOf(answer)
        self.assertEqual((job.state, job.reason, job.orphan), (JobState.LOST, "forgotten", False))

    def test_left_running(self) -> None:
        """The processes that an orphan leaves behind are shown, too."""
        answer = self.cluster.stop("j-1")
        self.take("stop_job").answer.callback(None)
        ended = JobStatus("j-1", JobState.STOPPED, finished_at=1001.0, leftover=(12,))
        self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", "boot", (), (JobReport(ended),)), HOME))
        self.assertNoResult(answer)
        self.take("stop_job").answer.callback(ended)  # it is asked whether they still run
        self.failureResultOf(answer, LeftRunning)
        job = self.cluster.job("j-1")
        self.assertEqual((job.state, job.orphan, job.leftover), (JobState.LOST, False, (12,)))

    def test_later(self) -> None:
        """The stop of an orphan is as durable as any."""
        self.add(a_worker(), online=False)
        self.assertFalse(self.successResultOf(self.cluster.stop("j-1")).over)
        self.add(a_worker())
        self.take("stop_job")

    def test_no_record(self) -> None:
        """A job that its worker does not know is no orphan."""
        answer = self.cluster.stop("j-1")
        self.take("stop_job").answer.errback(NotFound("job", "j-1"))
        self.assertTrue(self.successResultOf(answer).over)

    def test_matching(self) -> None:
        """Orphans are among the jobs that can be stopped together, and can be chosen."""
        self.add(a_job("j-2"), a_job("j-3", JobState.LOST))
        for which, ids in ((JobFilter(), {"j-1", "j-2"}), (JobFilter(orphan=True), {"j-1"})):
            answer = self.cluster.stop_matching(which)
            self.clock.advance(STOP_WAIT_MAX_SECONDS)
            self.assertEqual({job.id for job in self.successResultOf(answer)}, ids)
        self.workers.held.clear()


class FailingStoreTests(ClusterTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.add(a_job(started_at=900.0))
        self.store.held = True

    def test_delivered(self) -> None:
        """While the store fails a job can be stopped all the same; the stop is answered when its end is durable."""
        answer = self.stop_it()
        self.assertNoResult(answer)
        self.store.held = False
        self.clock.advance(1)
        self.assertIs(self.successResultOf(answer).state, JobState.STOPPED)

    def test_delivered_and_not_saved(self) -> None:
        """A stop whose end can't be saved in its time is answered with that, and nobody asks the worker again."""
        answer = self.stop_it()
        self.clock.pump([1.0] * int(DEFAULT_STOP_GRACE_SECONDS + STOP_MARGIN_SECONDS - 1))
        self.assertNoResult(answer)
        self.clock.advance(1)
        self.failureResultOf(answer, StoreFailed)
        again = self.cluster.stop("j-1")
        self.stops.retry()
        self.settle()
        self.assertEqual(self.held(), [])
        self.store.held = False
        while self.store.saves:
            self.store.commit()
        self.settle()
        self.assertIs(self.successResultOf(again).state, JobState.STOPPED)

    def test_delivered_and_does_not_end(self) -> None:
        """A stop that was delivered is promised beyond its time only if it is durable by then."""
        for problem in ("disk full", ""):
            self.setUp()
            self.store.held = False
            self.add(a_job("j-2", started_at=900.0, spec=JobSpec(command="true", stop_grace=3600.0)))
            self.store.problem = "disk full"
            answer = self.cluster.stop("j-2")
            self.take("stop_job").answer.callback(None)
            self.store.problem = problem
            self.clock.pump([1.0] * int(STOP_WAIT_MAX_SECONDS - 1))
            self.assertNoResult(answer)
            self.clock.advance(1)
            if problem:
                self.failureResultOf(answer, StoreFailed)
            else:
                self.assertFalse(self.successResultOf(answer).over)

    def stop_it(self) -> Deferred[Job]:
        """The store fails, and the worker stops the job."""
        answer = self.cluster.stop("j-1")
        self.assertEqual(self.held(), [])
        self.store.fail()
        self.take("stop_job").answer.callback(None)
        ended = JobStatus("j-1", JobState.STOPPED, finished_at=1001.0)
        update = self.ledger.learn(lifecycle.reported(self.cluster.job("j-1"), ended, 1001.0))
        self.failureResultOf(update, StoreFailed)
        return answer

    def test_not_delivered(self) -> None:
        """A stop is no promise before it is recorded, nor when it could be neither recorded nor delivered."""
        self.ledger.see("w-1", Presence())
        answer = self.cluster.stop("j-1")
        self.assertNoResult(answer)
        self.store.fail()
        self.failureResultOf(answer, StoreFailed)
        self.clock.advance(1)
        self.store.commit()  # it works again
        answer = self.cluster.stop("j-1")
        self.store.commit()
        self.assertFalse(self.successResultOf(answer).over)
