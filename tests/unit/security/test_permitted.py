"""The scheduler as a principal with a limited reach sees it."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface.verify import verifyObject

from scheduler.errors import Conflict, NoMatch, NotFound, Refused, SchedulerError, Unreachable
from scheduler.interfaces import IOutputReader, IScheduler
from scheduler.model import SPEC_KEPT_MAX_CHARACTERS, Job, JobSpec, JobState, Stream, Submission
from scheduler.request_keys import RequestKey
from scheduler.security.permitted import Permitted
from scheduler.terms import QueueTerms, Retry, Target
from scheduler.views import JobFilter
from tests.house import ANY, ECHO
from tests.unit.security.permitted_case import W1, W2, WAITING, PermittedCase

KEY = RequestKey("k", "f" * 64)

#: Arguments for the methods of ``IScheduler``, by their names, beside those that name a worker or a job.
ARGUMENTS = {
    "stream": Stream.STDOUT,
    "offset": 0,
    "size": 0,
    "seconds": 0.0,
    "signal": "SIGTERM",
    "to": "main",
    "notify": lambda _: None,
}

#: The methods that name neither a worker nor a job in an argument of their own; each has a test here.
OTHERS = {"submit", "replays", "jobs", "stop_matching", "workers", "readiness"}
#: The methods whose argument is a job, or jobs.
OF_JOBS = {"waiting_for", "with_specs", "cursor_after"}


class MethodTests(PermittedCase):
    """All methods, from the interface: a new one is checked, or fails here."""

    def called(self, who: Permitted, name: str, worker: str, job_id: str) -> Deferred[Any]:
        names = {"name": worker, "worker": worker, "job_id": job_id, **ARGUMENTS}
        return maybeDeferred(getattr(who, name), *(names[each] for each in IScheduler[name].positional))

    def test_complete(self) -> None:
        """Every method of the interface has a method of its own here."""
        verifyObject(IScheduler, self.ci)
        self.assertEqual({name for name in IScheduler.names() if name not in vars(Permitted)}, set())

    def test_foreign_jobs(self) -> None:
        """A method that names a job fails with ``NotFound`` for a foreign one, and goes no further."""
        foreign = self.started(self.admin, W2)
        own = self.started(self.admin, W1)
        for name in IScheduler.names():
            if "job_id" in IScheduler[name].positional:
                del self.calls.calls[:]
                self.failureResultOf(self.called(self.ci, name, "w1", foreign.id), NotFound)
                if name not in {"job", "last_attempt"}:
                    self.assertEqual(self.calls.asked(name), [], name)
                self.failureResultOf(self.called(self.ci, name, "w1", "nope"), NotFound)
        self.assertIs(self.state(foreign), JobState.RUNNING)
        for name in ("job", "last_attempt", "wait", "query", "signal", "read_output", "stop", "remove"):
            answer = self.called(self.ci, name, "w1", own.id)
            self.flow()
            self.successResultOf(answer)

    def test_foreign_workers(self) -> None:
        """A method that names a worker is refused for a foreign one, and goes no further."""
        own = self.started(self.admin, W1)
        for name in IScheduler.names():
            if {"name", "worker"} & set(IScheduler[name].positional):
                for worker in ("w2", "id-w2"):
                    del self.calls.calls[:]
                    self.failureResultOf(self.called(self.ci, name, worker, own.id), Refused)
                    self.assertEqual([each for each in self.calls.asked(name) if name != "worker"], [], name)
        self.assertEqual(self.house.worker("id-w2").draining, False)
        self.assertIs(self.state(own), JobState.RUNNING)

    def test_others(self) -> None:
        """All other methods are those that have tests of their own."""
        names = {"name", "worker", "job_id"}
        others = {name for name in IScheduler.names() if not names & set(IScheduler[name].positional)}
        self.assertEqual(others, OTHERS | OF_JOBS)

    def test_jobs_as_arguments(self) -> None:
        """A foreign job that is an argument is told nothing more of."""
        large = JobSpec("true", ("x" * SPEC_KEPT_MAX_CHARACTERS,))
        jobs = [self.fleet.add_job(spec=large, on=worker) for worker in ("w1", "w2")]
        own, foreign = (self.fleet.end(job.id) for job in jobs)
        self.flow()
        shown = self.successResultOf(self.ci.with_specs([foreign, own]))
        self.assertEqual([job.spec.args for job in shown], [(), large.args])
        shown = self.successResultOf(self.admin.with_specs([foreign, own]))
        self.assertEqual([job.spec.args for job in shown], [large.args] * 2)
        self.fleet.lose("w2")
        waiting = self.started(self.admin, W2, WAITING)
        self.assertEqual([who.waiting_for(waiting) is None for who in (self.ci, self.admin)], [True, False])
        self.assertEqual(self.ci.cursor_after(own), self.scheduler.cursor_after(own))


class SubmissionTests(PermittedCase):
    def refused(self, error: type[SchedulerError], target: Target, **more: Any) -> SchedulerError:
        found: SchedulerError = self.failureResultOf(self.start(self.ci, target, **more), error).value
        return found

    def test_named_worker(self) -> None:
        """A job for a named worker needs a worker within reach."""
        self.assertEqual(self.started(self.ci, W1).worker_name, "w1")
        self.refused(Refused, W2)
        self.refused(Refused, Target(worker="id-w2"), terms=WAITING)
        self.refused(NotFound, Target(worker="nope"))
        self.assertEqual(len(self.ids()), 1)

    def test_name_of_another_worker(self) -> None:
        """A job that waits for a worker does not follow its name to a worker beyond reach."""
        self.fleet.lose("w1")
        mine, other = (self.started(who, W1, WAITING) for who in (self.ci, self.admin))
        self.fleet.rename("w2", "w1")
        self.flow()
        self.assertEqual(self.house.job(other.id).worker_id, "id-w2")
        self.assertIs(self.ci.job(mine.id).state, JobState.QUEUED)
        self.fleet.find("w1")
        self.flow()
        self.assertEqual(self.ci.job(mine.id).worker_id, "id-w1")

    def test_selector(self) -> None:
        """A selector is limited to the reach, in the job itself, so that no later start leaves the reach."""
        for selector in ({}, {"zone": "a"}):
            job = self.started(self.ci, Target(selector=selector))
            self.assertEqual((job.worker_name, job.target), ("w1", Target(selector={"zone": "a"})))
        queued = self.started(self.ci, ANY, WAITING)
        self.assertEqual((queued.state, queued.target), (JobState.QUEUED, Target(selector={"zone": "a"})))
        self.assertEqual(self.listed(self.ci), self.ids())
        self.assertIsInstance(self.refused(NoMatch, Target(selector={"zone": "b"})), Conflict)
        self.refused(NoMatch, Target(selector={"zone": "b"}), terms=WAITING)
        self.fleet.lose("w1")
        self.assertEqual(self.started(self.ci, ANY, WAITING).state, JobState.QUEUED)
        self.assertEqual(self.started(self.admin, ANY, WAITING).worker_name, "w2")

    def test_created_by(self) -> None:
        """A job is created by the principal, whatever the submission says, and so are its next attempts."""
        self.assertEqual(self.started(self.admin, W1).created_by, "local:root")
        terms = QueueTerms(queue_timeout=60.0, retry=Retry(1))
        wanted = Submission(ECHO, W1, terms, created_by="local:root")
        first = self.successResultOf(self.ci.submit(wanted)).job
        self.fleet.end(first.id, 1)
        self.flow()
        last = self.ci.last_attempt(first.id)
        self.assertEqual((first.created_by, last.created_by, last.retry_of), ("token:ci", "token:ci", first.id))
        self.assertEqual(set(self.listed(self.admin, created_by="token:ci")), {last.id, first.id})

    def test_keys(self) -> None:
        """A key is the principal's own, whatever the submission says."""
        first = self.started(self.ci, W1, key=KEY)
        self.assertEqual(first.key, evolve(KEY, principal="token:ci"))
        self.assertTrue(self.ci.replays(KEY))
        self.assertFalse(self.other.replays(evolve(KEY, principal="token:ci")))
        self.assertEqual(self.started(self.ci, W1, key=KEY).id, first.id)
        self.assertNotEqual(self.started(self.other, W1, key=evolve(KEY, principal="token:ci")).id, first.id)
        self.assertEqual(len(self.ids()), 2)

    def test_key_of_a_foreign_job(self) -> None:
        """A key that leads to a foreign job, of an earlier version or a token of that name, does not show the job."""
        self.successResultOf(self.scheduler.submit(Submission(ECHO, W2, key=KEY)))
        self.assertTrue(self.ci.replays(KEY))
        self.refused(NotFound, W1, key=KEY)
        self.assertEqual(len(self.ids()), 1)
        self.started(self.admin, W1, key=evolve(KEY, key="l"))
        self.assertEqual(self.started(self.admin, W1, key=evolve(KEY, key="l")).worker_name, "w1")


