"""Submissions, looks, waits, queries and stops, as clients see them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError

from scheduler.errors import (
    Conflict,
    DeadlineExceeded,
    LeftRunning,
    NoFreeSlot,
    NotFound,
    SchedulerError,
    StartUnanswered,
    StoreFailed,
    Unavailable,
    Unreachable,
    Unsupported,
)
from scheduler.model import FEATURES, Job, JobSpec, JobState
from scheduler.terms import QueueTerms, Target
from scheduler.views import JobFilter
from tests.fleet import W1, FleetTestCase
from tests.house import ANY, ECHO, EPOCH


class SubmittingTests(FleetTestCase):
    def refused(self, error: type[SchedulerError], target: Target, spec: JobSpec = ECHO) -> SchedulerError:
        """A submission comes to that, and to no job."""
        before = self.ids()
        refusal: SchedulerError = self.refusal(error, self.house.submit, spec, target)
        self.assertEqual(self.ids(), before)
        return refusal

    def test_runs(self) -> None:
        """A submitted job runs on the worker that was named, by id or by name, and is known from then on."""
        self.fleet.add_worker("w2")
        spec = JobSpec("sh", ("-c", "x"), env={"A": "b"}, labels={"team": "blue"})
        for target in (Target(worker="w2"), Target(worker="id-w2")):
            job = self.submit(target, spec)
            self.assertEqual((job.worker_id, job.worker_name), ("id-w2", "w2"))
            self.assertEqual((job.spec, job.target, job.state), (spec, target, JobState.RUNNING))
            self.assertEqual(job.created_at, EPOCH + self.clock.seconds())
            self.assertEqual((job.started_at, job.finished_at), (job.created_at, None))
            self.assertEqual(self.scheduler.job(job.id), job)

    def test_out_of_reach_at_the_call(self) -> None:
        """A worker that can't be reached when it is called leaves no job, and takes the next when it is back."""
        self.house.vanish("id-w1")
        self.refused(Unreachable, W1)
        self.fleet.find("w1")
        self.submit()

    def test_unanswered(self) -> None:
        """A start that may have arrived is a job: unknown, until its worker reports."""
        self.house.workers.fail("start_job", DeadlineExceeded("start", 10), arrives=True)
        error = self.refusal(StartUnanswered, self.house.submit, ECHO, W1)
        job = self.scheduler.job(error.job_id)
        self.assertEqual((error.worker, self.ids()), ("w1", [job.id]))
        self.assertEqual((job.state, job.worker_name, job.target), (JobState.UNKNOWN, "w1", W1))
        self.assertEqual((job.unknown_since, job.started_at), (EPOCH, None))
        self.assertEqual(job.reason, "the start was not answered")
        self.fleet.find("w1")
        job = self.scheduler.job(job.id)
        self.assertEqual((job.state, job.unknown_since, job.reason), (JobState.RUNNING, None, None))

    def test_shortage(self) -> None:
        """A job for a worker that lacks something to start it is none; by selector it goes to another one."""
        self.fleet.add_worker("well", slots=40)
        why = "Resource temporarily unavailable (EAGAIN): no more processes"
        self.fleet.runner("w1").shortage = why
        jobs = []
        for _ in range(40):
            jobs.append(self.submit(ANY))
            for name in ("w1", "well"):
                self.fleet.find(name)
        self.assertEqual({(job.state, job.worker_name) for job in jobs}, {(JobState.RUNNING, "well")})
        self.assertEqual(self.scheduler.worker("w1").reason, why)
        self.assertEqual(self.scheduler.worker("well").reason, None)
        self.assertEqual(str(self.refusal(Unavailable, self.house.submit, ECHO, W1)), why)
        self.refusal(Unavailable, self.house.submit, ECHO, ANY)
        self.assertEqual(len(self.ids()), 40)
        for job in jobs:
            self.fleet.end(job.id)
        self.assertEqual({self.state(job) for job in jobs}, {JobState.SUCCEEDED})
        self.fleet.runner("w1").shortage = ""
        self.clock.advance(60)
        self.fleet.find("w1")
        self.assertEqual(self.submit().state, JobState.RUNNING)
        self.assertIsNone(self.scheduler.worker("w1").reason)

    def test_refusing(self) -> None:
        """A worker that says that it takes no job gets none by selector; one that names it is tried all the same."""
        self.fleet.says("w1", refusing="no room on its disk")
        self.assertEqual(self.scheduler.worker("w1").reason, "no room on its disk")
        self.refusal(NoFreeSlot, self.house.submit, ECHO, ANY)
        self.assertIs(self.submit().state, JobState.RUNNING)
        self.fleet.says("w1", refusing="")
        self.assertIsNone(self.scheduler.worker("w1").reason)
        self.assertIs(self.submit(ANY).state, JobState.RUNNING)

    def test_features(self) -> None:
        """A worker that lacks what a job needs does not get that job, by name or by selector."""
        self.fleet.add_worker("earlier", labels={"kind": "box"}, features=())
        named, box = Target(worker="earlier"), Target(selector={"kind": "box"})
        spec = JobSpec(command="sleep", linger=0.0, stop_signal="SIGINT")
        error = self.refused(Unsupported, named, spec)
        self.assertEqual((error.worker, error.capability), ("earlier", "linger, stop_signal"))
        for one in (JobSpec(command="a", stop_mode="main"), JobSpec(command="a", umask=0)):
            self.refused(Unsupported, named, one)
        self.assertIn("linger, stop_signal", str(self.refused(Conflict, box, spec)))
        self.assertEqual(self.submit(named).state, JobState.RUNNING)
        self.fleet.add_worker("later", labels={"kind": "box"}, features=(*FEATURES, "of_the_next_version"))
        for _ in range(2):
            self.assertEqual(self.submit(box, spec).worker_name, "later")
        self.assertEqual(self.submit(Target(worker="later"), spec).state, JobState.RUNNING)

    def test_store(self) -> None:
        """While the store fails no job is taken."""
        self.house.store.problem = "disk full"
        self.refused(StoreFailed, W1)


