from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred

from scheduler.cluster import lifecycle
from scheduler.errors import Busy, Conflict, DeadlineExceeded, NotFound, Unreachable
from scheduler.messages import JobReport
from scheduler.model import Job, JobSpec, JobState
from scheduler.terms import QueueTerms, Target
from scheduler.views import JobFilter
from tests.doubles.workers import Call
from tests.house import HOME
from tests.unit.cluster.test_membership import MembershipTestCase, ended, running
from tests.unit.cluster.values import a_job

#: For a job that was queued, and promised.
WAITS = QueueTerms(queue_timeout=60.0)


class ReconcileTests(MembershipTestCase):
    """Jobs whose starts were not answered, or whose scheduler died during their start."""

    def setUp(self) -> None:
        super().setUp()
        self.online(worker_id="w-1")

    def submit(self) -> tuple[Deferred[Job], Call]:
        return self.house.submit(JobSpec(command="echo"), Target(worker="w-1")), self.workers.take("start_job")

    def only_job(self) -> Job:
        (job,) = self.ledger.registry.jobs.listing.matching(JobFilter())
        return job

    def test_a_start_under_way_is_left_alone(self) -> None:
        """Heartbeats change nothing about a job before its start is answered, whether they list it or not."""
        answer, call = self.submit()
        job = self.only_job()
        self.beat("w-1")
        self.assertEqual(self.workers.held, [])
        self.assertEqual(self.beat("w-1", running=(job.id,)).describe, ())
        self.assertIs(self.state(job.id), JobState.STARTING)
        call.answer.callback(running(job.id))
        self.assertIs(self.successResultOf(answer).state, JobState.RUNNING)

    def test_an_unanswered_start_arrived(self) -> None:
        """A job whose start was not answered runs once its worker lists it, and is described."""
        for state in (JobState.UNKNOWN, JobState.STARTING):
            self.ledger.learn(a_job(state.value, state))
            self.assertEqual(self.beat("w-1", running=(state.value,)).describe, (state.value,))
            self.assertIs(self.state(state.value), JobState.RUNNING)

    def test_an_unanswered_start_is_asked_about(self) -> None:
        """A job whose start was not answered is as its worker says when asked, with the id sealed."""
        for state in (JobState.UNKNOWN, JobState.STARTING):
            self.ledger.learn(a_job(state.value, state))
            self.beat("w-1")
            call = self.workers.take("query_job")
            self.assertEqual(call.args, (state.value, True))
            call.answer.callback(ended(state.value))
            self.assertIs(self.state(state.value), JobState.FAILED)
            self.assertEqual(self.ledger.registry.jobs.get(state.value).exit_code, 3)

    def test_an_unanswered_start_never_arrived(self) -> None:
        """A job that nobody was promised and whose start did not arrive has failed, and says why."""
        for state in (JobState.UNKNOWN, JobState.STARTING):
            self.ledger.learn(a_job(state.value, state))
            self.beat("w-1")
            self.workers.take("query_job").answer.errback(NotFound("job", state.value))
            job = self.ledger.registry.jobs.get(state.value)
            self.assertEqual((job.state, job.reason), (JobState.FAILED, lifecycle.NEVER_STARTED))

    def test_a_promised_job_is_started(self) -> None:
        """A job that somebody was promised is sent again under its id, and runs, or has run, as its worker answers."""
        for state in (JobState.UNKNOWN, JobState.STARTING):
            job = a_job(state.value, state, promised=True, terms=WAITS)
            self.ledger.learn(job)
            self.beat("w-1")
            call = self.workers.take("start_job")
            self.assertEqual(call.args[0].id, job.id)
            self.beat("w-1")
            self.assertEqual(self.workers.held, [])  # it is under way
            call.answer.callback(running(job.id))
            self.assertIs(self.state(job.id), JobState.RUNNING)
            self.ledger.learn(lifecycle.reported(self.ledger.registry.jobs.get(job.id), ended(job.id), 1000.0))

    def test_a_promised_job_is_sent_until_it_arrives(self) -> None:
        """A start that was sent again and not answered is sent with the next heartbeat too."""
        self.ledger.learn(a_job(state=JobState.UNKNOWN, promised=True, terms=WAITS))
        for error in (Unreachable("w-1", sent=True), DeadlineExceeded("start", 10.0), Busy("calls", 4)):
            self.beat("w-1")
            self.workers.take("start_job").answer.errback(error)
            if not isinstance(error, Busy):
                self.workers.take("probe").answer.callback(None)
            self.assertIs(self.state(), JobState.UNKNOWN)
        self.beat("w-1")
        self.workers.take("start_job").answer.callback(running())
        self.assertIs(self.state(), JobState.RUNNING)

    def test_a_promised_job_is_not_sent_before_that_is_durable(self) -> None:
        """Where a promised job went must be known after a crash, or it could be sent elsewhere too."""
        job = a_job(state=JobState.QUEUED, worker_id=None, promised=True, terms=WAITS)
        self.ledger.learn(job)
        self.store.held = True
        self.ledger.learn(evolve(job, state=JobState.STARTING, worker_id="w-1")).addErrback(lambda _: None)
        self.store.fail()
        self.beat("w-1")
        self.assertEqual((self.workers.held, self.state()), ([], JobState.STARTING))
        self.store.held = False
        self.clock.advance(1)
        self.beat("w-1")
        self.workers.take("start_job")

    def test_a_promised_job_of_another_version(self) -> None:
        """A promised job is not sent again to a worker that came back as one that would run it differently."""
        for there, state in ((True, JobState.RUNNING), (False, JobState.FAILED)):
            spec = JobSpec(command="a", stop_mode="main")
            job = a_job(str(there), state=JobState.UNKNOWN, promised=True, terms=WAITS, spec=spec)
            self.ledger.learn(job)
            self.beat("w-1", running=[str(True)] if not there else [])
            query = self.workers.take("query_job")
            self.assertEqual(query.args, (job.id, True))
            if there:
                query.answer.callback(running(job.id))
            else:
                query.answer.errback(NotFound("job", job.id))
            self.assertIs(self.state(job.id), state)
        self.assertEqual(self.ledger.registry.jobs.get(job.id).reason, lifecycle.NEVER_STARTED)

    def test_a_promised_job_that_ran(self) -> None:
        """A promised job whose id its worker has used up is lost, not sent for ever."""
        self.ledger.learn(a_job(state=JobState.UNKNOWN, promised=True, terms=WAITS))
        self.beat("w-1")
        self.workers.take("start_job").answer.errback(Conflict("used up"))
        self.assertIs(self.state(), JobState.LOST)

    def test_a_promised_job_that_was_stopped(self) -> None:
        """A promised job that was asked to stop is not started any more: its id is sealed."""
        self.ledger.learn(a_job(state=JobState.UNKNOWN, promised=True, terms=WAITS, stop_requested_at=999.0))
        self.beat("w-1")
        self.workers.take("query_job").answer.errback(NotFound("job", "j-1"))
        job = self.ledger.registry.jobs.get("j-1")
        self.assertEqual((job.state, job.reason), (JobState.STOPPED, "stopped before it was started"))

    def test_a_worker_that_moves_meanwhile(self) -> None:
        """A worker that comes back at another address while its jobs are asked about is asked on there."""
        for job_id in ("j-1", "j-2"):
            self.ledger.learn(a_job(job_id, JobState.UNKNOWN))
        self.beat("w-1")
        self.register("127.0.0.1:30009", worker_id="w-1")
        self.workers.take("query_job").answer.callback(ended("j-1"))
        self.workers.take("probe")
        self.assertEqual(self.workers.take("query_job").address, "127.0.0.1:30009")

    def test_a_job_that_goes_to_another_meanwhile(self) -> None:
        """A worker that is asked about its jobs, one by one, is not asked about one that is another's by then."""
        for job_id in ("j-1", "j-2"):
            self.ledger.learn(a_job(job_id, started_at=900.0))
        self.beat("w-1")
        asked = self.workers.take("query_job")
        self.ledger.learn(evolve(self.ledger.registry.jobs.get("j-2"), worker_id="w-2"))
        asked.answer.callback(running("j-1"))
        self.assertEqual(self.workers.held, [])

    def test_a_queued_job_is_nobodys(self) -> None:
        """A job that waits for a worker, even this one, is none that the worker should know."""
        self.ledger.learn(a_job(state=JobState.QUEUED))
        self.beat("w-1")
        self.assertEqual(self.workers.held, [])
        self.assertIs(self.state(), JobState.QUEUED)


