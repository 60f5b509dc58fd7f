"""Acts of clients in the audit: refused, carried out, and while the store fails."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from scheduler.cluster import saving
from scheduler.errors import JobNotRunning, NoMatch, NotFound, StoreFailed, Unreachable, WorkerOnline
from scheduler.interfaces import IScheduler
from scheduler.messages import JobStatus
from scheduler.model import JobSpec, JobState, RequestKey, ScriptSummary, Stream, Submission
from scheduler.security.audit import Act, Sender, verify
from scheduler.security.audited import ARGS_MAX_CHARACTERS, Audited
from scheduler.terms import QueueTerms, Target
from scheduler.views import JobFilter
from tests.house import ANY, ECHO, House
from tests.unit.cluster.values import a_job, a_worker

NAMED = Target(worker="w-1")


class AuditedCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House()
        self.house.add(a_worker())
        self.store = self.house.store
        self.client = Audited(
            self.house.parts.service, self.house.parts.audit, Sender("token:ci", "10.0.0.9", 1000, "r-1")
        )

    def submit(self, spec: JobSpec = ECHO, target: Target = ANY, **more: Any) -> Deferred[Any]:
        submitted: Deferred[Any] = self.client.submit(Submission(spec, target, **more))
        answered = submitted.addCallback(lambda accepted: accepted.answered)
        self.house.settle()
        return answered

    def acts(self) -> list[Act]:
        """The recorded acts, in order, of a chain that must be intact."""
        entries = list(self.store.audit.values())
        self.assertTrue(verify(reversed(entries)).intact)
        return [entry.act for entry in entries]

    def assert_acts(self, *expected: tuple[str, str, str, str]) -> None:
        """Exactly these are recorded: action, target, worker, result."""
        self.assertEqual([(act.action, act.target, act.worker, act.result) for act in self.acts()], list(expected))


class RefusedTests(AuditedCase):
    """An act that is refused is recorded, with the error."""

    def test_start(self) -> None:
        self.failureResultOf(self.submit(target=Target(selector={"gpu": "1"})), NoMatch)
        self.failureResultOf(self.submit(target=Target(worker="nope")), NotFound)
        self.assert_acts(("start", "", "", "no-match"), ("start", "", "nope", "not-found"))

    def test_others(self) -> None:
        """So are acts on jobs and workers that are not there, or not so."""
        self.house.add(a_job(state=JobState.SUCCEEDED))
        self.failureResultOf(self.client.stop("nope"), NotFound)
        self.failureResultOf(self.client.remove("nope"), NotFound)
        self.failureResultOf(self.client.signal("j-1", "SIGHUP", "main"), JobNotRunning)
        self.failureResultOf(self.client.drain("nope"), NotFound)
        self.failureResultOf(self.client.forget("w-1"), WorkerOnline)
        self.failureResultOf(self.client.stop_matching(JobFilter(worker="nope")), NotFound)
        self.assert_acts(
            ("stop", "nope", "", "not-found"),
            ("remove", "nope", "", "not-found"),
            ("signal", "j-1", "w-1", "job-not-running"),
            ("drain", "nope", "", "not-found"),
            ("forget", "w-1", "w-1", "worker-online"),
            ("stop", "", "", "not-found"),
        )

    def test_not_sent(self) -> None:
        """A start that was accepted and then not sent has a second entry, with the error."""
        self.house.workers.hold()
        started = self.submit(target=NAMED)
        self.house.take("start_job").answer.errback(Unreachable("w-1", sent=False))
        self.failureResultOf(started, Unreachable)
        (accepted, failed) = self.acts()
        self.assertEqual((accepted.result, failed.result, failed.target), ("ok", "unreachable", accepted.target))
        self.assertEqual(failed.details, accepted.details)

    def test_bug(self) -> None:
        """The text of an error that nobody expects is not recorded."""
        self.patch(self.house.parts.service, "drain", lambda _: 1 / 0)
        self.failureResultOf(self.client.drain("w-1"), ZeroDivisionError)
        self.assert_acts(("drain", "w-1", "w-1", "internal"))


class StoreTests(AuditedCase):
    """While the store fails, starts are refused and stops carried out; each is recorded later."""

    def test_start(self) -> None:
        """A start that could not be saved has no entry that says that it happened."""
        self.store.problem = "disk full"
        self.house.workers.hold()
        self.failureResultOf(self.submit(), StoreFailed)
        self.assertEqual(self.house.held(), [])
        self.assert_acts()
        self.store.problem = ""
        self.house.clock.advance(5)
        self.assert_acts(("start", "", "", "store-failed"))

    def test_stop(self) -> None:
        """A stop reaches the worker, and is recorded once the store works again."""
        job = self.successResultOf(self.submit())
        before = len(self.acts())
        self.store.problem = "disk full"
        self.house.workers.hold()
        stopped = self.client.stop(job.id)
        self.house.take("stop_job").answer.callback(None)
        self.assertEqual(len(self.acts()), before)
        self.store.problem = ""
        self.house.clock.advance(5)
        self.assertEqual(
            [(act.action, act.target, act.result) for act in self.acts()[before:]], [("stop", job.id, "ok")]
        )
        self.house.end(job)
        self.house.clock.advance(20)
        self.assertTrue(stopped.called)
        stopped.addErrback(lambda _: None)

    def test_drain(self) -> None:
        """A drain that could not be saved has one entry, with the error."""
        self.store.problem = "disk full"
        self.failureResultOf(self.client.drain("w-1"), StoreFailed)
        self.store.problem = ""
        self.house.clock.advance(5)
        self.assert_acts(("drain", "w-1", "w-1", "store-failed"))

    def test_too_many(self) -> None:
        """If more acts are owed than may be, the first are kept, and the log has the rest."""
        self.patch(saving, "MAX_OWED_ACTS", 3)
        self.house.add(a_job(state=JobState.SUCCEEDED))
        self.store.problem = "disk full"
        self.house.clock.advance(0)
        for number in range(5):
            self.failureResultOf(self.client.stop(f"nope-{number}"), NotFound)
        self.store.problem = ""
        self.house.clock.advance(5)
        self.assertEqual([act.target for act in self.acts()], ["nope-0", "nope-1", "nope-2"])

    def test_lost_answer(self) -> None:
        """An act whose commit seemed to fail, and is durable, is recorded once."""
        self.house.add(a_job())
        self.house.workers.hold()
        self.store.held = True
        self.client.stop("j-1").addErrback(lambda _: None)
        records, saved = self.store.saves.pop(0)
        self.assertEqual([type(each) for each in records], [type(a_job()), Act])
        self.store.held = False
        self.store.save(records)
        saved.errback(StoreFailed("the connection broke"))
        self.house.clock.advance(5)
        self.assert_acts(("stop", "j-1", "w-1", "ok"))


class RecordedTests(AuditedCase):
    """An act is saved together with its change."""

    def saved_with(self) -> list[type]:
        (records, _), *_ = self.store.saves
        return [type(each) for each in records]

    def test_start(self) -> None:
        """A job and its start are one save; until then nobody is told of either."""
        self.store.held = True
        started = self.submit(JobSpec(command="make", args=("all",), env={"SECRET": "s3cret"}, stdin=b"s3cret"))
        (records, _) = self.store.saves[0]
        job, act = records
        self.assertIsInstance(act, Act)
        self.assertEqual((act.target, act.worker), (job.id, "w-1"))  # type: ignore[union-attr]
        self.store.commit_all()
        self.store.held = False
        self.house.settle()
        self.assertEqual(self.successResultOf(started).id, act.target)  # type: ignore[union-attr]
        (act,) = self.acts()
        self.assertEqual((act.who, act.origin, act.uid, act.request_id), ("token:ci", "10.0.0.9", 1000, "r-1"))
        self.assertEqual(json.loads(act.details), {"selector": {}, "command": "make", "args": ["all"]})
        self.assertNotIn("s3cret", repr(act))

    def test_queued(self) -> None:
        """So is a job that waits."""
        self.house.lose("w-1")
        job = self.successResultOf(self.submit(terms=QueueTerms(queue_timeout=60.0)))
        self.assert_acts(("start", job.id, "", "ok"))

    def test_another_job_meanwhile(self) -> None:
        """A record of another job that is saved while a start waits for a worker does not get its act."""
        self.house.lose("w-1")
        started = self.submit(target=NAMED)
        self.house.parts.ledger.learn(a_job("j-7"))
        self.house.clock.advance(60)
        self.assertTrue(started.called)
        started.addErrback(lambda _: None)
        self.assertEqual([act.target for act in self.acts()], [""])

    def test_script(self) -> None:
        """A script is recorded by its hash and its first line."""
        spec = JobSpec(script=b"#!/bin/sh\npassword=s3cret\n", script_summary=ScriptSummary(26, "#!/bin/sh"))
        self.submit(spec).addErrback(lambda _: None)
        (act, *_) = self.acts()
        self.assertEqual(json.loads(act.details)["script"]["first_line"], "#!/bin/sh")
        self.assertEqual(len(json.loads(act.details)["script"]["sha256"]), 64)
        self.assertNotIn("s3cret", act.details)

    def test_many_arguments(self) -> None:
        """Many arguments are recorded in part, with the number of the rest and the hash of all."""
        self.submit(JobSpec(command="x", args=("y" * 100,) * 1000)).addErrback(lambda _: None)
        (act, *_) = self.acts()
        details = json.loads(act.details)
        self.assertEqual(len(details["args"]) + details["args_omitted"], 1000)
        self.assertLess(len(act.details), ARGS_MAX_CHARACTERS + 500)
        self.assertEqual(len(details["args_sha256"]), 64)

    def test_replayed(self) -> None:
        """A request that is sent again changes nothing, and is recorded so."""
        key = RequestKey("k", "f")
        job = self.successResultOf(self.submit(key=key))
        self.assertEqual(self.successResultOf(self.submit(key=key)).id, job.id)
        self.assert_acts(("start", job.id, "w-1", "ok"), ("start", job.id, "w-1", "unchanged"))

    def test_stop(self) -> None:
        """A stop is saved with the job; that of an ended job by itself."""
        self.house.add(a_job(), a_job("j-2", JobState.SUCCEEDED))
        self.store.held = True
        self.client.stop("j-1").addErrback(lambda _: None)
        self.assertEqual(self.saved_with(), [type(a_job()), Act])
        self.store.commit_all()
        self.store.held = False
        self.successResultOf(self.client.stop("j-2"))
        self.assert_acts(("stop", "j-1", "w-1", "ok"), ("stop", "j-2", "w-1", "unchanged"))

    def test_stop_matching(self) -> None:
        """Each job that was stopped has an entry, with the filters."""
        self.house.add(a_job(), a_job("j-2"), a_job("j-3", JobState.SUCCEEDED))
        self.client.stop_matching(JobFilter(worker="w-1", states=frozenset({JobState.RUNNING}), created_after=5.0))
        self.house.settle()
        self.assertEqual(
            {(act.target, act.worker, act.result) for act in self.acts()}, {(j, "w-1", "ok") for j in ("j-1", "j-2")}
        )
        filters = {"worker": "w-1", "states": ["running"], "created_after": "1970-01-01T00:00:05.000Z"}
        self.assertEqual(json.loads(self.acts()[0].details), {"filter": filters})

    def test_stop_of_none(self) -> None:
        """A stop of jobs of which there are none is recorded as it was asked for."""
        self.client.stop_matching(JobFilter(worker="w-1"))
        self.house.settle()
        self.assert_acts(("stop", "", "", "unchanged"))

    def test_signal(self) -> None:
        self.house.add(a_job())
        self.house.workers.hold()
        sent = self.client.signal("j-1", "SIGHUP", "tree")
        self.house.take("signal_job").answer.callback(None)
        self.successResultOf(sent)
        self.assert_acts(("signal", "j-1", "w-1", "ok"))
        self.assertEqual(json.loads(self.acts()[0].details), {"signal": "SIGHUP", "to": "tree"})

    def test_worker(self) -> None:
        """Draining, resuming and forgetting a worker are saved with it, each by id or name."""
        self.house.add(a_worker("w-2"), online=False)
        self.store.held = True
        for carry_out in (self.client.drain, self.client.resume):
            act = carry_out("w-1")
            self.assertEqual(self.saved_with(), [type(a_worker()), Act])
            self.store.commit_all()
            self.successResultOf(act)
        self.store.held = False
        self.successResultOf(self.client.resume("w-1"))
        self.successResultOf(self.client.forget("w-2"))
        self.assert_acts(
            ("drain", "w-1", "w-1", "ok"),
            ("resume", "w-1", "w-1", "ok"),
            ("resume", "w-1", "w-1", "unchanged"),
            ("forget", "w-2", "w-2", "ok"),
        )

    def test_remove(self) -> None:
        self.house.add(a_job(state=JobState.SUCCEEDED), a_job("j-2", JobState.SUCCEEDED, worker_id=None))
        self.client.remove("j-1").addErrback(lambda _: None)
        self.successResultOf(self.client.remove("j-2"))
        self.assert_acts(("remove", "j-1", "w-1", "ok"), ("remove", "j-2", "", "ok"))

    def test_hang_up(self) -> None:
        """A client that goes away undoes nothing, and leaves no act unrecorded."""
        self.house.add(a_job())
        self.house.workers.hold()
        sent = self.client.signal("j-1", "SIGHUP", "main")
        sent.addErrback(lambda _: None)
        call = self.house.take("signal_job")
        sent.cancel()
        call.answer.callback(None)
        self.assert_acts(("signal", "j-1", "w-1", "ok"))

    def test_hang_up_of_a_start(self) -> None:
        """A start goes on without its client, and its failure is recorded, too."""
        self.house.workers.hold()
        started = self.submit(target=NAMED)
        started.addErrback(lambda _: None)
        started.cancel()
        self.house.take("start_job").answer.errback(Unreachable("w-1", sent=False))
        self.assertEqual([act.result for act in self.acts()], ["ok", "unreachable"])

    def test_foreign_read(self) -> None:
        """A read of the output of another principal's job is recorded once; reads of one's own job are not."""
        self.house.add(a_job(created_by="token:other"), a_job("j-2", created_by="token:ci"), a_job("j-3"))
        for job_id in ("j-1", "j-1", "j-2", "j-3"):
            self.client.read_output(job_id, Stream.STDOUT, 0, 100).addErrback(lambda _: None)
            self.client.open_output(job_id, Stream.STDERR, 0).close()
        self.failureResultOf(self.client.read_output("nope", Stream.STDOUT, 0, 100), NotFound)
        self.assert_acts(("read", "j-1", "w-1", "ok"))
        self.assertEqual(json.loads(self.acts()[0].details), {"created_by": "token:other"})

    def test_everything_else(self) -> None:
        """All other requests are passed on, and are not recorded."""
        self.assertTrue(verifyObject(IScheduler, self.client))
        self.house.add(a_job())
        self.assertEqual(self.client.job("j-1"), a_job())
        self.assertEqual(self.client.readiness(), self.house.parts.service.readiness())
        self.assert_acts()

    def test_scheduler_itself(self) -> None:
        """A change that no client asked for is no act."""
        self.house.add(evolve(a_job(state=JobState.QUEUED), worker_id=None))
        self.successResultOf(self.house.parts.service.drain("w-1"))
        self.house.parts.ledger.learn(a_job("j-2"))
        self.assert_acts()

    def test_status(self) -> None:
        """A start that its worker refuses has made a job, which failed: a second act says that it was not started."""
        self.house.workers.hold()
        started = self.submit()
        call = self.house.take("start_job")
        call.answer.callback(JobStatus(call.args[0].id, JobState.FAILED, reason="not allowed"))
        job = self.successResultOf(started)
        self.assert_acts(("start", job.id, "w-1", "ok"), ("start", job.id, "w-1", "not-started"))
