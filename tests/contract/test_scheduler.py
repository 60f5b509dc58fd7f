"""What every scheduler does with jobs, for the HTTP API: the cluster, and the one in memory that stands in for it.

There is a class of behaviours for each thing that can be asked; at the end all of
them are run for every provider.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError
from zope.interface.verify import verifyObject

from scheduler.errors import (
    Busy,
    Conflict,
    DeadlineExceeded,
    Invalid,
    LeftRunning,
    NoFreeSlot,
    NotFound,
    SchedulerError,
    ShuttingDown,
    StartUnanswered,
    StoreFailed,
    Unavailable,
    Unreachable,
    Unsupported,
)
from scheduler.interfaces import IScheduler, JobFilter
from scheduler.model import FEATURES, Job, JobSpec, JobState, QueueTerms, Target
from tests.contract.scheduler_worlds import W1, Contract, for_every_provider
from tests.house import ANY, ECHO, EPOCH


class Submitting(Contract):
    def refused(self, error: type[SchedulerError], target: Target, spec: JobSpec = ECHO) -> SchedulerError:
        """A submission comes to that, and to no job."""
        before = self.ids()
        refusal: SchedulerError = self.refusal(error, self.scheduler.submit, spec, target)
        self.assertEqual(self.ids(), before)
        return refusal

    def test_interface(self) -> None:
        """It provides what it says, with the arguments that are asked for."""
        self.assertTrue(verifyObject(IScheduler, self.scheduler))

    def test_runs(self) -> None:
        """A submitted job runs on the worker that was named, by id or by name, and is known from then on."""
        self.world.add_worker("w2")
        spec = JobSpec("sh", ("-c", "x"), env={"A": "b"}, labels={"team": "blue"})
        for target in (Target(worker="w2"), Target(worker="id-w2")):
            job = self.submit(target, spec)
            self.assertEqual((job.worker_id, job.worker_name), ("id-w2", "w2"))
            self.assertEqual((job.spec, job.target, job.state), (spec, target, JobState.RUNNING))
            self.assertEqual(job.created_at, EPOCH + self.world.clock.seconds())
            self.assertEqual((job.started_at, job.finished_at), (job.created_at, None))
            self.assertEqual(self.scheduler.job(job.id), job)

    def test_refused_by_the_worker(self) -> None:
        """What the worker will not run is a job that failed, with the reason."""
        self.world.refuse("echo", "command 'echo' is not allowed")
        job = self.submit()
        self.assertEqual((job.state, job.reason), (JobState.FAILED, "command 'echo' is not allowed"))
        self.assertEqual((job.started_at, job.finished_at), (None, EPOCH + 1))
        self.assertEqual(self.scheduler.job(job.id), job)

    def test_selector(self) -> None:
        """Of the workers that have all labels the least loaded takes the job, of equals the first by name."""
        self.world.add_worker("b", labels={"gpu": "yes", "zone": "a"})
        self.world.add_worker("a", labels={"gpu": "yes", "zone": "a"})
        self.world.add_worker("0", labels={"gpu": "yes", "zone": "b"})
        target = Target(selector={"gpu": "yes", "zone": "a"})
        self.assertEqual([self.submit(target).worker_name for _ in range(4)], ["a", "b", "a", "b"])
        self.assertEqual(self.submit(Target(selector={"name": "w1"})).worker_name, "w1")
        self.assertEqual(self.submit(ANY).worker_name, "0")

    def test_not_found(self) -> None:
        """A named worker must be known."""
        error = self.refused(NotFound, Target(worker="nobody"))
        self.assertEqual((error.kind, error.name), ("worker", "nobody"))

    def test_none_matches(self) -> None:
        """A selector that no worker has the labels for is a conflict."""
        self.refused(Conflict, Target(selector={"gpu": "yes"}))
        self.refused(Conflict, Target(selector={"name": "w2"}))

    def test_draining(self) -> None:
        """A worker that is drained takes nothing, named or not, until it is resumed."""
        self.successResultOf(self.scheduler.drain("w1"))
        self.refused(Conflict, W1)
        self.refused(Conflict, ANY)
        self.world.add_worker("w2")
        self.assertEqual(self.submit(ANY).worker_name, "w2")
        self.successResultOf(self.scheduler.resume("w1"))
        self.assertEqual(self.submit(ANY).worker_name, "w1")

    def test_no_free_slot(self) -> None:
        """Slots bind only the choice among workers: a job for a named one starts at once."""
        self.world.add_worker("w2", slots=1, labels={"gpu": "yes"})
        gpu = Target(selector={"gpu": "yes"})
        first = self.submit(gpu)
        self.refused(NoFreeSlot, gpu)
        second = self.submit(Target(worker="w2"))
        self.world.end(first)
        self.refused(NoFreeSlot, gpu)
        self.world.end(second)
        self.assertEqual(self.submit(gpu).worker_name, "w2")

    def test_unreachable(self) -> None:
        """A worker that is known to be out of reach takes nothing; as one of those that match it has no free slot."""
        self.world.lose("w1")
        self.assertEqual(self.refused(Unreachable, W1).name, "w1")
        self.refused(NoFreeSlot, ANY)
        self.world.add_worker("w2")
        self.assertEqual(self.submit(ANY).worker_name, "w2")

    def test_out_of_reach_at_the_call(self) -> None:
        """A worker that can't be reached when it is called leaves no job, and takes the next when it is back."""
        self.world.vanish("w1")
        self.refused(Unreachable, W1)
        self.world.find("w1")
        self.submit()

    def test_nothing_was_sent(self) -> None:
        """A start that never left its process leaves no job and takes no slot."""
        for error in (Busy("calls", 4), Unsupported("w1", "StartJob"), ShuttingDown(), Unreachable("w1")):
            self.world.start_fails(error)
            self.assertIs(self.refused(type(error), W1), error)
        self.assertEqual(self.scheduler.worker("w1").running_jobs, 0)

    def test_unanswered(self) -> None:
        """A start that may have arrived is a job: unknown, until its worker reports."""
        self.world.start_goes_unanswered()
        error = self.refusal(StartUnanswered, self.scheduler.submit, ECHO, W1)
        job = self.scheduler.job(error.job_id)
        self.assertEqual((error.worker, self.ids()), ("w1", [job.id]))
        self.assertEqual((job.state, job.worker_name, job.target), (JobState.UNKNOWN, "w1", W1))
        self.assertEqual((job.unknown_since, job.started_at), (EPOCH, None))
        self.assertEqual(job.reason, "the start was not answered")
        self.world.find("w1")
        job = self.scheduler.job(job.id)
        self.assertEqual((job.state, job.unknown_since, job.reason), (JobState.RUNNING, None, None))

    def test_unsupported(self) -> None:
        """A core worker takes a command and a path; more it is not offered."""
        self.world.add_worker("old", labels={"arch": "vax"}, core=True)
        old, vax, more = Target(worker="old"), Target(selector={"arch": "vax"}), JobSpec(command="sh", args=("x",))
        self.assertEqual(self.refused(Unsupported, old, more).worker, "old")
        self.refused(Conflict, vax, more)
        for target in (old, vax):
            spec = JobSpec(command="sh", path="x", labels={"team": "blue"})
            self.assertEqual(self.submit(target, spec).state, JobState.RUNNING)

    def test_shortage(self) -> None:
        """A job for a worker that lacks something to start it is none; by selector it goes to another one."""
        self.world.add_worker("well", slots=40)
        why = "Resource temporarily unavailable (EAGAIN): no more processes"
        self.world.lacks("w1", why)
        jobs = []
        for _ in range(40):
            jobs.append(self.submit(ANY))
            for name in ("w1", "well"):
                self.world.find(name)
        self.assertEqual({(job.state, job.worker_name) for job in jobs}, {(JobState.RUNNING, "well")})
        self.assertEqual(self.scheduler.worker("w1").reason, why)
        self.assertEqual(self.scheduler.worker("well").reason, None)
        self.assertEqual(str(self.refusal(Unavailable, self.scheduler.submit, ECHO, W1)), why)
        self.refusal(Unavailable, self.scheduler.submit, ECHO, ANY)
        self.assertEqual(len(self.ids()), 40)
        for job in jobs:
            self.world.end(job)
        self.assertEqual({self.state(job) for job in jobs}, {JobState.SUCCEEDED})
        self.world.lacks("w1", "")
        self.world.clock.advance(60)
        self.world.find("w1")
        self.assertEqual(self.submit().state, JobState.RUNNING)
        self.assertIsNone(self.scheduler.worker("w1").reason)

    def test_what_may_not_run_is_no_shortage(self) -> None:
        """A command that a worker may not run, or does not have, takes the worker from nobody."""
        self.world.refuse("typo", "command 'typo' not found")
        self.assertIs(self.submit(spec=JobSpec(command="typo")).state, JobState.FAILED)
        self.assertIsNone(self.scheduler.worker("w1").reason)
        self.assertIs(self.submit(ANY).state, JobState.RUNNING)

    def test_refusing(self) -> None:
        """A worker that says that it takes no job gets none by selector; one that names it is tried all the same."""
        self.world.says("w1", "no room on its disk")
        self.assertEqual(self.scheduler.worker("w1").reason, "no room on its disk")
        self.refusal(NoFreeSlot, self.scheduler.submit, ECHO, ANY)
        self.assertIs(self.submit().state, JobState.RUNNING)
        self.world.says("w1", "")
        self.assertIsNone(self.scheduler.worker("w1").reason)
        self.assertIs(self.submit(ANY).state, JobState.RUNNING)

    def test_features(self) -> None:
        """A worker that lacks what a job needs does not get that job, by name or by selector."""
        self.world.add_worker("earlier", labels={"kind": "box"}, features=())
        named, box = Target(worker="earlier"), Target(selector={"kind": "box"})
        spec = JobSpec(command="sleep", linger=0.0, stop_signal="SIGINT")
        error = self.refused(Unsupported, named, spec)
        self.assertEqual((error.worker, error.capability), ("earlier", "linger, stop_signal"))
        for one in (JobSpec(command="a", stop_mode="main"), JobSpec(command="a", umask=0)):
            self.refused(Unsupported, named, one)
        self.assertIn("linger, stop_signal", str(self.refused(Conflict, box, spec)))
        self.assertEqual(self.submit(named).state, JobState.RUNNING)
        self.world.add_worker("later", labels={"kind": "box"}, features=(*FEATURES, "of_the_next_version"))
        for _ in range(2):
            self.assertEqual(self.submit(box, spec).worker_name, "later")
        self.assertEqual(self.submit(Target(worker="later"), spec).state, JobState.RUNNING)

    def test_store(self) -> None:
        """While the store fails no job is taken."""
        self.world.store_fails("disk full")
        self.refused(StoreFailed, W1)


