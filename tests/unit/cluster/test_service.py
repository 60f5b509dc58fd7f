from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from scheduler.cluster.saving import UNSAVED_MAX_SECONDS
from scheduler.errors import (
    Busy,
    Conflict,
    DeadlineExceeded,
    NotAWorker,
    NotFound,
    ShuttingDown,
    StartUnanswered,
    StoreFailed,
    Unreachable,
    Unsupported,
    WorkerFault,
)
from scheduler.interfaces import IScheduler
from scheduler.messages import Heartbeat, JobReport, JobStatus, Registration
from scheduler.model import Job, JobSpec, JobState, Presence, Submission
from scheduler.terms import QueueTerms, Target
from tests.doubles.workers import Call
from tests.house import NEVER_CALLED, PEER
from tests.unit.cluster.case import ANY, ECHO, W1, ClusterTestCase, call_or_fail
from tests.unit.cluster.values import a_job, a_worker


class SubmitTests(ClusterTestCase):
    def submit(self, spec: JobSpec = ECHO, target: Target = W1) -> tuple[Deferred[Job], Call]:
        answer = self.house.submit(spec, target)
        self.assertNoResult(answer)
        return answer, self.take("start_job")

    def test_interface(self) -> None:
        """The cluster is what the HTTP API may ask."""
        self.assertTrue(verifyObject(IScheduler, self.cluster))

    def test_start(self) -> None:
        """A submitted job is starting while its worker is called, and running once it answered."""
        answer, call = self.submit()
        job = self.only_job()
        self.assertEqual((job.state, job.worker_name, job.created_at), (JobState.STARTING, "w-1", 1000.0))
        self.assertEqual(call.args, (job,))
        self.wall = 1001.0
        call.answer.callback(JobStatus(job.id, JobState.RUNNING, started_at=1000.5))
        started = self.successResultOf(answer)
        self.assertEqual((started.state, started.started_at, started.remote_id), (JobState.RUNNING, 1000.5, None))

    def test_accepted(self) -> None:
        """A submission is accepted when the job is durable and its worker is being called, before that answers."""
        self.store.held = True
        submitted = self.cluster.submit(Submission(ECHO, W1))
        self.assertNoResult(submitted)
        called: list[int] = []
        submitted.addCallback(lambda accepted: called.append(len(self.held())) or accepted)
        self.store.commit()
        accepted = self.successResultOf(submitted)
        self.assertEqual((accepted.job, called), (self.only_job(), [1]))
        self.store.held = False
        self.assertNoResult(accepted.answered)
        self.take("start_job").answer.errback(Unreachable("w-1"))
        self.failureResultOf(accepted.answered, Unreachable)

    def test_accepted_in_the_queue(self) -> None:
        """A job that is queued is the answer at once."""
        self.add(a_worker(), online=False)
        accepted = self.successResultOf(self.cluster.submit(Submission(ECHO, W1, QueueTerms(queue_timeout=60.0))))
        self.assertEqual(self.successResultOf(accepted.answered), accepted.job)
        self.assertIs(accepted.job.state, JobState.QUEUED)

    def test_what_the_worker_refuses(self) -> None:
        """A job its worker will not run exists and has failed, with the reason, without ever having started."""
        answer, call = self.submit()
        call.answer.callback(JobStatus(self.only_job().id, JobState.FAILED, "command 'echo' is not allowed"))
        job = self.successResultOf(answer)
        self.assertEqual((job.reason, job.started_at), ("command 'echo' is not allowed", None))

    def test_an_id_of_its_own(self) -> None:
        """The id in the API is ours; what the worker chose is kept to call it by."""
        answer, call = self.submit()
        call.answer.callback(JobStatus("theirs", JobState.RUNNING))
        job = self.successResultOf(answer)
        self.assertEqual((job.id_on_worker, self.cluster.job(job.id)), ("theirs", job))

    def test_nothing_was_sent(self) -> None:
        """A start that never left is the caller's error and no job."""
        for error in (Unreachable("w-1"), Busy("calls of w-1", 4), ShuttingDown(), NotAWorker("w-1", "StartJob")):
            answer, call = self.submit()
            call.answer.errback(error)
            self.failureResultOf(answer, type(error))
            self.assertEqual((self.jobs(), self.ledger.registry.load("w-1")), ([], 0))

    def test_sent_and_not_answered(self) -> None:
        """A start that may have arrived is an unknown job, and the error names it."""
        for error in (Unreachable("w-1", sent=True), DeadlineExceeded("start", 10)):
            answer, call = self.submit()
            call.answer.errback(error)
            job_id = self.failureResultOf(answer, StartUnanswered).value.job_id
            job = self.cluster.job(job_id)
            self.assertEqual((job.state, job.unknown_since), (JobState.UNKNOWN, 1000.0))

    def test_started_and_not_saved(self) -> None:
        """A job is shown as running before that is saved: the job itself was durable before its start."""
        answer, call = self.submit()
        self.store.held = True
        call.answer.callback(JobStatus(self.only_job().id, JobState.RUNNING))
        self.assertIs(self.successResultOf(answer).state, JobState.RUNNING)
        self.clock.advance(UNSAVED_MAX_SECONDS)
        self.store.fail()
        self.assertIs(self.only_job().state, JobState.RUNNING)

    def test_an_id_of_the_workers_own(self) -> None:
        """A job that its worker knows by another id is not told of before that id is durable."""
        answer, call = self.submit()
        self.store.held = True
        call.answer.callback(JobStatus("its-own", JobState.RUNNING))
        self.assertNoResult(answer)
        self.store.commit()
        self.assertEqual(self.successResultOf(answer).remote_id, "its-own")

    def test_ended_and_not_saved(self) -> None:
        """An end that can't be saved is not told, but that there is such a job."""
        answer, call = self.submit()
        self.store.held = True
        call.answer.callback(JobStatus(self.only_job().id, JobState.FAILED, "command 'echo' is not allowed"))
        self.store.fail()
        self.assertEqual(self.failureResultOf(answer, StartUnanswered).value.job_id, self.only_job().id)

    def test_not_answered_and_not_saved(self) -> None:
        """The error of a start that may have arrived names the job, even if nothing can be saved."""
        answer, call = self.submit()
        self.store.held = True
        call.answer.errback(DeadlineExceeded("start", 10))
        self.store.fail()
        self.assertEqual(self.failureResultOf(answer, StartUnanswered).value.job_id, self.only_job().id)

    def test_fault(self) -> None:
        """A fault leaves a job that may have come up unknown, and says so; a core worker failed to."""
        answer, call = self.submit()
        call.answer.errback(WorkerFault("w-1", "boom"))
        error = self.failureResultOf(answer, StartUnanswered).value
        self.assertEqual(error.job_id, self.only_job().id)
        self.assertIn("boom", str(error))
        self.assertIs(self.only_job().state, JobState.UNKNOWN)
        self.ledger.learn(self.only_job().ref)
        self.add(a_worker(boot_id="", slots=None))
        answer, call = self.submit()
        call.answer.errback(WorkerFault("w-1", "boom"))
        self.assertIs(self.successResultOf(answer).state, JobState.FAILED)
        self.assertIn("boom", self.only_job().reason)

    def test_end_that_is_not_saved(self) -> None:
        """Where a job is there and its end can't be saved, the error names the job, which is unknown."""
        answer, call = self.submit()
        self.store.held = True
        call.answer.errback(Conflict("the id was used up"))
        self.store.fail()
        error = self.failureResultOf(answer, StartUnanswered).value
        self.assertEqual((error.job_id, self.only_job().state), (self.only_job().id, JobState.UNKNOWN))

    def test_a_heartbeat_is_faster(self) -> None:
        """An end that the heartbeat brings before the answer of the start stands."""
        answer, call = self.submit()
        job = self.only_job()
        ended = JobStatus(job.id, JobState.SUCCEEDED, finished_at=1001.0, exit_code=0)
        self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", "boot", ended=(JobReport(ended),)), PEER))
        call.answer.callback(JobStatus(job.id, JobState.RUNNING))
        self.assertIs(self.successResultOf(answer).state, JobState.SUCCEEDED)

    def test_hanging_up_undoes_nothing(self) -> None:
        """A client that goes away leaves the start to go on."""
        answer, call = self.submit()
        answer.addErrback(lambda _: None).cancel()
        call.answer.callback(JobStatus(self.only_job().id, JobState.RUNNING))
        self.assertIs(self.only_job().state, JobState.RUNNING)

    def test_named_worker(self) -> None:
        """A named worker must be known, not draining, reachable; its slots do not bind."""
        self.failureResultOf(self.house.submit(ECHO, Target(worker="w-9")), NotFound)
        self.add(a_worker("w-2", draining=True))
        self.add(a_worker("w-3"), online=False)
        self.failureResultOf(self.house.submit(ECHO, Target(worker="w-2")), Conflict)
        self.failureResultOf(self.house.submit(ECHO, Target(worker="w-3")), Unreachable)
        self.add(a_worker("w-4", slots=0))
        self.submit(target=Target(worker="w-4"))

    def test_core_protocol(self) -> None:
        """A core worker takes a command and a path; more is not supported."""
        self.add(a_worker("old", boot_id="", slots=None))
        more = self.house.submit(JobSpec(command="sh", args=("x",)), Target(worker="old"))
        self.failureResultOf(more, Unsupported)
        self.submit(JobSpec(command="sh", path="x", labels={"team": "blue"}), Target(worker="old"))

    def test_two_at_once_take_two_slots(self) -> None:
        """Starts under way count: the second goes to the next worker, the third is refused."""
        self.add(a_worker("w-1", slots=1), a_worker("w-2", slots=1))
        _, first = self.submit(target=ANY)
        _, second = self.submit(target=ANY)
        self.assertEqual({first.worker_id, second.worker_id}, {"w-1", "w-2"})
        self.assertIn("slots", str(self.failureResultOf(self.house.submit(ECHO, ANY)).value))

    def test_shutting_down(self) -> None:
        """A shutdown waits for the commits and starts under way and refuses new ones."""
        self.store.held = True
        answer = self.house.submit(ECHO, W1)
        down = self.cluster.shut_down()
        self.store.commit()
        self.store.held = False
        call = self.take("start_job")
        self.assertNoResult(down)
        self.failureResultOf(self.house.submit(ECHO, W1), ShuttingDown)
        self.assertEqual(self.cluster.readiness().reasons, ("shutting down",))
        call.answer.callback(JobStatus(self.only_job().id, JobState.RUNNING))
        self.successResultOf(down)
        self.successResultOf(answer)