class OrphanTests(MembershipTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.online(worker_id="w-1", name="box")
        self.ledger.learn(a_job(started_at=900.0))
        self.successResultOf(self.membership.departures.remove(self.ledger.registry.workers.get("w-1"), "forgotten"))
        self.assertIs(self.state(), JobState.LOST)
        self.online(worker_id="w-1", name="box")

    def job(self) -> Job:
        return self.ledger.registry.jobs.get("j-1")

    def test_a_forgotten_worker_returns(self) -> None:
        """A lost job that its worker runs is an orphan: lost as before, and a load on the worker."""
        answer = self.beat("w-1", running=("j-1",))
        self.assertEqual((answer.describe, answer.acknowledged), ((), ()))
        job = self.job()
        self.assertEqual((job.state, job.reason, job.orphan, job.over), (JobState.LOST, "forgotten", True, False))
        self.assertEqual(self.ledger.registry.load("w-1"), 1)
        self.assertEqual(self.ledger.registry.jobs.count_unfinished("w-1"), 1)
        self.assertEqual(self.ledger.registry.jobs.finished.surplus(0), [])

    def test_its_end(self) -> None:
        """The end of an orphan is acknowledged, and changes nothing but that it is none any more."""
        self.beat("w-1", running=("j-1",))
        self.assertEqual(self.beat("w-1", ended=(JobReport(ended()),)).acknowledged, ("j-1",))
        job = self.job()
        self.assertEqual((job.state, job.exit_code, job.orphan), (JobState.LOST, None, False))
        self.assertEqual(self.ledger.registry.load("w-1"), 0)
        self.assertEqual(self.ledger.registry.jobs.finished.surplus(0), ["j-1"])

    def test_unmentioned(self) -> None:
        """An orphan that its worker does not list any more is asked about, and is none where there is no record."""
        self.beat("w-1", running=("j-1",))
        self.beat("w-1")
        self.workers.take("query_job").answer.errback(NotFound("job", "j-1"))
        self.assertEqual((self.job().reason, self.job().orphan), ("forgotten", False))

    def test_forgotten_again(self) -> None:
        """An orphan is lost once more when its worker is forgotten."""
        self.beat("w-1", running=("j-1",))
        self.successResultOf(self.membership.departures.remove(self.ledger.registry.workers.get("w-1"), "forgotten"))
        self.assertFalse(self.job().orphan)

    def test_only_what_was_lost(self) -> None:
        """A heartbeat that is older than the end its worker reported makes no orphan."""
        self.ledger.learn(a_job("j-2", JobState.SUCCEEDED))
        self.beat("w-1", running=("j-2",))
        self.assertTrue(self.ledger.registry.jobs.get("j-2").over)

    def test_of_another_worker(self) -> None:
        """A job of a worker that is not known any more is no other's: another one's reports of it are not believed."""
        self.ledger.learn(a_job("j-2", worker_id="w-gone", started_at=900.0))
        other = self.online(address=f"{HOME}:30001", name="other")
        answer = self.beat(other, running=("j-1", "j-2"), ended=(JobReport(ended("j-2")),))
        self.assertEqual((answer.acknowledged, answer.describe), ((), ()))
        jobs = [self.ledger.registry.jobs.get(job_id) for job_id in ("j-1", "j-2")]
        self.assertEqual(
            [(job.worker_id, job.orphan, job.over) for job in jobs], [("w-1", False, True), ("w-gone", False, False)]
        )