class LookingTests(FleetTestCase):
    def test_not_found(self) -> None:
        """A job that never was is not found."""
        with self.assertRaises(NotFound) as caught:
            self.scheduler.job("nothing")
        self.assertEqual((caught.exception.kind, caught.exception.name), ("job", "nothing"))

    def test_ended(self) -> None:
        """A job that ended says how, and how much it wrote."""
        job = self.submit()
        self.fleet.write(job.id, b"hello")
        self.clock.advance(2.0)
        self.fleet.end(job.id, 3)
        job = self.scheduler.job(job.id)
        self.assertEqual((job.state, job.exit_code, job.reason), (JobState.FAILED, 3, "exit status 3"))
        self.assertEqual((job.finished_at, job.stdout_bytes, job.stderr_bytes), (EPOCH + 3, 5, 0))

    def test_unknown_and_back(self) -> None:
        """Only the running jobs of a worker that can't be reached are unknown, from then until the worker is back."""
        running, ended = self.submit(), self.ended()
        self.clock.advance(5.0)
        self.fleet.lose("w1")
        job = self.scheduler.job(running.id)
        self.assertEqual((job.state, job.unknown_since), (JobState.UNKNOWN, EPOCH + 7))
        self.assertEqual(job.reason, "worker 'w1' can't be reached")
        self.assertEqual(self.scheduler.job(ended.id), ended)
        self.fleet.find("w1")
        self.assertEqual(self.scheduler.job(running.id), running)

    def test_cursor_after(self) -> None:
        """A listing goes on after any job that it gave, not only after the last of a page."""
        jobs = [self.submit() for _ in range(3)][::-1]
        for index, job in enumerate(jobs):
            following = self.scheduler.jobs(JobFilter(), 10, self.scheduler.cursor_after(job)).jobs
            self.assertEqual(following, tuple(jobs[index + 1 :]))


