"""Each part of the cluster says whether anything is left of what it did: it is busy meanwhile, and idle again after."""

from __future__ import annotations

from attrs import asdict, evolve
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.jobs.lines import Lines
from scheduler.cluster.saving import UNSAVED_MAX_SECONDS
from scheduler.deferreds import Rounds, Shared
from scheduler.errors import DeadlineExceeded, StoreFailed, Unavailable, Unreachable
from scheduler.messages import Heartbeat, JobReport, JobStatus, Registration
from scheduler.model import Job, JobSpec, JobState, Presence, Stream, WorkerState
from scheduler.request_keys import RequestKey
from scheduler.security.interfaces import NewToken
from scheduler.security.principals import Principal, Scope
from scheduler.terms import NO_WAITING, QueueTerms
from tests.house import ANY, ECHO, PEER, House
from tests.unit.cluster.values import a_job, a_removal, a_worker

WAITS = QueueTerms(queue_timeout=60.0)

#: Parts that keep nothing of what is under way, and the lines, which are the queue's.
STATELESS = {"service", "records", "work", "admission", "lines"}


class IdleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House(lambda: 1000.0, lease=30.0)
        self.house.workers.hold()
        self.clock, self.store, self.workers = self.house.clock, self.house.store, self.house.workers
        self.parts = self.house.parts
        self.cluster, self.ledger = self.parts.service, self.parts.ledger
        self.ledger.learn(a_worker(slots=1))
        self.parts.liveness.heard("w-1")
        self.workers.take("probe").answer.callback(None)
        self.assert_busy()

    def assert_busy(self, *expected: str) -> None:
        """These parts are busy, and no others."""
        self.house.settle()
        parts = {name: part for name, part in asdict(self.parts, recurse=False).items() if name not in STATELESS}
        parts["registry"] = self.ledger.registry
        self.assertEqual({name for name, part in parts.items() if not part.idle}, set(expected))

    def end(self, job: Job) -> None:
        current = self.cluster.job(job.id)
        self.ledger.learn(evolve(current, state=JobState.SUCCEEDED, finished_at=1001.0))
        self.clock.advance(0.2)  # what was noted is saved

    def run_job(self, **terms: float) -> Job:
        answer = self.house.submit(ECHO, ANY, QueueTerms(**terms))
        call = self.workers.take("start_job")
        call.answer.callback(JobStatus(call.args[0].id, JobState.RUNNING, started_at=1000.0))
        self.clock.advance(0.2)
        job: Job = self.successResultOf(answer)
        return job

    def test_start(self) -> None:
        """A start is under way from its request to its answer, and reserves load until it is committed."""
        self.store.held = True
        answer = self.house.submit(ECHO, ANY, NO_WAITING, RequestKey("k", "f"))
        self.assert_busy("flights", "submissions", "registry")
        self.store.commit()
        self.assert_busy("flights")
        call = self.workers.take("start_job")
        call.answer.callback(JobStatus(call.args[0].id, JobState.RUNNING, started_at=1000.0))
        self.successResultOf(answer)
        self.clock.advance(UNSAVED_MAX_SECONDS)
        self.store.commit()
        self.assert_busy()

    def test_key(self) -> None:
        """A key is in use while its request is under way."""
        keys = self.parts.submissions.keys
        with keys.in_use(RequestKey("k", "f")):
            self.assertFalse(keys.idle)
        self.assertTrue(keys.idle)

    def test_queue(self) -> None:
        """A job is in the queue until its start was answered, and what it waits for is kept until then."""
        running = self.run_job()
        queued = self.successResultOf(self.house.submit(ECHO, ANY, WAITS))
        self.assert_busy("queue")
        self.cluster.waiting_for(queued)
        self.assert_busy("queue", "outlook")
        self.end(running)
        call = self.workers.take("start_job")
        self.assert_busy("queue", "flights")
        call.answer.callback(JobStatus(queued.id, JobState.RUNNING, started_at=1000.0))
        self.clock.advance(2.0)
        self.assert_busy()
        self.end(queued)
        self.assertEqual(self.house.timers(), 0)

    def test_lines(self) -> None:
        """A job that may come back to its place is kept."""
        waiting = Lines()
        job = a_job(state=JobState.QUEUED, target=ANY)
        waiting.add(job)
        self.assertFalse(waiting.idle)
        waiting.leave(job.id)
        self.assertFalse(waiting.idle)
        waiting.forget(job.id)
        self.assertTrue(waiting.idle)

    def test_stop(self) -> None:
        """A stop is kept until the job has ended."""
        job = self.run_job()
        stop = self.cluster.stop(job.id)
        self.assert_busy("stops")
        self.workers.take("stop_job").answer.callback(None)
        self.assert_busy("stops", "feed")
        self.end(job)
        self.successResultOf(stop)
        self.assert_busy()

    def test_removal(self) -> None:
        """A removal is under way until the worker and the store have answered."""
        self.ledger.learn(a_job(state=JobState.SUCCEEDED))
        removal = self.cluster.remove("j-1")
        self.assert_busy("removals")
        self.clock.advance(0.2)
        self.workers.take("remove_job").answer.callback(None)
        self.successResultOf(removal)
        self.assert_busy()

    def test_question(self) -> None:
        """A question is under way until the worker has answered."""
        self.ledger.learn(a_job())
        query = self.cluster.query("w-1", "j-1")
        self.assert_busy("reconciler")
        self.workers.take("query_job").answer.callback(JobStatus("j-1", JobState.RUNNING, started_at=1000.0))
        self.successResultOf(query)
        self.assert_busy()

    def test_dispute(self) -> None:
        """A removed job that is said to run is in dispute until it is described, or not said to run any more."""
        self.ledger.learn(a_job(state=JobState.SUCCEEDED))
        self.ledger.decide(*a_removal("j-1"))
        self.parts.membership.heartbeat(Heartbeat("w-1", "boot", running=("j-1",)), PEER)
        self.assert_busy("reconciler")
        self.parts.membership.heartbeat(Heartbeat("w-1", "boot"), PEER)
        self.assert_busy()
        self.parts.membership.heartbeat(Heartbeat("w-1", "boot", running=("j-1",)), PEER)
        self.assert_busy("reconciler")
        running = JobReport(JobStatus("j-1", JobState.RUNNING, started_at=900.0), JobSpec(command="echo"), 900.0)
        self.parts.membership.heartbeat(Heartbeat("w-1", "boot", running=("j-1",), described=(running,)), PEER)
        self.assertTrue(self.cluster.job("j-1").orphan)
        self.assertTrue(self.parts.reconciler.idle)
        self.parts.membership.heartbeat(Heartbeat("w-1", "boot", running=("j-1",)), PEER)
        self.assertTrue(self.parts.reconciler.idle)

    def test_polling(self) -> None:
        """A core worker is asked in rounds."""
        self.ledger.learn(a_worker("core", boot_id=""))
        self.ledger.see("core", Presence(WorkerState.ONLINE))
        self.ledger.learn(a_job(worker_id="core"))
        self.clock.advance(1.0)
        self.assert_busy("polling", "reconciler")
        self.workers.take("query_job").answer.errback(DeadlineExceeded("query", 10.0))
        self.assert_busy("polling", "liveness")
        self.workers.take("probe").answer.errback(Unreachable("core"))
        self.assertTrue(self.parts.polling.idle)

    def test_liveness(self) -> None:
        """A probe is under way until it is answered."""
        self.parts.liveness.begin("w-1")
        self.parts.liveness.heard("w-1")
        self.assert_busy("liveness")
        self.workers.take("probe").answer.callback(None)
        self.assert_busy()
        self.parts.liveness.reset("stranger", "it is no worker")
        self.assert_busy("liveness")

    def test_expected(self) -> None:
        """A request waits for a worker until that has answered; who waited is not kept."""
        self.parts.liveness.reset("w-1", "it was stopped")
        self.parts.liveness.heard("w-1")
        self.house.submit(ECHO, ANY).addErrback(lambda _: None)
        self.assert_busy("expected", "liveness")
        self.workers.take("probe").answer.errback(Unreachable("w-1"))
        self.assert_busy()

    def test_backoff(self) -> None:
        """A worker is in backoff for a time."""
        backoff = self.parts.backoff
        backoff.refused("w-1", Unavailable("no more processes", 5.0))
        self.assertFalse(backoff.idle)
        self.clock.advance(6.0)
        self.assertTrue(backoff.idle)

    def test_saving(self) -> None:
        """The ledger is not idle while it has changes that the store did not take."""
        self.store.held = True
        self.ledger.learn(a_job()).addErrback(lambda reason: reason.trap(StoreFailed))
        self.store.fail()
        self.assert_busy("ledger")
        self.clock.advance(1.0)
        self.store.commit()
        self.assert_busy()
        self.ledger.learn(a_job(stdout_bytes=1), lazily=True)
        self.assert_busy("ledger")

    def test_token(self) -> None:
        """The tokens are not idle while one is being saved, or queued jobs of a revoked one could not be stopped."""
        root = Principal("local", "root", Scope.ADMIN)
        self.store.held = True
        made = self.parts.tokens.create(root, NewToken("ci", Scope.RUN))
        self.assert_busy("tokens")
        self.store.commit()
        token, _ = self.successResultOf(made)
        self.assert_busy()
        terms = QueueTerms(60.0)
        self.ledger.learn(a_job(created_by="local:root"))
        self.ledger.learn(a_job("j-2", JobState.QUEUED, None, created_by="token:ci", terms=terms, promised=True))
        self.store.commit_all()
        revoked = self.parts.tokens.revoke(root, token.id)
        self.store.commit()
        self.store.fail_all()
        self.successResultOf(revoked)
        self.assert_busy("tokens", "ledger", "queue")
        self.clock.advance(5.0)
        self.store.commit_all()
        self.parts.tokens.look()
        self.store.commit_all()
        self.assertTrue(self.parts.tokens.idle)
        self.assertEqual(self.cluster.job("j-2").state, JobState.STOPPED)

    def test_waiters(self) -> None:
        """A client that waits for or watches a job is kept until the job ends or the client leaves."""
        job = self.run_job()
        wait = self.cluster.wait(job.id, 10.0)
        self.assert_busy("feed")
        self.clock.advance(10.0)
        self.successResultOf(wait)
        self.workers.held.clear()
        self.assertTrue(self.parts.feed.idle)
        leave = self.cluster.watch(job.id, lambda _: None)
        self.assertFalse(self.parts.feed.idle)
        leave()
        self.assertTrue(self.parts.feed.idle)

    def test_end(self) -> None:
        """An end that is being saved is kept until it is."""
        self.ledger.learn(a_job())
        self.store.held = True
        self.end(a_job())
        self.assert_busy("ledger")
        self.store.commit()
        self.assert_busy()

    def test_attendance(self) -> None:
        """A job that must be attended is kept until it has ended."""
        job = self.run_job(unattended_timeout=60.0)
        self.assert_busy("attendance")
        self.end(job)
        self.assert_busy()

    def test_output(self) -> None:
        """An output is followed until its reader is closed."""
        job = self.run_job()
        reader = self.cluster.open_output(job.id, Stream.STDOUT, 0)
        self.assert_busy("outputs")
        reader.close()
        self.assert_busy()

    def test_membership(self) -> None:
        """A worker that is gone is not kept among those that have registered."""
        registered = self.parts.membership.register(Registration("127.0.0.1:1", "box", boot_id="b"), PEER)
        worker_id = self.successResultOf(registered).worker_id
        self.workers.take("probe").answer.callback(None)
        self.assert_busy()
        self.ledger.registry.remove_worker(worker_id)
        self.assert_busy("membership", "liveness", "set_back")

    def test_shared(self) -> None:
        """A shared call and a round are under way until they are over."""
        call = self.workers.probe(a_worker())
        shared, rounds = Shared(), Rounds("doing it")

        async def round_() -> None:
            await shared.join("k", lambda: call)

        rounds.begin("k", round_)
        self.assertFalse(shared.idle or rounds.idle)
        self.workers.take("probe").answer.callback(None)
        self.assertTrue(shared.idle and rounds.idle)