class QueryTests(ClusterTestCase):
    def test_the_worker_is_asked(self) -> None:
        """A query of an unfinished job asks its worker; those at the same moment share the call."""
        self.add(a_job())
        answers = [self.cluster.query("w-1", "j-1") for _ in range(3)]
        call = self.take("query_job")
        self.assertEqual(self.held(), [])
        call.answer.callback(JobStatus("j-1", JobState.FAILED, "exit status 3", exit_code=3))
        self.assertEqual([self.successResultOf(answer).exit_code for answer in answers], [3, 3, 3])

    def test_not_found(self) -> None:
        """An unknown worker, an unknown job and another worker's job are not found."""
        self.add(a_job(), a_worker("w-2"))
        for worker, job_id, kind in (("w-9", "j-1", "worker"), ("w-1", "j-9", "job"), ("w-2", "j-1", "job")):
            error = self.failureResultOf(call_or_fail(self.cluster.query, worker, job_id), NotFound).value
            self.assertEqual(error.kind, kind)

    def test_unreachable(self) -> None:
        """A query about a job whose worker can't be reached fails."""
        self.add(a_job(state=JobState.UNKNOWN), a_worker(), online=False)
        self.failureResultOf(self.cluster.query("w-1", "j-1"), Unreachable)

    def test_no_record(self) -> None:
        """A job its worker does not know is lost."""
        self.add(a_job())
        answer = self.cluster.query("w-1", "j-1")
        self.take("query_job").answer.errback(NotFound("job", "j-1"))
        job = self.successResultOf(answer)
        self.assertEqual((job.state, job.reason), (JobState.LOST, "no record"))

    def test_one_hangs_up(self) -> None:
        """A caller that cancels does not spoil the answer for the other."""
        self.add(a_job())
        first, second = self.cluster.query("w-1", "j-1"), self.cluster.query("w-1", "j-1")
        first.addErrback(lambda _: None).cancel()
        self.take("query_job").answer.callback(JobStatus("j-1", JobState.SUCCEEDED, exit_code=0))
        self.assertIs(self.successResultOf(second).state, JobState.SUCCEEDED)