class Looking(Contract):
    def test_not_found(self) -> None:
        """A job that never was is not found."""
        with self.assertRaises(NotFound) as caught:
            self.scheduler.job("nothing")
        self.assertEqual((caught.exception.kind, caught.exception.name), ("job", "nothing"))

    def test_ended(self) -> None:
        """A job that ended says how, and how much it wrote."""
        job = self.submit()
        self.world.write(job, b"hello")
        self.world.clock.advance(2.0)
        self.world.end(job, 3)
        job = self.scheduler.job(job.id)
        self.assertEqual((job.state, job.exit_code, job.reason), (JobState.FAILED, 3, "exit status 3"))
        self.assertEqual((job.finished_at, job.stdout_bytes, job.stderr_bytes), (EPOCH + 3, 5, 0))

    def test_unknown_and_back(self) -> None:
        """What runs on a worker that can't be reached is unknown, since then, and nothing else is; until it is back."""
        running, ended = self.submit(), self.ended()
        self.world.clock.advance(5.0)
        self.world.lose("w1")
        job = self.scheduler.job(running.id)
        self.assertEqual((job.state, job.unknown_since), (JobState.UNKNOWN, EPOCH + 7))
        self.assertEqual(job.reason, "worker 'w1' can't be reached")
        self.assertEqual(self.scheduler.job(ended.id), ended)
        self.world.find("w1")
        self.assertEqual(self.scheduler.job(running.id), running)

    def test_order_and_limit(self) -> None:
        """Newest first; a page says where the next one starts, and the last that there is none."""
        jobs = [self.submit() for _ in range(5)][::-1]
        self.assertEqual(self.scheduler.jobs(JobFilter(), 5, None).jobs, tuple(jobs))
        self.assertIsNone(self.scheduler.jobs(JobFilter(), 5, None).next)
        pages, cursor = [], None
        while not pages or cursor is not None:
            page = self.scheduler.jobs(JobFilter(), 2, cursor)
            pages.append(page.jobs)
            cursor = page.next
        self.assertEqual(pages, [tuple(jobs[:2]), tuple(jobs[2:4]), tuple(jobs[4:])])

    def test_cursor_stays(self) -> None:
        """The next page goes on where the last one ended, though jobs came and jobs ended meanwhile."""
        jobs = [self.submit() for _ in range(4)][::-1]
        running = JobFilter(states=frozenset({JobState.RUNNING}))
        page = self.scheduler.jobs(running, 2, None)
        self.submit()
        self.world.end(jobs[1])
        self.assertEqual(self.scheduler.jobs(running, 2, page.next).jobs, tuple(jobs[2:]))

    def test_cursor_after(self) -> None:
        """A listing goes on after any job that it gave, not only after the last of a page."""
        jobs = [self.submit() for _ in range(3)][::-1]
        for index, job in enumerate(jobs):
            following = self.scheduler.jobs(JobFilter(), 10, self.scheduler.cursor_after(job)).jobs
            self.assertEqual(following, tuple(jobs[index + 1 :]))

    def test_specs(self) -> None:
        """A job that has ended has what memory does not hold of its spec when that is asked for."""
        spec = JobSpec(command="echo", args=("a" * 10_000,), env={"E": "e"})
        job = self.submit(spec=spec)
        self.world.end(job)
        found = self.scheduler.job(job.id)
        (whole,) = self.successResultOf(self.scheduler.with_specs([found]))
        self.assertEqual((whole.spec, whole.spec.stored, whole.state), (spec, 0, found.state))

    def test_cursor_invalid(self) -> None:
        """A cursor that was never given out is none."""
        self.submit()
        for cursor in ("", "x", "0", "²", "\ud800", "MTA=", "../../etc"):
            with self.assertRaises(Invalid) as caught:
                self.scheduler.jobs(JobFilter(), 10, cursor)
            self.assertEqual(caught.exception.field, "cursor")

    def test_filters(self) -> None:
        """Every field that is set must match; after is from then on, before is up to but not at."""
        self.world.add_worker("w2")
        first = self.submit(W1, JobSpec(command="a", labels={"team": "blue", "run": "7"})).id
        second = self.submit(Target(worker="w2"), JobSpec(command="b", labels={"team": "blue"}))
        third = self.submit(W1, JobSpec(command="c", labels={"team": "red"})).id
        self.world.clock.advance(1.0)
        self.world.end(second)
        for which, expected in (
            (JobFilter(), [third, second.id, first]),
            (JobFilter(worker="w1"), [third, first]),
            (JobFilter(worker="id-w2"), [second.id]),
            (JobFilter(states=frozenset({JobState.RUNNING})), [third, first]),
            (JobFilter(states=frozenset({JobState.RUNNING, JobState.SUCCEEDED})), [third, second.id, first]),
            (JobFilter(labels={"team": "blue"}), [second.id, first]),
            (JobFilter(labels={"team": "blue", "run": "7"}), [first]),
            (JobFilter(labels={"team": "blue", "run": "8"}), []),
            (JobFilter(created_by="nobody"), []),
            (JobFilter(created_after=EPOCH + 2), [third, second.id]),
            (JobFilter(created_before=EPOCH + 2), [first]),
            (JobFilter(created_after=EPOCH + 2, created_before=EPOCH + 3), [second.id]),
            (JobFilter(finished_after=EPOCH + 4), [second.id]),
            (JobFilter(finished_after=EPOCH + 4.5), []),
            (JobFilter(finished_before=EPOCH + 4), []),
            (JobFilter(finished_before=EPOCH + 5), [second.id]),
            (JobFilter(group_id=first), []),
            (JobFilter(id_prefix=first), [first]),
            (JobFilter(id_prefix=first, worker="w2"), []),
            (JobFilter(id_prefix=first + "x"), []),
            (JobFilter(worker="w1", labels={"team": "blue"}, states=frozenset({JobState.RUNNING})), [first]),
        ):
            self.assertEqual(self.ids(which), expected, which)


