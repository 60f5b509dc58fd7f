"""Jobs on core workers: what follows from the answers, the faults and the silence of programs of others."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred

from scheduler.cluster.workers.forgetting import SWEEP_INTERVAL_SECONDS
from scheduler.cluster.workers.polling import POLL_INTERVAL_SECONDS
from scheduler.errors import (
    AnswerUnreadable,
    DeadlineExceeded,
    NotAWorker,
    SchedulerError,
    StartUnanswered,
    Unreachable,
    WorkerFault,
)
from scheduler.messages import JobStatus
from scheduler.model import Job, JobState, WorkerState
from scheduler.terms import Target
from tests.house import PEER, House
from tests.unit.cluster.case import ECHO, ClusterTestCase
from tests.unit.cluster.values import a_job, a_worker

CORE = Target(worker="core")


class CoreCase(ClusterTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.add(a_worker("core", boot_id="", slots=None))

    def submit(self) -> Deferred[Job]:
        return self.house.submit(ECHO, CORE)

    def refused(self, error: SchedulerError) -> Deferred[Job]:
        """A start that the worker answers with that error."""
        submitted = self.submit()
        self.take("start_job").answer.errback(error)
        self.settle()
        return submitted


class FaultTests(CoreCase):
    def test_fault(self) -> None:
        """A start that is answered with a fault is a job that has failed, with the worker's words."""
        job = self.successResultOf(self.refused(WorkerFault("core", "no such image")))
        self.assertIs(job.state, JobState.FAILED)
        self.assertEqual(job.reason, "worker 'core' answered with a fault: no such image")

    def test_unreadable(self) -> None:
        """A job whose start was answered unreadably may run: it is unknown, and is not started again."""
        refused = self.refused(AnswerUnreadable("core", "Received message larger than max"))
        error = self.failureResultOf(refused, StartUnanswered).value
        self.assertIn("Received message larger than max", str(error))
        job = self.only_job()
        self.assertEqual((error.job_id, job.state), (job.id, JobState.UNKNOWN))
        self.assertEqual(self.held(), [])


class LateTests(CoreCase):
    """A start that the worker did not answer in time, and that is listened for."""

    def setUp(self) -> None:
        super().setUp()
        submitted = self.submit()
        start = self.take("start_job")
        self.answer: Deferred[JobStatus] = Deferred()
        self.workers.late.pop()(self.answer)
        start.answer.errback(DeadlineExceeded("StartJob", 10.0))
        self.failureResultOf(submitted, StartUnanswered)
        self.job_id = self.only_job().id

    def poll(self) -> None:
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.settle()

    def state(self) -> JobState:
        return self.house.job(self.job_id).state

    def test_answered(self) -> None:
        """The job is not given up, and is asked about by the id in the answer once that has come."""
        for _ in range(3):
            self.poll()
        self.assertEqual((self.state(), self.held()), (JobState.UNKNOWN, []))
        self.assertFalse(self.starts.idle)
        self.answer.callback(JobStatus("theirs-7", JobState.RUNNING))
        self.settle()
        self.assertIs(self.state(), JobState.RUNNING)
        self.assertTrue(self.starts.idle)
        self.poll()
        query = self.take("query_job")
        self.assertEqual(query.job_id, "theirs-7")
        query.answer.callback(JobStatus("theirs-7", JobState.SUCCEEDED, exit_code=0))
        self.assertIs(self.state(), JobState.SUCCEEDED)

    def test_after_a_restart(self) -> None:
        """The id is durable."""
        self.answer.callback(JobStatus("theirs-7", JobState.RUNNING))
        self.settle()
        self.begin()
        self.assertEqual(self.house.job(self.job_id).id_on_worker, "theirs-7")

    def test_never(self) -> None:
        """A job whose start is never answered can't be asked about: it is lost when the listening ends."""
        self.answer.errback(DeadlineExceeded("StartJob", 310.0))
        self.poll()
        job = self.house.job(self.job_id)
        self.assertEqual((job.state, job.reason), (JobState.LOST, "no record"))
        self.assertEqual(self.held(), [])

    def test_cut(self) -> None:
        """The job is lost also if the connection is cut."""
        self.answer.errback(Unreachable("core", sent=True))
        self.poll()
        self.assertIs(self.state(), JobState.LOST)

    def test_restarted_meanwhile(self) -> None:
        """The job is lost also if the scheduler restarts, as nothing listens for its answer then."""
        self.begin()
        self.add(a_worker("core", boot_id="", slots=None))
        self.poll()
        self.assertIs(self.state(), JobState.LOST)

    def test_refused(self) -> None:
        """An answer that says that it does not run is its end, with the worker's words."""
        for error in (WorkerFault("core", "no such image"), NotAWorker("core", "StartJob")):
            self.answer.errback(error)
            self.settle()
            job = self.house.job(self.job_id)
            self.assertEqual((job.state, job.reason), (JobState.FAILED, str(error)))
            self.setUp()

    def test_stop(self) -> None:
        """A stop waits for the answer, and is delivered then."""
        stop = self.cluster.stop(self.job_id)
        self.settle()
        job = self.successResultOf(stop)
        self.assertEqual((job.state, job.stop_requested_at), (JobState.UNKNOWN, 1000.0))
        self.assertEqual(self.held(), [])
        self.answer.callback(JobStatus("theirs-7", JobState.RUNNING))
        self.stops.retry()
        self.assertEqual(self.take("stop_job").job_id, "theirs-7")

    def test_stop_without_an_answer(self) -> None:
        """A stop of one that is listened for no more says that it is lost."""
        self.answer.errback(Unreachable("core", sent=True))
        self.assertIs(self.successResultOf(self.cluster.stop(self.job_id)).state, JobState.LOST)

    def test_forgotten_meanwhile(self) -> None:
        """A job that has ended stays as it is when a late answer comes."""
        self.add(evolve(self.house.job(self.job_id), state=JobState.LOST, reason="forgotten"))
        self.answer.callback(JobStatus("theirs-7", JobState.RUNNING))
        self.settle()
        self.assertIs(self.state(), JobState.LOST)


