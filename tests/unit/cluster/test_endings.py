"""Ends that workers report while the store fails."""

from __future__ import annotations

import io
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from scheduler.cluster.lifecycle import lost
from scheduler.cluster.output.bounds import length
from scheduler.cluster.workers.polling import POLL_INTERVAL_SECONDS
from scheduler.daemon.logs import observer
from scheduler.errors import JobNotEnded, StartUnanswered, StoreFailed
from scheduler.messages import Heartbeat, HeartbeatAnswer, JobReport, JobStatus
from scheduler.model import Job, JobSpec, JobState, Stream
from scheduler.request_keys import RequestKey
from scheduler.terms import NO_WAITING, QueueTerms, Retry, Target
from tests.house import PEER
from tests.unit.cluster.case import ECHO, W1, ClusterTestCase
from tests.unit.cluster.values import a_job, a_worker

KEY = RequestKey("k", "f" * 64)

#: Why the job of the tests is not shown as it ended.
REASON = "it has ended, and its end can't be saved yet: database unavailable: disk full"


def ended(job_id: str = "j-1", state: JobState = JobState.SUCCEEDED) -> JobStatus:
    code = 0 if state is JobState.SUCCEEDED else 3
    return JobStatus(job_id, state, started_at=900.0, finished_at=1001.0, exit_code=code, stdout_bytes=2)


class EndingsTestCase(ClusterTestCase):
    def break_store(self) -> None:
        """The store fails from now on."""
        self.store.problem = "disk full"

    def end_unsaved(self) -> None:
        """The store fails, and the job ends."""
        self.break_store()
        self.beat(ended())

    def mend(self) -> None:
        """The store works again, and that was noticed."""
        self.store.problem = ""
        self.clock.advance(10)

    def beat(self, *reports: JobStatus, worker_id: str = "w-1", **facts: Any) -> HeartbeatAnswer:
        heartbeat = Heartbeat(worker_id, "boot", ended=tuple(map(JobReport, reports)), **facts)
        return self.successResultOf(self.membership.heartbeat(heartbeat, PEER))

    def shown(self, job_id: str = "j-1") -> tuple[JobState, str | None]:
        job = self.cluster.job(job_id)
        return job.state, job.reason

    def stored(self, job_id: str = "j-1") -> Job:
        return {job.id: job for job in self.successResultOf(self.store.load()).jobs}[job_id]


class LogTests(EndingsTestCase):
    """The line of the log about the end of a job."""

    def setUp(self) -> None:
        super().setUp()
        self.out = io.StringIO()
        write = observer(self.out, json=False)
        globalLogPublisher.addObserver(write)
        self.addCleanup(globalLogPublisher.removeObserver, write)

    def lines(self) -> list[str]:
        found = (line for line in self.out.getvalue().splitlines() if " has ended: " in line)
        return [line.partition("Endings: ")[2] for line in found]

    def test_one_line(self) -> None:
        """There is one for each end, however often its worker tells: how, on which worker, and after how long."""
        self.add(a_job(started_at=900.0), a_job("j-2", started_at=900.0), a_job("j-3", started_at=900.0))
        killed = JobStatus("j-2", JobState.FAILED, "signal: killed", 900.0, 900.25, signal="SIGKILL")
        for _ in range(2):
            self.beat(ended(state=JobState.FAILED), killed, ended("j-3"))
        self.assertEqual(
            self.lines(),
            [
                "job j-1 on w-1 has ended: failed exit_code=3 seconds=100.0",
                'job j-2 on w-1 has ended: failed signal=SIGKILL reason="signal: killed" seconds=0.25',
                "job j-3 on w-1 has ended: succeeded exit_code=0 seconds=100.0",
            ],
        )

    def test_decided_here(self) -> None:
        """An end that the scheduler decides is one as well, also of a job that never had a worker."""
        self.add(a_job(started_at=900.0))
        self.ledger.decide(lost(self.cluster.job("j-1"), "no record", 1010.0))
        self.add(a_job("j-2", JobState.QUEUED, None, target=Target(selector={"gpu": "x"})))
        self.assertEqual(
            self.lines(),
            [
                'job j-1 on w-1 has ended: lost reason="no record" seconds=110.0',
                'job j-2 on no worker has ended: failed reason="no worker matches the selector (gpu=x)"',
            ],
        )

    def test_not_before_it_is_durable(self) -> None:
        """An end that can't be saved yet is not logged before anybody can see it."""
        self.add(a_job(started_at=900.0))
        self.end_unsaved()
        self.assertEqual(self.lines(), [])
        self.mend()
        self.assertEqual(len(self.lines()), 1)