class Waiting(Contract):
    def test_end(self) -> None:
        """All who wait for the end of a job get it, and one who comes after it gets it at once."""
        job = self.submit()
        waits = [self.scheduler.wait(job.id, 30) for _ in range(2)]
        self.world.clock.advance(29)
        for wait in waits:
            self.assertNoResult(wait)
        self.world.end(job, 3)
        for wait in (*waits, self.scheduler.wait(job.id, 30)):
            self.assertEqual(self.successResultOf(wait).exit_code, 3)
        self.assertEqual(self.world.timers(), 0)

    def test_as_it_is(self) -> None:
        """After the seconds a job that has not ended is answered as it is by then."""
        job = self.submit()
        short, long = self.scheduler.wait(job.id, 2), self.scheduler.wait(job.id, 4)
        self.world.lose("w1")
        self.world.clock.advance(2)
        self.assertIs(self.successResultOf(short).state, JobState.UNKNOWN)
        self.assertNoResult(long)
        self.world.find("w1")
        self.world.clock.advance(2)
        self.assertEqual(self.successResultOf(long), job)

    def test_not_found(self) -> None:
        """Nobody waits for a job that never was."""
        with self.assertRaises(NotFound):
            self.scheduler.wait("nothing", 30)

    def test_cancel(self) -> None:
        """One who goes away leaves the others to wait, and nothing behind."""
        job = self.submit()
        stays = self.scheduler.wait(job.id, 30)
        timers = self.world.clock.getDelayedCalls()
        gone = self.scheduler.wait(job.id, 30)
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.assertEqual(self.world.clock.getDelayedCalls(), timers)
        self.world.end(job)
        self.assertIs(self.successResultOf(stays).state, JobState.SUCCEEDED)