class WorkersTests(ClusterTestCase):
    def test_reason(self) -> None:
        """A worker is shown with the reason why it takes no job or can't be reached; its own words go first."""
        self.assertIsNone(self.cluster.worker("w-1").reason)
        self.house.parts.backoff.refused("w-1", Busy("calls", 4))
        self.assertEqual(self.cluster.worker("w-1").reason, "calls: all 4 in use")
        self.add(a_worker(), refusing="no room")
        self.assertEqual(self.cluster.worker("w-1").reason, "no room")
        self.add(a_worker(), online=False, refusing="no room")
        self.assertEqual(self.cluster.worker("w-1").reason, NEVER_CALLED)

    def test_drain_not_saved(self) -> None:
        """A drain that can't be saved has no effect: the worker takes jobs as before."""
        self.store.held = True
        drained = self.cluster.drain("w-1")
        self.assertFalse(self.cluster.worker("w-1").worker.draining)
        self.store.fail()
        self.failureResultOf(drained, StoreFailed)
        self.assertFalse(self.cluster.worker("w-1").worker.draining)

    def test_drain_while_it_registers(self) -> None:
        """A drain that was answered is in the store, wherever the scheduler is killed while the worker registers."""
        for drain_first in (True, False):
            answers = [self.drain_and_register(drain_first, commits) for commits in range(5)]
            self.assertEqual((answers[0], answers[-1]), (False, True))

    def drain_and_register(self, drain_first: bool, commits: int) -> bool:
        """Drain a worker that registers; after so many commits the scheduler is killed. Returns whether it answered."""
        self.setUp()
        self.store.held = True
        registration = Registration(a_worker().address, "w-1", "w-1", boot_id="boot", version="2")
        if drain_first:
            drained = self.cluster.drain("w-1")
        self.membership.register(registration, PEER)
        if not drain_first:
            drained = self.cluster.drain("w-1")
        for _ in range(commits):
            if self.store.saves:
                self.store.commit()
            self.liveness.heard("w-1", Presence(refusing="no room"))
            self.settle()
        answered = drained.called
        self.store.held = False
        self.begin()
        worker = self.ledger.registry.workers.get("w-1")
        self.assertTrue(not answered or (worker.draining and worker.version == "2"))
        return answered

    def test_drain_and_resume(self) -> None:
        """A drained worker takes no job until it is resumed."""
        self.assertTrue(self.successResultOf(self.cluster.drain("w-1")).worker.draining)
        self.failureResultOf(self.house.submit(ECHO, ANY), Conflict)
        self.assertFalse(self.successResultOf(self.cluster.resume("w-1")).worker.draining)
        self.house.submit(ECHO, ANY)
        self.take("start_job")

    def test_forget_one_that_deregistered(self) -> None:
        """A worker that deregistered can be forgotten by its id, so its jobs are lost."""
        self.add(a_job())
        self.successResultOf(self.membership.deregister("w-1", "", PEER))
        self.successResultOf(self.cluster.forget("w-1"))
        self.assertIs(self.cluster.job("j-1").state, JobState.LOST)
        self.failureResultOf(self.cluster.forget("w-1"), NotFound)

    def test_readiness(self) -> None:
        """Ready is ready, with how many workers are online."""
        self.add(a_worker("w-2"), online=False)
        readiness = self.cluster.readiness()
        self.assertEqual((readiness.ready, readiness.workers_online), (True, 1))
