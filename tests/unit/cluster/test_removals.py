"""Removals step by step: what is durable when, and what comes of it when either side dies in between."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred

from scheduler.cluster.build import RETRY_INTERVAL_SECONDS
from scheduler.cluster.saving import UNSAVED_MAX_SECONDS
from scheduler.errors import (
    Busy,
    DeadlineExceeded,
    JobNotEnded,
    JobRemoved,
    NotFound,
    OutputPruned,
    StoreFailed,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
)
from scheduler.messages import Chunk, Heartbeat, HeartbeatAnswer, JobReport, JobStatus
from scheduler.model import Job, JobSpec, JobState, Ref, RemovedJob, RequestKey, Stream
from scheduler.terms import NO_WAITING
from scheduler.views import JobFilter
from tests.house import HOME
from tests.unit.cluster.case import ECHO, W1, ClusterTestCase
from tests.unit.cluster.values import a_job, a_worker

KEY = RequestKey("k", "f" * 64)

#: What the worker of the job says of it.
ENDED = JobReport(JobStatus("j-1", JobState.SUCCEEDED, started_at=900.0, finished_at=1001.0, exit_code=0))
RUNNING = JobReport(JobStatus("j-1", JobState.RUNNING, started_at=900.0), JobSpec(command="true"), 900.0)


class RemovalCase(ClusterTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.add(a_job(state=JobState.SUCCEEDED))

    def known(self) -> list[str]:
        """Ids of the jobs that clients see."""
        return [job.id for job in self.cluster.jobs(JobFilter(), 10, None).jobs]

    def stored(self) -> Job | None:
        """The job as it is durable."""
        jobs = {job.id: job for job in self.successResultOf(self.store.load()).jobs}
        return jobs.get("j-1")

    def remove(self) -> Deferred[bool]:
        return self.cluster.remove("j-1")

    def removed(self) -> None:
        """Remove it, all the way."""
        removal = self.remove()
        self.take("remove_job").answer.callback(None)
        self.assertTrue(self.successResultOf(removal))
        self.assertEqual(self.known(), [])

    def beat(self, **facts: object) -> HeartbeatAnswer:
        return self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", "boot", **facts), HOME))

    def online(self) -> None:
        """The worker is back, and it is time to try again."""
        self.add(a_worker())
        self.clock.advance(RETRY_INTERVAL_SECONDS)
        self.settle()


class StepTests(RemovalCase):
    def test_order(self) -> None:
        """The request is durable before the worker is told, and the job gone after the worker and the store said so."""
        self.store.held = True
        removal = self.remove()
        self.assertEqual((self.held(), self.cluster.job("j-1").remove_requested_at), ([], None))
        self.store.commit()
        self.assertEqual(self.cluster.job("j-1").remove_requested_at, 1000.0)
        call = self.take("remove_job")
        self.assertEqual((call.worker_id, call.args), ("w-1", ("j-1",)))
        call.answer.callback(None)
        self.assertEqual(self.known(), ["j-1"])
        self.assertNoResult(removal)
        self.store.commit()
        self.assertTrue(self.successResultOf(removal))
        self.assertEqual((self.known(), self.stored()), ([], None))

    def test_killed_after_the_request(self) -> None:
        """A scheduler that died before the worker was told tells it when both are back."""
        self.remove()
        self.begin()
        self.assertEqual(self.held(), [])
        self.assertEqual(self.cluster.job("j-1").remove_requested_at, 1000.0)
        self.online()
        self.take("remove_job").answer.callback(None)
        self.assertEqual((self.known(), self.stored()), ([], None))

    def test_killed_after_the_worker_removed_it(self) -> None:
        """A scheduler that died before the worker's answer asks again; a job that is not there is removed."""
        removal = self.remove()
        self.store.held = True
        self.take("remove_job").answer.callback(None)
        self.assertNoResult(removal)
        self.store.held = False
        self.begin()
        self.assertEqual(self.known(), ["j-1"])
        self.online()
        self.take("remove_job").answer.errback(NotFound("job", "j-1"))
        self.assertEqual((self.known(), self.stored()), ([], None))

    def test_killed_after_the_commit(self) -> None:
        """After that there is no job, and nothing is asked any more."""
        self.removed()
        self.begin()
        self.online()
        self.assertEqual((self.known(), self.held()), ([], []))

    def test_worker_gone_and_killed(self) -> None:
        """A removal that waits for a worker which is unknown at the start is finished then."""
        self.remove()
        self.ledger.registry.remove_worker("w-1")
        self.store.save([])
        self.begin()
        self.ledger.registry.remove_worker("w-1")
        self.removals.retry()
        self.assertEqual((self.known(), self.stored()), ([], None))

    def test_two_at_once(self) -> None:
        """A second request meanwhile shares the call, and the answer."""
        removals = [self.remove(), self.remove()]
        self.take("remove_job").answer.callback(None)
        for removal in removals:
            self.assertTrue(self.successResultOf(removal))
        self.assertEqual(self.held(), [])

    def test_hung_up(self) -> None:
        """A client that hangs up undoes nothing."""
        removal = self.remove()
        removal.addErrback(lambda _: None)
        removal.cancel()
        self.take("remove_job").answer.callback(None)
        self.assertEqual(self.known(), [])

    def test_id_of_the_workers_own(self) -> None:
        """The worker is called with the id that it knows the job by."""
        self.add(a_job("j-2", JobState.SUCCEEDED, remote_id="r"))
        self.cluster.remove("j-2")
        self.assertEqual(self.take("remove_job").args, ("r",))

    def test_not_now(self) -> None:
        """A worker that can't remove a job now is asked again, one call at a time."""
        for error in (Unreachable("w-1"), DeadlineExceeded("remove", 10.0), Unavailable("busy"), Busy("calls", 4)):
            removal = self.remove()
            self.take("remove_job").answer.errback(error)
            self.assertFalse(self.successResultOf(removal))
        self.online()
        self.online()
        call = self.take("remove_job")
        self.assertEqual(self.held(), [])
        call.answer.errback(Unreachable("w-1"))
        self.add(a_worker(), online=False)
        self.assertEqual(self.held(), [])
        self.online()
        self.take("remove_job").answer.callback(None)
        self.assertEqual(self.known(), [])

    def test_one_that_fails_holds_up_no_other(self) -> None:
        """A fault about one job is none about the others; it is told to who asks, and tried again."""
        self.add(a_job("j-2", JobState.SUCCEEDED, created_at=1001.0))
        self.add(a_worker(), online=False)
        for job_id in ("j-1", "j-2"):
            self.assertFalse(self.successResultOf(self.cluster.remove(job_id)))
        self.online()
        self.take("remove_job").answer.errback(WorkerFault("w-1", "what"))
        self.take("remove_job").answer.callback(None)
        self.assertEqual(self.known(), ["j-1"])
        removal = self.remove()
        self.take("remove_job").answer.errback(WorkerFault("w-1", "what"))
        self.failureResultOf(removal, WorkerFault)
        self.online()
        self.take("remove_job").answer.callback(None)
        self.assertEqual(self.known(), [])

    def test_one_that_stays_holds_up_no_other(self) -> None:
        """A job that its worker can't remove is asked for again, and the others at once."""
        self.add(a_job("j-2", JobState.SUCCEEDED, created_at=1001.0))
        self.add(a_worker(), online=False)
        for job_id in ("j-1", "j-2"):
            self.assertFalse(self.successResultOf(self.cluster.remove(job_id)))
        self.online()
        for _ in range(2):
            self.assertEqual(self.held()[0].args, ("j-1",))
            self.take("remove_job").answer.errback(Unavailable("job 'j-1' can't be removed: not permitted"))
            if "j-2" in self.known():
                self.take("remove_job").answer.callback(None)
            self.assertEqual(self.known(), ["j-1"])
            self.online()

    def test_worker_of_an_earlier_version(self) -> None:
        """A worker that can't be told keeps the output as long as any other; the job goes all the same."""
        removal = self.remove()
        self.take("remove_job").answer.errback(Unsupported("w-1", "RemoveJob"))
        self.assertTrue(self.successResultOf(removal))
        self.assertEqual(self.known(), [])

    def test_worker_says_it_runs(self) -> None:
        """A job that its worker says runs stays, and is not removed later either."""
        removal = self.remove()
        self.take("remove_job").answer.errback(JobNotEnded("j-1", "running"))
        error = self.failureResultOf(removal, JobNotEnded).value
        self.assertEqual((error.job_id, error.state), ("j-1", "running"))
        self.assertIsNone(self.cluster.job("j-1").remove_requested_at)
        self.begin()
        self.online()
        self.assertEqual((self.known(), self.held()), (["j-1"], []))

    def test_while_its_start_is_under_way(self) -> None:
        """A job whose end a heartbeat told before its start was answered is removed after that answer."""
        submission = self.house.submit(ECHO, W1)
        start = self.take("start_job")
        job_id = start.args[0].id
        ended = JobStatus(job_id, JobState.SUCCEEDED, started_at=1000.0, finished_at=1000.5, exit_code=0)
        self.beat(ended=(JobReport(ended),))
        self.online()
        removal = self.cluster.remove(job_id)
        self.assertEqual(self.held(), [])
        start.answer.callback(ended)
        self.assertEqual(self.successResultOf(submission).id, job_id)
        self.take("remove_job").answer.callback(None)
        self.assertTrue(self.successResultOf(removal))