class Watching(Contract):
    def watch(self, job: Job) -> tuple[list[tuple[JobState, str | None]], Callable[[], None]]:
        """What is told of the job from now on, and how to end that."""
        told: list[tuple[JobState, str | None]] = []
        leave = self.scheduler.watch(job.id, lambda job: told.append((job.state, job.reason)))
        return told, leave

    def test_changes(self) -> None:
        """Each change of state is told, once to each who watches, with the job as it is known from then on."""
        job = self.submit()
        (first, _), (second, _) = self.watch(job), self.watch(job)
        other, _ = self.watch(self.submit())
        self.assertEqual(first, [])
        self.world.lose("w1")
        self.world.settle()
        self.assertEqual(first[-1], (JobState.UNKNOWN, self.scheduler.job(job.id).reason))
        self.world.find("w1")
        self.world.end(job, 3)
        self.world.settle()
        states = [state for state, _ in first]
        self.assertEqual(
            [state for index, state in enumerate(states) if states[index - 1 : index] != [state]],
            [JobState.UNKNOWN, JobState.RUNNING, JobState.FAILED],
        )
        self.assertEqual(second, first)
        self.assertNotIn(JobState.FAILED, [state for state, _ in other])

    def test_queued(self) -> None:
        """One that waits is told of when it is started."""
        self.world.lose("w1")
        job = self.successResultOf(self.scheduler.submit(ECHO, W1, QueueTerms(queue_timeout=60.0)))
        told, _ = self.watch(job)
        self.world.find("w1")
        self.world.flow()
        self.assertIs(told[-1][0], JobState.RUNNING)

    def test_leave(self) -> None:
        """One who leaves, also while others are being told, and twice, is told no more."""
        job = self.submit()
        told, leave = self.watch(job)
        gone: list[Job] = []
        leaves: list[Callable[[], None]] = []
        self.scheduler.watch(job.id, lambda _: [each() for each in leaves])
        leaves.append(self.scheduler.watch(job.id, gone.append))
        leave()
        leave()
        self.world.end(job)
        self.world.settle()
        self.assertEqual((told, gone), ([], []))

    def test_not_found(self) -> None:
        """Nobody watches a job that never was."""
        with self.assertRaises(NotFound):
            self.scheduler.watch("nothing", lambda _: None)


