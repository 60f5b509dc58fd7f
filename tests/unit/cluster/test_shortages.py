"""Starts that workers lack something for."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred

from scheduler.cluster.jobs.choice import MAX_WORKERS_TRIED
from scheduler.errors import Misdirected, NotAWorker, StoreFailed, Unavailable, Unreachable
from scheduler.messages import JobStatus
from scheduler.model import Job, JobState, Stream, WorkerState
from scheduler.terms import NO_WAITING, QueueTerms, Retry
from tests.unit.cluster.case import W1
from tests.unit.cluster.queue_case import HOUR, KEY, SHORT, QueueTestCase
from tests.unit.cluster.values import a_worker


class ShortageTests(QueueTestCase):
    """Workers that are there, and lack something to start a job."""

    queue_max = 100

    def setUp(self) -> None:
        super().setUp()
        self.end(self.first)
        for name in ("w-2", "w-3"):
            self.add(a_worker(name, slots=2))

    def lacks(self, worker_id: str) -> Job:
        """The start that is under way there comes to nothing."""
        call = self.take("start_job")
        self.assertEqual(call.worker_id, worker_id)
        call.answer.errback(SHORT)
        (job,) = call.args
        return job

    def test_goes_elsewhere(self) -> None:
        """A job by selector goes to the next worker, once that is durable; its client hears of the one that took it."""
        answer = self.submit()
        self.store.held = True
        job = self.lacks("w-1")
        self.assertEqual(self.held(), [])
        self.assertEqual((self.state(job), self.cluster.job(job.id).worker_id), (JobState.STARTING, "w-2"))
        self.assertEqual([self.ledger.registry.load(name) for name in ("w-1", "w-2")], [0, 1])
        self.store.commit()
        self.store.held = False
        self.running(self.take("start_job"))
        running = self.successResultOf(answer)
        self.assertEqual((running.id, running.worker_name), (job.id, "w-2"))
        self.begin()
        self.assertEqual(self.cluster.job(job.id).worker_id, "w-2")

    def test_all_lack_it(self) -> None:
        """A job that no worker could take waits if it may; else it is refused, and was never made."""
        answer = self.submit(terms=NO_WAITING, key=KEY)
        for name in ("w-1", "w-2", "w-3"):
            self.lacks(name)
        self.assertIs(self.failureResultOf(answer, Unavailable).value, SHORT)
        self.assertEqual(([job.id for job in self.jobs()], self.cluster.replays(KEY)), ([self.first.id], False))
        self.clock.advance(5)
        self.add(*(a_worker(name, slots=2) for name in ("w-1", "w-2", "w-3")))
        answer = self.submit()
        for name in ("w-1", "w-2", "w-3"):
            self.lacks(name)
        job = self.successResultOf(answer)
        self.assertEqual((job.state, job.reason), (JobState.QUEUED, str(SHORT)))
        self.clock.advance(9)
        self.assertEqual(self.held(), [])
        self.clock.pump([1.0, 1.0])
        self.taken()

    def test_not_to_all(self) -> None:
        """Where very many lack the same, some of them are answer enough."""
        self.add(*(a_worker(f"x-{number:02}") for number in range(20)))
        answer = self.submit()
        asked = []
        while self.workers.held:
            asked.append(self.workers.held[0].worker_id)
            self.lacks(asked[-1])
        self.assertEqual(len(set(asked)), MAX_WORKERS_TRIED)
        self.assertIs(self.successResultOf(answer).state, JobState.QUEUED)

    def test_named(self) -> None:
        """A job for that very worker goes nowhere else."""
        self.failureResultOf(self._refused(self.submit(W1, NO_WAITING)), Unavailable)
        self.assertIs(self.successResultOf(self.submit(W1)).state, JobState.QUEUED)
        self.assertEqual(self.held(), [])
        self.failureResultOf(self._refused(self.submit(W1, NO_WAITING)), Unavailable)

    def test_once_to_each(self) -> None:
        """However long they take to answer, none is asked twice."""
        answer = self.submit(terms=NO_WAITING)
        for seconds, name in (3, "w-1"), (6, "w-2"), (0, "w-3"):  # a backoff lasts 5
            self.clock.advance(seconds)
            self.lacks(name)
        self.failureResultOf(answer, Unavailable)
        self.assertEqual(self.held(), [])

    def _refused(self, answer: Deferred[Job]) -> Deferred[Job]:
        self.lacks("w-1")
        return answer

    def test_out_of_reach(self) -> None:
        """Nor does one whose start did not leave: only a worker's own word shows at once that nothing runs."""
        answer = self.submit(terms=NO_WAITING)
        self.take("start_job").answer.errback(Unreachable("w-1"))
        self.failureResultOf(answer, Unreachable)
        self.assertEqual(self.held(), [])

    def test_another_program(self) -> None:
        """A start that another program, or another process, answered goes to the next worker: nothing runs there."""
        for error in (NotAWorker("w-1", "StartJob"), Misdirected("w-1")):
            answer = self.submit(terms=NO_WAITING)
            call = self.take("start_job")
            call.answer.errback(error)
            other = self.running(self.take("start_job"))
            self.assertEqual(self.successResultOf(answer).id, other.id)
            self.assertIs(self.ledger.registry.presences.of(call.worker_id).state, WorkerState.UNREACHABLE)

    def assert_stopped(self, *answers: Deferred[Job]) -> None:
        """All are answered with a stopped job, and no other worker is asked."""
        for answer in answers:
            self.assertIs(self.successResultOf(answer).state, JobState.STOPPED)
        self.assertEqual(self.held(), [])

    def test_stopped_meanwhile(self) -> None:
        """A job that was asked to stop meanwhile is sent to no other worker."""
        answer = self.submit()
        (job,) = self.held()[0].args
        stop = self.cluster.stop(job.id)
        self.lacks("w-1")
        self.assert_stopped(answer, stop)

    def test_stopped_during_the_commit(self) -> None:
        """Nor one that is asked to stop while its way to another is committed."""
        answer = self.submit(terms=NO_WAITING)
        self.store.held = True
        job = self.lacks("w-1")
        stop = self.cluster.stop(job.id)
        self.store.commit_all()
        self.assert_stopped(answer, stop)

    def test_not_saved(self) -> None:
        """A job whose move to another worker can't be saved is not sent there."""
        answer = self.submit(terms=NO_WAITING)
        self.store.held = True
        self.lacks("w-1")
        self.store.fail()
        self.failureResultOf(answer, StoreFailed)
        self.assertEqual(self.held(), [])
        self.assertIsNone(self.cluster.worker("w-2").reason)

    def test_one_chance(self) -> None:
        """A next attempt that may not wait has its one chance with each of the workers."""
        answer = self.submit(terms=QueueTerms(retry=Retry(1)))
        job = self.running(self.take("start_job"))
        self.successResultOf(answer)
        failed = evolve(self.cluster.job(job.id), state=JobState.FAILED, finished_at=self.wall)
        self.ledger.learn(failed)
        self.settle()
        self.assertEqual((self.lacks("w-1").retry_of, self.taken().worker_id), (job.id, "w-2"))

    def test_those_who_waited_go_first(self) -> None:
        """A newcomer that one could not take does not overtake others at the next."""
        for name in ("w-2", "w-3"):
            self.add(a_worker(name, slots=0))
        answer = self.submit(terms=NO_WAITING)
        self.add(a_worker(slots=1))
        waiting = self.successResultOf(self.submit())
        self.add(a_worker("w-2", slots=1))
        self.lacks("w-1")
        self.failureResultOf(answer, Unavailable)
        self.assertEqual(self.taken().id, waiting.id)

    def test_back_to_its_place(self) -> None:
        """Nor does one from the queue, which goes back there."""
        for name in ("w-1", "w-2", "w-3"):
            self.add(a_worker(name), online=False)
        job = self.successResultOf(self.submit())
        self.change(a_worker(slots=1))
        self.assertIs(self.state(job), JobState.STARTING)
        urgent = self.successResultOf(self.submit(terms=QueueTerms(HOUR, priority=9)))
        self.add(a_worker("w-2", slots=1))
        self.assertEqual(self.lacks("w-1").id, job.id)
        self.assertEqual(self.taken().id, urgent.id)
        self.assertIs(self.state(job), JobState.QUEUED)

    def test_many(self) -> None:
        """A worker that can start nothing, and so is the least loaded, fails no job while another is well."""
        for worker in ("w-1", "w-3"):
            self.add(a_worker(worker, slots=0))
        self.add(a_worker("w-2", slots=0))
        self.add(a_worker("short", slots=8), a_worker("well", slots=2))
        answers = [self.submit() for _ in range(40)]
        refused = 0
        for _ in range(1000):
            self.clock.advance(0.1)
            for call in [self.take("start_job") for _ in list(self.held())]:
                if call.worker_id == "short":
                    refused += 1
                    call.answer.errback(SHORT)
                else:
                    self.end(self.running(call))
        states = {self.state(self.successResultOf(answer)) for answer in answers}
        self.assertEqual((states, len(self.jobs())), ({JobState.SUCCEEDED}, 41))
        self.assertGreater(refused, 0)

    def test_within_the_deadline(self) -> None:
        """A job whose refusal took long is sent to no other worker: its client must be answered."""
        answer = self.submit(terms=NO_WAITING)
        self.clock.advance(6)
        self.lacks("w-1")
        self.clock.advance(6)
        self.lacks("w-2")
        self.failureResultOf(answer, Unavailable)
        self.assertEqual(self.held(), [])

    def test_followed_meanwhile(self) -> None:
        """A follower of a job that moves to another worker gets its output there, whatever the first still says."""
        answer = self.submit()
        (job,) = self.held()[0].args
        start = self.take("start_job")
        reading = self.cluster.open_output(job.id, Stream.STDOUT, 0).read()
        self.take("stream_output")  # never answered
        start.answer.errback(SHORT)
        self.running(self.take("start_job"))
        self.successResultOf(answer)
        self.assertEqual(self.take("stream_output").worker_id, "w-2")
        reading.addErrback(lambda _: None).cancel()

    def test_asked_about_meanwhile(self) -> None:
        """A query about a job that moves to another worker has that worker's answer, and the job is not lost."""
        answer = self.submit()
        (job,) = self.held()[0].args
        query = self.cluster.query("w-1", job.id)
        self.lacks("w-1")
        self.running(self.take("start_job"))
        self.successResultOf(answer)
        asked = self.take("query_job")
        self.assertEqual(asked.worker_id, "w-2")
        asked.answer.callback(JobStatus(job.id, JobState.RUNNING))
        self.assertIs(self.successResultOf(query).state, JobState.RUNNING)

    def test_what_tells_of_it(self) -> None:
        """The worker tells why while it is in backoff, and no more when it runs a job."""
        self.failureResultOf(self._refused(self.submit(W1, NO_WAITING)), Unavailable)
        self.assertEqual(self.cluster.worker("w-1").reason, str(SHORT))
        answer = self.submit(W1, NO_WAITING)  # tried all the same
        self.running(self.take("start_job"))
        self.successResultOf(answer)
        self.assertIsNone(self.cluster.worker("w-1").reason)

    def test_what_may_not_run(self) -> None:
        """A command that may not run there neither begins nor ends a backoff."""
        for reason in (None, str(SHORT)):
            self.assertEqual(self.cluster.worker("w-1").reason, reason)
            answer = self.submit(W1, NO_WAITING)
            call = self.take("start_job")
            call.answer.callback(JobStatus(call.args[0].id, JobState.FAILED, "command not found"))
            self.assertIs(self.successResultOf(answer).state, JobState.FAILED)
            self.assertEqual(self.cluster.worker("w-1").reason, reason)
            if reason is None:
                self.failureResultOf(self._refused(self.submit(W1, NO_WAITING)), Unavailable)