class DeregisteredTests(CoreCase):
    """A core worker that deregistered, and has jobs."""

    #: Seconds for which workers of ours stay listed.
    keep = 1e9

    def setUp(self) -> None:
        super().setUp()
        self.house = House(lambda: self.wall, forget_after=self.keep)
        self._name_parts()
        self.add(a_worker("core", boot_id="", slots=None), a_job(worker_id="core", remote_id="theirs-7"))
        self.successResultOf(self.membership.deregister("core", "", PEER))
        self.settle()

    def listed(self) -> list[WorkerState]:
        return [view.presence.state for view in self.cluster.workers()]

    def sweep(self) -> None:
        self.clock.advance(SWEEP_INTERVAL_SECONDS)
        self.settle()

    def test_listed(self) -> None:
        """The worker is offline, and the job unknown, also after a restart of the scheduler."""
        for _ in range(2):
            self.sweep()
            view = self.cluster.worker("core")
            self.assertEqual((view.presence.state, view.running_jobs), (WorkerState.OFFLINE, 1))
            self.assertIs(self.house.job("j-1").state, JobState.UNKNOWN)
            self.begin()

    def test_ended(self) -> None:
        """The worker is removed when the last of its jobs has ended."""
        self.add(evolve(self.house.job("j-1"), state=JobState.LOST, reason="no record"))
        self.sweep()
        self.assertEqual(self.listed(), [])

    def test_ended_before_a_restart(self) -> None:
        """The worker is removed also if the scheduler was killed in between."""
        self.add(evolve(self.house.job("j-1"), state=JobState.LOST, reason="no record"))
        self.begin()
        self.sweep()
        self.assertEqual(self.listed(), [])

    def test_forgotten(self) -> None:
        """A client can have it forgotten, and its jobs given up."""
        self.successResultOf(self.cluster.forget("core"))
        self.assertEqual(self.listed(), [])
        job = self.house.job("j-1")
        self.assertEqual((job.state, job.reason), (JobState.LOST, "forgotten"))

    def test_again(self) -> None:
        """A second deregistration changes nothing."""
        self.successResultOf(self.membership.deregister("core", "", PEER))
        self.assertEqual(self.listed(), [WorkerState.OFFLINE])


class NoneKeptTests(DeregisteredTests):
    """The same where workers of ours that deregister are forgotten at once."""

    keep = 0.0