class Querying(Contract):
    def test_running(self) -> None:
        """A query, by the worker's id or name, is answered with the job as it is."""
        job = self.submit()
        for worker in ("w1", "id-w1"):
            self.assertEqual(self.successResultOf(self.scheduler.query(worker, job.id)).state, JobState.RUNNING)

    def test_unreported(self) -> None:
        """The worker is asked: an end that nobody told is found out."""
        job = self.submit()
        self.world.end(job, 3, report=False)
        answer = self.successResultOf(self.scheduler.query("w1", job.id))
        self.assertEqual((answer.state, answer.exit_code), (JobState.FAILED, 3))
        self.assertEqual(self.scheduler.job(job.id), answer)

    def test_not_found(self) -> None:
        """An unknown worker, an unknown job, and a job of another worker are not found; the worker comes first."""
        self.world.add_worker("w2")
        job = self.submit()
        for worker, job_id, kind in (
            ("nobody", job.id, "worker"),
            ("nobody", "nothing", "worker"),
            ("w1", "nothing", "job"),
            ("w2", job.id, "job"),
        ):
            error = self.refusal(NotFound, self.scheduler.query, worker, job_id)
            self.assertEqual((error.kind, error.name), (kind, worker if kind == "worker" else job_id))

    def test_unreachable(self) -> None:
        """Of a job that has not ended there is no answer without its worker."""
        job = self.submit()
        self.world.vanish("w1")
        for _ in range(2):
            self.refusal(Unreachable, self.scheduler.query, "w1", job.id)
        self.assertIs(self.state(job), JobState.UNKNOWN)

    def test_ended(self) -> None:
        """A job that has ended needs its worker no more, even one that was forgotten."""
        job = self.ended(3)
        self.world.lose("w1")
        self.assertEqual(self.successResultOf(self.scheduler.query("w1", job.id)), job)
        self.successResultOf(self.scheduler.forget("w1"))
        for worker in ("w1", "id-w1"):
            self.assertEqual(self.successResultOf(self.scheduler.query(worker, job.id)), job)