class StoreTests(RemovalCase):
    def test_request_not_saved(self) -> None:
        """A removal that can't be promised is not begun, now or later."""
        self.store.held = True
        removal = self.remove()
        self.store.fail()
        self.failureResultOf(removal, StoreFailed)
        self.assertEqual((self.held(), self.cluster.job("j-1").remove_requested_at), ([], None))
        self.store.held = False
        self.clock.pump([1.0] * 20)
        self.online()
        self.assertEqual((self.held(), self.known()), ([], ["j-1"]))

    def test_removal_not_saved(self) -> None:
        """A removal that was promised, and is not durable yet, is carried out later."""
        removal = self.remove()
        self.store.held = True
        self.take("remove_job").answer.callback(None)
        self.store.fail()
        self.assertFalse(self.successResultOf(removal))
        self.assertEqual(self.known(), ["j-1"])
        self.store.held = False
        self.clock.pump([1.0] * 20)
        self.online()
        self.take("remove_job").answer.callback(None)
        self.assertEqual((self.known(), self.stored()), ([], None))

    def test_nothing_after_the_removal(self) -> None:
        """A report about a job during the save of its removal does not bring it back."""
        for lazily in (False, True):
            self.add(evolve(a_job("j-2", JobState.LOST), worker_id="w-gone"))
            self.store.held = True
            removal = self.cluster.remove("j-2")
            self.ledger.learn(evolve(self.cluster.job("j-2"), reason="another"), lazily=lazily)
            self.clock.advance(1.0)  # what was noted is saved
            while len(self.store.saves):
                self.store.commit()
            self.assertTrue(self.successResultOf(removal))
            self.store.held = False
            self.assertEqual(self.known(), ["j-1"])
            self.assertEqual([job.id for job in self.successResultOf(self.store.load()).jobs], ["j-1"])

    def test_retention_meanwhile(self) -> None:
        """A job whose time is over while it is being removed is gone once, and known as removed."""
        self.add(evolve(a_job("j-2", JobState.LOST), worker_id="w-gone"))
        self.store.held = True
        removal = self.cluster.remove("j-2")
        self.ledger.learn(Ref("job", "j-2"))
        while len(self.store.saves):
            self.store.commit()
        self.assertTrue(self.successResultOf(removal))
        self.store.held = False
        self.clock.advance(UNSAVED_MAX_SECONDS)
        (rest,) = self.successResultOf(self.store.load()).removed
        self.assertEqual((rest.job_id, self.ledger.registry.removed.has("j-2")), ("j-2", True))