class HeldTests(EndingsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.add(a_job(started_at=900.0))

    def test_shown_when_durable(self) -> None:
        """The job stays as it was and says why, the end is not acknowledged, and is shown once it is saved."""
        self.break_store()
        wait = self.cluster.wait("j-1", 300.0)
        self.assertEqual(self.beat(ended()).acknowledged, ())
        self.assertEqual(self.shown(), (JobState.RUNNING, REASON))
        self.assertNoResult(wait)
        self.mend()
        self.assertEqual(self.shown(), (JobState.SUCCEEDED, None))
        self.assertEqual(self.successResultOf(wait).exit_code, 0)
        self.assertIs(self.stored().state, JobState.SUCCEEDED)
        self.assertEqual(self.beat(ended()).acknowledged, ("j-1",))

    def test_killed_meanwhile(self) -> None:
        """Whatever a client saw of the end before a crash is true after it."""
        self.end_unsaved()
        self.store.problem = ""
        self.begin()
        self.assertEqual(self.shown(), (JobState.UNKNOWN, "the scheduler was restarted"))
        self.assertEqual(self.beat(ended()).acknowledged, ("j-1",))
        self.assertIs(self.shown()[0], JobState.SUCCEEDED)

    def test_nothing_changes_it_meanwhile(self) -> None:
        """The worker may be silent, restart, or be forgotten: the end that is known is the end."""
        self.end_unsaved()
        self.beat(running=("j-1",))
        self.liveness.reset("w-1", "gone")
        self.ledger.learn(a_job(state=JobState.UNKNOWN)).addErrback(lambda _: None)
        self.ledger.decide(a_job(state=JobState.LOST)).addErrback(lambda _: None)
        self.ledger.learn(a_job(stdout_bytes=1), lazily=True)
        self.assertEqual(self.shown(), (JobState.RUNNING, REASON))
        self.mend()
        self.assertEqual(self.shown(), (JobState.SUCCEEDED, None))

    def test_still_failing(self) -> None:
        """However often the store is tried, the end is kept."""
        self.end_unsaved()
        self.clock.pump([10.0] * 5)
        self.assertEqual(self.shown(), (JobState.RUNNING, REASON))
        self.assertFalse(self.ledger.idle)
        self.mend()
        self.assertIs(self.shown()[0], JobState.SUCCEEDED)
        self.clock.advance(1)
        self.assertTrue(self.ledger.idle)

    def begin_attempt(self) -> None:
        """The store fails, and while it is tried again the job ends."""
        self.break_store()
        self.ledger.learn(a_job(started_at=900.0, stdout_bytes=1)).addErrback(lambda _: None)
        self.store.problem, self.store.held = "", True
        self.clock.advance(1)
        self.assertEqual(len(self.store.saves), 1)
        self.beat(ended())
        self.assertIs(self.shown()[0], JobState.RUNNING)

    def test_during_an_attempt(self) -> None:
        """An end that is reported while the store is tried is shown with the save that has it, not before."""
        self.begin_attempt()
        self.store.commit()
        self.assertEqual(self.ledger.store_problem, "")
        self.assertIs(self.shown()[0], JobState.RUNNING)
        self.store.commit()
        self.assertIs(self.shown()[0], JobState.SUCCEEDED)

    def test_after_an_attempt(self) -> None:
        """Where the save after an attempt fails the end is kept for the next one."""
        self.begin_attempt()
        self.store.commit()
        self.store.fail()
        self.assertIs(self.shown()[0], JobState.RUNNING)
        self.store.held = False
        self.mend()
        self.assertIs(self.shown()[0], JobState.SUCCEEDED)

    def test_at_shutdown(self) -> None:
        """A last attempt is made; what the store does not take is reported by the worker again."""
        for works in (False, True):
            self.end_unsaved()
            if works:
                self.store.problem = ""
            self.successResultOf(self.ledger.close())
            self.store.problem = ""
            self.assertIs(self.stored().state, JobState.SUCCEEDED if works else JobState.RUNNING)
            self.begin()

    def test_one_that_was_not_known(self) -> None:
        """A job first heard of at its end is not there before it is durable, and is reported again."""
        known = Heartbeat("w-1", "boot", ended=(JobReport(ended("j-9")),))
        described = Heartbeat("w-1", "boot", described=(JobReport(ended("j-9"), JobSpec(command="true"), 900.0),))
        self.break_store()
        for _ in range(2):
            self.assertEqual(self.successResultOf(self.membership.heartbeat(known, PEER)).describe, ("j-9",))
            self.assertEqual(self.successResultOf(self.membership.heartbeat(described, PEER)).acknowledged, ())
            self.assertIsNone(self.ledger.registry.jobs.find("j-9"))
        self.mend()
        self.assertIsNone(self.ledger.registry.jobs.find("j-9"))
        self.successResultOf(self.membership.heartbeat(known, PEER))
        self.assertEqual(self.successResultOf(self.membership.heartbeat(described, PEER)).acknowledged, ("j-9",))
        self.assertIs(self.shown("j-9")[0], JobState.SUCCEEDED)

    def test_its_slot(self) -> None:
        """A held job counts as it is shown, and a job that waits for its slot waits for the store."""
        self.add(a_worker(slots=1))
        queued = a_job("q", JobState.QUEUED, None, target=Target(selector={}), terms=QueueTerms(60.0), promised=True)
        self.add(queued)
        self.settle()
        waiting = self.cluster.waiting_for(queued)
        assert waiting is not None
        self.assertEqual(waiting.why, "no-free-slot")
        self.end_unsaved()
        waiting = self.cluster.waiting_for(queued)
        assert waiting is not None
        self.assertEqual((waiting.why, waiting.detail), ("store-failing", "database unavailable: disk full"))
        self.assertEqual(self.cluster.worker("w-1").running_jobs, 1)
        self.mend()
        self.settle()
        self.take("start_job")

    def test_removal(self) -> None:
        """A held job can't be removed yet; a client that tries is told to try again, not to stop it first."""
        self.failureResultOf(self.cluster.remove("j-1"), JobNotEnded)
        self.end_unsaved()
        self.failureResultOf(self.cluster.remove("j-1"), StoreFailed)

    def test_output(self) -> None:
        """The length of the output is no more known than the end."""
        self.end_unsaved()
        self.assertIsNone(length(self.cluster.job("j-1"), Stream.STDOUT))


class QueryTests(EndingsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.add(a_job(started_at=900.0))

    def query(self) -> Deferred[Job]:
        return self.cluster.query("w-1", "j-1")

    def test_query(self) -> None:
        """A query that brings the end is answered with the job as it is shown, and so are those after it."""
        self.break_store()
        answer = self.query()
        self.take("query_job").answer.callback(ended())
        for each in (answer, self.query()):
            self.assertIs(self.successResultOf(each).state, JobState.RUNNING)
        self.assertEqual(self.held(), [])
        self.mend()
        self.assertIs(self.successResultOf(self.query()).state, JobState.SUCCEEDED)

    def test_not_listed(self) -> None:
        """A heartbeat that does not list it is no reason to ask about it."""
        self.end_unsaved()
        self.beat()
        self.assertEqual(self.held(), [])

    def test_core_worker(self) -> None:
        """The end that a core worker was asked about is held too, and its other jobs are asked about."""
        self.add(a_worker("old", boot_id="", features=()), *(a_job(f"c-{n}", worker_id="old") for n in range(2)))
        self.break_store()
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.take("query_job").answer.callback(JobStatus("c-0", JobState.FAILED, "exit status 1"))
        self.take("query_job").answer.callback(JobStatus("c-1", JobState.RUNNING))
        self.assertEqual(
            [self.shown(f"c-{n}") for n in range(2)], [(JobState.RUNNING, REASON), (JobState.RUNNING, None)]
        )
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.assertEqual([call.job_id for call in self.held()], ["c-1"])
        self.mend()
        self.assertEqual(self.shown("c-0"), (JobState.FAILED, "exit status 1"))


class StartTests(EndingsTestCase):
    def test_answer(self) -> None:
        """A start that is answered with an end, and the same request again, is unanswered until that is durable."""
        answer = self.house.submit(ECHO, W1, NO_WAITING, KEY)
        call = self.take("start_job")
        job_id = self.only_job().id
        self.break_store()
        call.answer.callback(JobStatus(job_id, JobState.FAILED, "not allowed"))
        for each in (answer, self.house.submit(ECHO, W1, NO_WAITING, KEY)):
            self.assertEqual(self.failureResultOf(each, StartUnanswered).value.job_id, job_id)
        self.assertEqual(self.shown(job_id), (JobState.STARTING, REASON))
        self.mend()
        self.assertEqual(self.shown(job_id), (JobState.FAILED, "not allowed"))
        again = self.successResultOf(self.house.submit(ECHO, W1, NO_WAITING, KEY))
        self.assertEqual((again.id, again.state), (job_id, JobState.FAILED))

    def test_answer_behind_the_end(self) -> None:
        """The answer of the request is held with the end, whichever of the two came first."""
        answer = self.house.submit(ECHO, W1, NO_WAITING, KEY)
        call = self.take("start_job")
        job_id = self.only_job().id
        self.break_store()
        self.beat(ended(job_id))
        call.answer.callback(ended(job_id))
        self.failureResultOf(answer, StartUnanswered)
        self.failureResultOf(self.house.submit(ECHO, W1, NO_WAITING, KEY), StartUnanswered)
        self.mend()
        self.assertIs(self.successResultOf(self.house.submit(ECHO, W1, NO_WAITING, KEY)).state, JobState.SUCCEEDED)

    def test_next_attempt(self) -> None:
        """The next attempt comes with the end, and both are saved together."""
        terms = QueueTerms(retry=Retry(1, 60.0))
        self.add(a_job(started_at=900.0, target=Target(worker="w-1"), terms=terms))
        self.break_store()
        self.beat(ended(state=JobState.FAILED))
        self.assertEqual(len(self.jobs()), 1)
        self.store.held, self.store.problem = True, ""
        self.clock.advance(1)
        self.assertEqual(len(self.store.saves), 1)
        self.store.commit()
        following = self.cluster.job("j-1").retried_by
        assert following is not None
        self.assertIs(self.shown(following)[0], JobState.QUEUED)
        self.assertIs(self.stored(following).state, JobState.QUEUED)

    def test_a_worker_that_deregisters(self) -> None:
        """The end is known, wherever its worker goes."""
        self.add(a_job(started_at=900.0))
        self.end_unsaved()
        self.membership.deregister("w-1", "", PEER).addErrback(lambda _: None)
        self.assertTrue(self.cluster.worker("w-1").worker.is_offline)
        self.assertEqual(self.shown(), (JobState.RUNNING, REASON))
        self.mend()
        self.assertIs(self.shown()[0], JobState.SUCCEEDED)

    def test_a_job_that_is_unknown(self) -> None:
        """A job that nobody can tell about stays that until its end is durable."""
        self.add(a_worker(), online=False)
        self.add(evolve(a_job(state=JobState.UNKNOWN), unknown_since=950.0, reason="worker 'w-1' can't be reached"))
        self.end_unsaved()
        self.assertEqual(self.shown(), (JobState.UNKNOWN, REASON))
        self.assertEqual(self.cluster.job("j-1").unknown_since, 950.0)
        self.mend()
        self.assertIs(self.shown()[0], JobState.SUCCEEDED)