class Stopping(Contract):
    def test_stop(self) -> None:
        """A stop is answered with the end, and says when it was asked for."""
        job = self.submit()
        self.world.clock.advance(4.0)
        stopped = self.successResultOf(self.scheduler.stop(job.id))
        self.assertEqual((stopped.state, stopped.signal), (JobState.STOPPED, "SIGTERM"))
        self.assertEqual(stopped.reason, "signal: terminated")
        self.assertEqual((stopped.stop_requested_at, stopped.finished_at), (EPOCH + 5, EPOCH + 5))
        self.assertEqual(self.scheduler.job(job.id), stopped)
        self.assertEqual(self.world.timers(), 0)

    def test_worker(self) -> None:
        """A stop may name the job's worker, by id or name."""
        for worker in ("w1", "id-w1"):
            self.successResultOf(self.scheduler.stop(self.submit().id, worker))

    def test_not_found(self) -> None:
        """An unknown job or worker, or a job of another worker, is not found, and runs on."""
        self.world.add_worker("w2")
        job = self.submit()
        for args, kind in (
            (("nothing",), "job"),
            (("nothing", "w1"), "job"),
            ((job.id, "nobody"), "worker"),
            ((job.id, "w2"), "job"),
        ):
            self.assertEqual(self.refusal(NotFound, self.scheduler.stop, *args).kind, kind)
        self.assertEqual(self.scheduler.job(job.id), job)

    def test_ended(self) -> None:
        """A job that has ended is answered as it is, whatever became of its worker."""
        job = self.ended(3)
        self.assertEqual(self.successResultOf(self.scheduler.stop(job.id)), job)
        self.world.lose("w1")
        self.assertEqual(self.successResultOf(self.scheduler.stop(job.id, "w1")), job)

    def test_left_running(self) -> None:
        """A stop that leaves processes behind is none; each further one looks again, until they are gone."""
        job = self.submit()
        self.world.leave(job, 123, 124)
        error = self.refusal(LeftRunning, self.scheduler.stop, job.id)
        self.assertEqual((error.job_id, error.leftover), (job.id, (123, 124)))
        stopped = self.scheduler.job(job.id)
        self.assertEqual((stopped.state, stopped.leftover), (JobState.STOPPED, (123, 124)))
        self.world.leave(job, 124)
        self.assertEqual(self.refusal(LeftRunning, self.scheduler.stop, job.id, "w1").leftover, (124,))
        self.world.leave(job)
        self.assertEqual(self.successResultOf(self.scheduler.stop(job.id)), stopped)

    def test_ended_and_left_running(self) -> None:
        """So it is with a job that ended by itself; where its worker can't be asked, they count as left."""
        job = self.submit()
        self.world.leave(job, 123)
        self.world.end(job)
        ended = self.scheduler.job(job.id)
        self.assertEqual((ended.state, ended.leftover), (JobState.SUCCEEDED, (123,)))
        self.assertIn("could not be ended", ended.reason or "")
        self.world.lose("w1")
        self.assertEqual(self.refusal(LeftRunning, self.scheduler.stop, job.id).leftover, (123,))
        self.world.find("w1")
        self.world.leave(job)
        self.assertEqual(self.successResultOf(self.scheduler.stop(job.id)), ended)

    def test_waits_for_the_end(self) -> None:
        """While the job lives its stop has no answer; how it ends is the answer."""
        self.world.ignore_stops()
        job = self.submit(spec=JobSpec(command="x", stop_grace=20))
        stop = self.scheduler.stop(job.id)
        self.world.clock.advance(20)
        self.assertNoResult(stop)
        self.assertEqual(self.scheduler.job(job.id).stop_requested_at, EPOCH + 1)
        self.world.end(job)
        self.assertIs(self.successResultOf(stop).state, JobState.SUCCEEDED)
        self.assertEqual(self.world.timers(), 0)

    def test_deadline(self) -> None:
        """A job that has not ended some time after its grace is not called stopped, and the error names it."""
        self.world.ignore_stops()
        job = self.submit(spec=JobSpec(command="x", stop_grace=20))
        stop = self.scheduler.stop(job.id)
        self.world.clock.advance(60)
        self.assertEqual(self.failureResultOf(stop, DeadlineExceeded).value.job_id, job.id)
        self.assertIs(self.state(job), JobState.RUNNING)

    def test_cancel(self) -> None:
        """One who asked for a stop and goes away leaves the others to wait for it."""
        self.world.ignore_stops()
        job = self.submit()
        gone, stays = self.scheduler.stop(job.id), self.scheduler.stop(job.id)
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.world.end(job)
        self.assertIs(self.successResultOf(stays).state, JobState.SUCCEEDED)

    def test_matching(self) -> None:
        """All that match and have not ended are stopped, and no others; one that can't be is answered as it is."""
        self.world.add_worker("w2")
        red = JobSpec(command="a", labels={"team": "red"})
        other, first, ended = self.submit(), self.submit(spec=red), self.submit(spec=red)
        lost = self.submit(Target(worker="w2"), red)
        last = self.submit(spec=red)
        self.world.end(ended)
        self.world.lose("w2")
        jobs = self.successResultOf(self.scheduler.stop_matching(JobFilter(labels={"team": "red"})))
        self.assertEqual(
            {job.id: job.state for job in jobs},
            {last.id: JobState.STOPPED, lost.id: JobState.UNKNOWN, first.id: JobState.STOPPED},
        )
        self.assertEqual([self.scheduler.job(job.id) for job in jobs], list(jobs))
        self.assertEqual((self.state(other), self.state(ended)), (JobState.RUNNING, JobState.SUCCEEDED))

    def test_matching_none(self) -> None:
        """Where none matches there is nothing to wait for."""
        self.submit()
        self.assertEqual(self.successResultOf(self.scheduler.stop_matching(JobFilter(created_by="nobody"))), ())

    def test_matching_waits(self) -> None:
        """It is answered when the last one has ended, or its time is over."""
        self.world.ignore_stops()
        jobs = [self.submit(spec=JobSpec(command="x", stop_grace=20)) for _ in range(2)]
        stop = self.scheduler.stop_matching(JobFilter())
        self.world.end(jobs[0])
        self.assertNoResult(stop)
        self.world.clock.advance(60)
        states = {job.id: job.state for job in self.successResultOf(stop)}
        self.assertEqual(states, {jobs[0].id: JobState.SUCCEEDED, jobs[1].id: JobState.RUNNING})

    def test_later(self) -> None:
        """A stop for a worker that can't be reached is recorded, and carried out when the worker is back."""
        job = self.submit()
        self.world.lose("w1")
        recorded = self.successResultOf(self.scheduler.stop(job.id))
        self.assertEqual((recorded.state, recorded.over), (JobState.UNKNOWN, False))
        self.assertEqual(recorded.stop_requested_at, EPOCH + 1)
        self.world.clock.advance(100)
        self.assertEqual(self.successResultOf(self.scheduler.stop(job.id)), recorded)
        self.world.find("w1")
        self.assertIs(self.state(job), JobState.STOPPED)

    def test_long_grace(self) -> None:
        """A job that may take longer than a minute to end is answered as it is by then."""
        self.world.ignore_stops()
        job = self.submit(spec=JobSpec(command="x", stop_grace=600))
        stop = self.scheduler.stop(job.id)
        self.world.clock.advance(59)
        self.assertNoResult(stop)
        self.world.clock.advance(1)
        self.assertIs(self.successResultOf(stop).state, JobState.RUNNING)

    def test_orphan(self) -> None:
        """A job that was lost with its worker and runs on it when it is back is an orphan: lost, and to be stopped."""
        job = self.submit()
        self.world.lose("w1")
        self.successResultOf(self.scheduler.forget("w1"))
        lost = self.scheduler.job(job.id)
        self.assertEqual(self.successResultOf(self.scheduler.stop(job.id)), lost)
        self.world.come_back("w1")
        orphan = self.scheduler.job(job.id)
        self.assertEqual((orphan.state, orphan.reason, orphan.orphan), (JobState.LOST, "forgotten", True))
        self.assertEqual((orphan.finished_at, self.ids(JobFilter(orphan=True))), (lost.finished_at, [job.id]))
        self.assertEqual(self.scheduler.worker("w1").running_jobs, 1)
        self.assertEqual(self.successResultOf(self.scheduler.wait(job.id, 30)), orphan)
        stopped = self.successResultOf(self.scheduler.stop(job.id))
        self.assertEqual((stopped.state, stopped.orphan), (JobState.LOST, False))
        self.assertEqual((self.scheduler.worker("w1").running_jobs, self.ids(JobFilter(orphan=True))), (0, []))


globals().update(for_every_provider(Submitting, Looking, Waiting, Watching, Querying, Stopping))