class ListTests(PermittedCase):
    def setUp(self) -> None:
        super().setUp()
        self.own, self.foreign = [], []
        for _ in range(5):
            for worker, ids in (("w1", self.own), ("w2", self.foreign)):
                self.clock.advance(1.0)
                ids.insert(0, self.fleet.add_job(on=worker, spec=JobSpec("true", labels={"l": "m"})).id)

    def test_pages(self) -> None:
        """Pages have as many jobs within reach as fit, and go on to the last."""
        for limit in (1, 2, 5, 6):
            found, cursor = [], None
            while True:
                page = self.ci.jobs(JobFilter(), limit, cursor)
                found += [job.id for job in page.jobs]
                if page.next is None:
                    break
                self.assertEqual(len(page.jobs), limit)
                cursor = page.next
            self.assertEqual(found, self.own)
        after = self.ci.cursor_after(self.ci.job(self.own[1]))
        self.assertEqual([job.id for job in self.ci.jobs(JobFilter(), 100, after).jobs], self.own[2:])

    def test_filters(self) -> None:
        """A filter narrows down what is within reach; a foreign worker is refused as a filter."""
        self.assertEqual(self.listed(self.ci, labels={"l": "m"}), self.own)
        self.assertEqual(self.listed(self.ci, worker="w1"), self.own)
        self.assertEqual(self.listed(self.ci, created_by="token:ci"), [])
        self.assertRaises(Refused, self.listed, self.ci, worker="w2")
        self.assertRaises(NotFound, self.listed, self.ci, worker="nope")
        self.assertEqual(len(self.listed(self.admin)), 10)

    def test_forgotten_worker(self) -> None:
        """The jobs of a worker that was forgotten are listed for those in whose reach they could only run."""
        unlimited = [self.started(self.admin, target).id for target in (W1, W2)]
        theirs = self.started(self.ci, W1)
        self.fleet.forget("w1")
        for who in (self.ci, self.other):
            self.assertEqual(self.listed(who), [theirs.id])
            self.assertEqual(who.job(theirs.id).state, JobState.LOST)
            for job_id in unlimited:
                self.assertRaises(NotFound, who.job, job_id)

    def test_stop_matching(self) -> None:
        """Jobs that are stopped together are those within reach."""
        self.assertRaises(Refused, self.ci.stop_matching, JobFilter(worker="w2"))
        stopping = self.ci.stop_matching(JobFilter(labels={"l": "m"}))
        self.flow()
        self.assertEqual([job.id for job in self.successResultOf(stopping)], self.own)
        states = {self.house.job(each).state for each in self.foreign}
        self.assertEqual(states, {JobState.RUNNING})

    def test_workers(self) -> None:
        """Workers within reach are listed, and counted."""
        self.assertEqual([view.worker.name for view in self.ci.workers()], ["w1"])
        self.assertEqual([view.worker.name for view in self.admin.workers()], ["w1", "w2"])
        self.assertEqual([who.readiness().workers_online for who in (self.ci, self.admin)], [1, 2])
        self.assertEqual(self.ci.worker("w1"), self.scheduler.worker("w1"))
        self.fleet.lose("w1")
        self.assertEqual([who.readiness().workers_online for who in (self.ci, self.admin)], [0, 1])