class ReportTests(RemovalCase):
    """Reports of a worker about a job that was removed."""

    def setUp(self) -> None:
        super().setUp()
        self.removed()

    def check_told_again(self) -> None:
        """The worker is told to remove it, and the job is none."""
        self.assertEqual(self.take("remove_job").args, ("j-1",))
        self.assertEqual((self.known(), self.stored()), ([], None))

    def test_ended(self) -> None:
        """Its end is acknowledged, and the worker told once more; also after a restart."""
        for restart in (False, True):
            if restart:
                self.begin()
                self.online()
            for report in (ENDED, evolve(ENDED, spec=JobSpec(command="true"), created_at=900.0)):
                answer = self.beat(ended=(report,))
                self.assertEqual((answer.acknowledged, answer.describe), (("j-1",), ()))
                self.check_told_again()
            answer = self.beat(described=(evolve(ENDED, spec=JobSpec(command="true")),))
            self.assertEqual((answer.acknowledged, answer.describe), (("j-1",), ()))
            self.check_told_again()

    def test_not_told(self) -> None:
        """Where the worker can't be told it keeps the job as long as any."""
        for error in (Unreachable("w-1"), Unsupported("w-1", "RemoveJob"), JobNotEnded("j-1", "running")):
            self.beat(ended=(ENDED,))
            self.take("remove_job").answer.errback(error)
        self.assertEqual(self.known(), [])

    def test_report_from_before(self) -> None:
        """A description that left the worker before the job ended makes no job."""
        answer = self.beat(running=("j-1",), described=(RUNNING,))
        self.assertEqual((answer.describe, self.known()), ((), []))
        answer = self.beat(running=())
        self.assertEqual((answer.describe, self.known(), self.held()), ((), [], []))

    def test_it_runs(self) -> None:
        """A job that really runs was lost, and is shown as an orphan: nothing runs that nobody can see."""
        answer = self.beat(running=("j-1",))
        self.assertEqual((answer.describe, self.known()), (("j-1",), []))
        self.beat(running=("j-1",), described=(RUNNING,))
        job = self.cluster.job("j-1")
        self.assertEqual((job.state, job.reason, job.orphan), (JobState.LOST, "forgotten", True))
        self.assertEqual(self.beat(ended=(ENDED,)).acknowledged, ("j-1",))
        job = self.cluster.job("j-1")
        self.assertEqual((job.state, job.reason, job.orphan), (JobState.LOST, "forgotten", False))
        self.online()
        self.removed()