class WatchingTests(FleetTestCase):
    def watch(self, job: Job) -> tuple[list[tuple[JobState, str | None]], Callable[[], None]]:
        """The changes of the job from now on, and a function that ends the watch."""
        told: list[tuple[JobState, str | None]] = []
        leave = self.scheduler.watch(job.id, lambda job: told.append((job.state, job.reason)))
        return told, leave

    def test_changes(self) -> None:
        """Each change of state is told, once to each who watches, with the job as it is known from then on."""
        job = self.submit()
        (first, _), (second, _) = self.watch(job), self.watch(job)
        other, _ = self.watch(self.submit())
        self.assertEqual(first, [])
        self.fleet.lose("w1")
        self.assertEqual(first[-1], (JobState.UNKNOWN, self.scheduler.job(job.id).reason))
        self.fleet.find("w1")
        self.fleet.end(job.id, 3)
        states = [state for state, _ in first]
        self.assertEqual(
            [state for index, state in enumerate(states) if states[index - 1 : index] != [state]],
            [JobState.UNKNOWN, JobState.RUNNING, JobState.FAILED],
        )
        self.assertEqual(second, first)
        self.assertNotIn(JobState.FAILED, [state for state, _ in other])

    def test_queued(self) -> None:
        """The start of a queued job is a change."""
        self.fleet.lose("w1")
        job = self.successResultOf(self.house.submit(ECHO, W1, QueueTerms(queue_timeout=60.0)))
        told, _ = self.watch(job)
        self.fleet.find("w1")
        self.flow()
        self.assertIs(told[-1][0], JobState.RUNNING)

    def test_leave(self) -> None:
        """A watcher that leaves, even twice or while others are called, is called no more."""
        job = self.submit()
        told, leave = self.watch(job)
        gone: list[Job] = []
        leaves: list[Callable[[], None]] = []
        self.scheduler.watch(job.id, lambda _: [each() for each in leaves])
        leaves.append(self.scheduler.watch(job.id, gone.append))
        leave()
        leave()
        self.fleet.end(job.id)
        self.assertEqual((told, gone), ([], []))

    def test_not_found(self) -> None:
        """A job that never was can't be watched."""
        self.assertRaises(NotFound, self.scheduler.watch, "nothing", lambda _: None)


class QueryingTests(FleetTestCase):
    def test_ended(self) -> None:
        """A job that has ended needs its worker no more, even one that was forgotten."""
        job = self.ended(3)
        self.fleet.lose("w1")
        self.assertEqual(self.successResultOf(self.scheduler.query("w1", job.id)), job)
        self.successResultOf(self.scheduler.forget("w1"))
        for worker in ("w1", "id-w1"):
            self.assertEqual(self.successResultOf(self.scheduler.query(worker, job.id)), job)


class StoppingTests(FleetTestCase):
    def test_worker(self) -> None:
        """A stop may name the job's worker, by id or name."""
        for worker in ("w1", "id-w1"):
            self.successResultOf(self.scheduler.stop(self.submit().id, worker))

    def test_left_running(self) -> None:
        """A stop that leaves processes behind is none; each further one looks again, until they are gone."""
        job = self.submit()
        self.fleet.leave(job.id, 123, 124)
        error = self.refusal(LeftRunning, self.scheduler.stop, job.id)
        self.assertEqual((error.job_id, error.leftover), (job.id, (123, 124)))
        stopped = self.scheduler.job(job.id)
        self.assertEqual((stopped.state, stopped.leftover), (JobState.STOPPED, (123, 124)))
        self.fleet.leave(job.id, 124)
        self.assertEqual(self.refusal(LeftRunning, self.scheduler.stop, job.id, "w1").leftover, (124,))
        self.fleet.leave(job.id)
        self.assertEqual(self.successResultOf(self.scheduler.stop(job.id)), stopped)

    def test_cancel(self) -> None:
        """A client that cancels a stop does not disturb the others that wait for it."""
        self.fleet.runner().ends_on_stop = False
        job = self.submit()
        gone, stays = self.scheduler.stop(job.id), self.scheduler.stop(job.id)
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.fleet.end(job.id)
        self.assertIs(self.successResultOf(stays).state, JobState.SUCCEEDED)

    def test_orphan(self) -> None:
        """A job that was lost with its worker and runs on it when it is back is an orphan: lost, and to be stopped."""
        job = self.submit()
        self.fleet.lose("w1")
        self.successResultOf(self.scheduler.forget("w1"))
        lost = self.scheduler.job(job.id)
        self.assertEqual(self.successResultOf(self.scheduler.stop(job.id)), lost)
        self.fleet.come_back("w1")
        orphan = self.scheduler.job(job.id)
        self.assertEqual((orphan.state, orphan.reason, orphan.orphan), (JobState.LOST, "forgotten", True))
        self.assertEqual((orphan.finished_at, self.ids(JobFilter(orphan=True))), (lost.finished_at, [job.id]))
        self.assertEqual(self.scheduler.worker("w1").running_jobs, 1)
        self.assertEqual(self.successResultOf(self.scheduler.wait(job.id, 30)), orphan)
        stopped = self.successResultOf(self.scheduler.stop(job.id))
        self.assertEqual((stopped.state, stopped.orphan), (JobState.LOST, False))
        self.assertEqual((self.scheduler.worker("w1").running_jobs, self.ids(JobFilter(orphan=True))), (0, []))