class RetriedTests(PermittedCase):
    """A job of another principal whose next attempt runs beyond reach."""

    def setUp(self) -> None:
        super().setUp()
        terms = QueueTerms(queue_timeout=60.0, retry=Retry(1))
        self.first = self.started(self.admin, Target(selector={}), terms)
        self.assertEqual(self.first.worker_name, "w1")
        self.waiting = self.ci.wait_for_attempts(self.first.id, 30.0)
        self.fleet.add_worker("w1", labels={"zone": "a"}, slots=0)
        self.fleet.end(self.first.id, 1)
        self.flow()
        self.last = self.admin.last_attempt(self.first.id)
        self.assertEqual(self.last.worker_name, "w2")

    def test_stop(self) -> None:
        """A stop of the first attempt, alone or with others, does not stop a foreign one."""
        self.assertRaises(NotFound, self.ci.stop, self.first.id)
        self.assertRaises(NotFound, self.ci.last_attempt, self.first.id)
        stopping = self.ci.stop_matching(JobFilter(group_id=self.first.group_id))
        self.flow()
        self.assertEqual(self.successResultOf(stopping), ())
        self.assertIs(self.state(self.last), JobState.RUNNING)
        self.assertEqual(self.ci.job(self.first.id).retried_by, self.last.id)

    def test_wait(self) -> None:
        """A wait for the last attempt does not show a foreign one."""
        self.fleet.end(self.last.id, 0)
        self.flow()
        self.failureResultOf(self.waiting, NotFound)