class KeyTests(RemovalCase):
    def test_across_a_restart(self) -> None:
        """A request whose job was removed runs nothing again, whatever is restarted."""
        submission = self.house.submit(ECHO, W1, NO_WAITING, KEY)
        start = self.take("start_job")
        job_id = start.args[0].id
        start.answer.callback(JobStatus(job_id, JobState.SUCCEEDED, started_at=1000.0, finished_at=1000.5))
        self.successResultOf(submission)
        removal = self.cluster.remove(job_id)
        self.take("remove_job").answer.callback(None)
        self.assertTrue(self.successResultOf(removal))
        for _ in range(2):
            error = self.failureResultOf(self.house.submit(ECHO, W1, NO_WAITING, KEY), JobRemoved).value
            self.assertEqual(error.job_id, job_id)
            self.begin()
            self.online()
        self.assertEqual(self.held(), [])

    def test_removed_once_more(self) -> None:
        """Its key stays when a removed job turns out to run, and is removed once more."""
        self.add(evolve(self.cluster.job("j-1"), key=KEY))
        self.removed()
        self.beat(running=("j-1",))
        self.beat(running=("j-1",), described=(RUNNING,))
        self.beat(ended=(ENDED,))
        self.removed()
        self.begin()
        self.online()
        self.failureResultOf(self.house.submit(ECHO, W1, NO_WAITING, KEY), JobRemoved)

    def test_rest(self) -> None:
        """A removed job leaves the fact that it was removed, and when."""
        self.removed()
        self.assertEqual(self.successResultOf(self.store.load()).removed, (RemovedJob("j-1", 1000.0),))

    def test_limit(self) -> None:
        """As many are kept as finished jobs are, those of the jobs that were removed last."""
        self.house.limits["keep_finished"] = 3
        self.begin()
        for number in range(5):
            self.add(evolve(a_job(f"l-{number}", JobState.LOST), worker_id="w-gone"))
            self.assertTrue(self.successResultOf(self.cluster.remove(f"l-{number}")))
        kept = [each.job_id for each in self.ledger.registry.removed.all()]
        self.assertEqual(kept, ["l-2", "l-3", "l-4"])
        self.assertEqual({each.job_id for each in self.successResultOf(self.store.load()).removed}, set(kept))
        self.begin()
        self.assertEqual([each.job_id for each in self.ledger.registry.removed.all()], kept)
        self.assertFalse(self.ledger.registry.removed.has("l-1"))


class FollowerTests(RemovalCase):
    def test_reading(self) -> None:
        """A reader that is served in pieces is cut where it is, and not asked for again."""
        reader = self.cluster.open_output("j-1", Stream.STDOUT, 0)
        first = reader.read()
        self.take("read_output").answer.callback(Chunk(b"he", 0, size=5))
        self.assertEqual(self.successResultOf(first).data, b"he")
        second = reader.read()
        self.removed_while_reading()
        self.failureResultOf(second, NotFound)
        self.failureResultOf(reader.read(), NotFound)

    def removed_while_reading(self) -> None:
        pull = self.take("read_output")
        removal = self.remove()
        self.take("remove_job").answer.callback(None)
        self.assertTrue(self.successResultOf(removal))
        self.settle()
        if not pull.answer.called:
            pull.answer.errback(OutputPruned("j-1"))
        self.settle()