class MovedTests(PermittedCase):
    """A job of another principal that goes to a worker beyond reach, because its start was never sent."""

    def setUp(self) -> None:
        super().setUp()
        self.fleet.add_worker("w2", labels={"zone": "b"}, slots=0)
        self.house.workers.hold("start_job")
        self.answer = self.start(self.admin, ANY, WAITING)
        (self.job,) = self.admin.jobs(JobFilter(), 1, None).jobs
        self.assertEqual(self.job.worker_name, "w1")
        self.heard: list[Job] = []
        self.ci.watch(self.job.id, self.heard.append)
        self.reader = self.ci.open_output(self.job.id, Stream.STDOUT, 0)
        self.waiting = self.ci.wait(self.job.id, 30.0)

    def move(self) -> None:
        self.fleet.add_worker("w1", labels={"zone": "a"}, slots=0)
        start = self.house.take("start_job")
        self.house.workers.release("start_job")
        start.answer.errback(Unreachable("w1"))
        self.fleet.add_worker("w2", labels={"zone": "b"}, slots=2)
        self.flow()
        self.assertEqual(self.admin.job(self.job.id).worker_name, "w2")

    def test_output(self) -> None:
        """Its output is not read any more, and its changes are not heard."""
        verifyObject(IOutputReader, self.reader)
        reading = self.reader.read()
        self.move()
        self.fleet.write(self.job.id, b"secret")
        self.failureResultOf(reading, NotFound)
        self.assertEqual([job.worker_name for job in self.heard if job.worker_name == "w2"], [])
        self.reader.close()
        self.fleet.end(self.job.id)
        self.flow()
        self.failureResultOf(self.waiting, NotFound)


class RetriedWithinReachTests(PermittedCase):
    """A foreign job of another principal whose next attempt runs within reach."""

    def test_last_attempt(self) -> None:
        """The attempt within reach is found by its own id alone."""
        self.fleet.add_worker("w1", labels={"zone": "a"}, slots=0)
        first = self.started(self.admin, ANY, QueueTerms(queue_timeout=60.0, retry=Retry(1)))
        self.fleet.add_worker("w1", labels={"zone": "a"}, slots=2)
        self.fleet.add_worker("w2", labels={"zone": "b"}, slots=0)
        self.fleet.end(first.id, 1)
        self.flow()
        last = self.admin.last_attempt(first.id)
        self.assertEqual((first.worker_name, last.worker_name), ("w2", "w1"))
        for method in (self.ci.job, self.ci.last_attempt, self.ci.stop):
            self.assertRaises(NotFound, method, first.id)
        self.assertEqual(self.ci.last_attempt(last.id), last)
        self.assertIs(self.state(last), JobState.RUNNING)
