"""The acts of clients, in runs without faults: they reach their aims, and no rule is broken."""

from __future__ import annotations

import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scheduler.model import JobState, Stream
from scheduler.terms import QueueTerms, Retry, Target
from tests.simulation import steps
from tests.simulation.acts import Drain, Forget, ListJobs, StopMatching, Submit
from tests.simulation.faults.processes import KillWorker, StopWorker
from tests.simulation.follow import Follow, Read
from tests.simulation.machine import LINE, Plan
from tests.simulation.plan import Act, Fault, PlannedCoreWorker
from tests.simulation.steps import Step
from tests.simulation.workload import ENDLESS, MIXED, make_acts
from tests.simulation.world import World
from tests.unit.simulation.scene import world


def submit(*then: Step, ticket: str = "t1", seconds: float = 5.0, lines: int = 10, **more: Any) -> Submit:
    """A job for ``w1`` is submitted at 5 s."""
    return Submit(5.0, ticket, Plan(seconds, more.pop("code", 0), lines), Target(worker="w1"), then=then, **more)


def answers(run: World, name: str) -> list[str]:
    """The answers to the clients' requests of that name, in order."""
    found = (re.search(rf" client +{name}\b.* <- (.*)", line) for line in run.trace.lines())
    return [match[1] for match in found if match is not None]


class ActsTests(SynchronousTestCase):
    def run_(self, *acts: Act, workers: int = 1, faults: tuple[Fault, ...] = ()) -> World:
        """Run the world, which must break no rule."""
        run = world(workers, acts, faults=faults)
        self.assertIsNone(run.run().violation)
        return run

    def states(self, run: World) -> list[JobState]:
        """The states of all jobs."""
        return [job.state for job in run.judge.facts.shown.values()]

    def test_follow(self) -> None:
        """All output from the requested byte on is delivered, and then the end. An empty stream has only the end."""
        run = self.run_(submit(Follow(0.0), Follow(4.0, begin=3 * LINE), Follow(0.0, Stream.STDERR)))
        ends = [(follower.offset, follower.over) for follower in run.judge.facts.followers]
        self.assertCountEqual(ends, [(10 * LINE, "the end"), (10 * LINE, "the end"), (0, "the end")])

    def test_follow_through_a_kill(self) -> None:
        """A follower resumes at its offset."""
        run = self.run_(submit(Follow(0.0)), faults=(KillWorker(7.0, "w1", 1.0),))
        [follower] = run.judge.facts.followers
        self.assertEqual((follower.offset, follower.over), (10 * LINE, "the end"))

    def test_run(self) -> None:
        """The job and its output arrive on one connection."""
        run = self.run_(submit(follow=Follow(0.0)))
        [follower] = run.judge.facts.followers
        self.assertEqual((follower.offset, follower.over), (10 * LINE, "the end"))
        self.assertEqual(len([line for line in run.trace.lines() if " follow -> " in line]), 0)

    def test_hang_up(self) -> None:
        """A client that hangs up resumes, or has enough."""
        run = self.run_(submit(Follow(0.0, hang_up=2.0), Follow(0.0, hang_up=2.0, resumes=False)))
        went_on, left = run.judge.facts.followers
        self.assertEqual((went_on.offset, went_on.over), (10 * LINE, "the end"))
        self.assertEqual(left.over, "it hung up, or was cut")
        self.assertTrue(0 < left.offset < 10 * LINE)

    def test_slow(self) -> None:
        """A slow client gets everything, later."""
        run = self.run_(submit(Follow(0.0, slow=2.0), seconds=1.0))
        [follower] = run.judge.facts.followers
        self.assertEqual(follower.over, "the end")

    def test_read(self) -> None:
        """A client reads a part of the present output."""
        self.assertEqual(answers(self.run_(submit(Read(4.0, LINE, 20))), "read"), ["ok"])

    def test_steps(self) -> None:
        """Each step is carried out."""
        run = self.run_(
            submit(
                steps.Query(1.0), steps.Look(1.0), steps.Wait(1.0, 2.0), steps.Wait(1.0, 30.0, True), steps.Stop(3.0)
            )
        )
        for name in ("query", "job", "wait", "wait_for_attempts", "stop"):
            self.assertTrue(any(answer.startswith("job ") for answer in answers(run, name)), name)
        self.assertEqual(self.states(run), [JobState.STOPPED])

    def test_signal(self) -> None:
        """The signal arrives at the job."""
        run = self.run_(submit(steps.Signal(1.0, "SIGUSR1"), steps.Signal(2.0, "SIGKILL")))
        [[job]] = run.judge.facts.runs.values()
        self.assertEqual((job.signals, job.signal), (["SIGUSR1", "SIGKILL"], "SIGKILL"))

    def test_remove(self) -> None:
        """The client repeats the removal until the job is gone."""
        self.assertEqual(len(self.run_(submit(steps.Remove(0.0))).judge.facts.removed), 1)

    def test_key(self) -> None:
        """A key answers the same request, and refuses another one."""
        again = (steps.Resubmit(1.0), steps.Resubmit(8.0), steps.Resubmit(2.0, other=True))
        run = self.run_(submit(*again, key="k"))
        self.assertEqual(len(run.judge.facts.shown), 1)
        self.assertTrue(any(answer.startswith("KeyReused") for answer in answers(run, "resubmit")))

    def test_submission_hung_up(self) -> None:
        """A submission that has begun goes on; the client with a key asks again."""
        run = self.run_(submit(hang_up=0.008, key="k"))
        self.assertIn("CallFailed: reset", answers(run, "submit"))
        self.assertEqual(self.states(run), [JobState.SUCCEEDED])

    def test_endless(self) -> None:
        """An endless job is withdrawn, or ends because no client attends it."""
        unattended = QueueTerms(unattended_timeout=3.0)
        run = self.run_(
            submit(seconds=ENDLESS, withdraw=2.0),
            submit(Follow(0.0, hang_up=4.0, resumes=False), ticket="t2", seconds=ENDLESS, terms=unattended),
        )
        self.assertEqual(self.states(run), [JobState.STOPPED, JobState.STOPPED])

    def test_attended(self) -> None:
        """A client that waits attends its job."""
        run = self.run_(submit(steps.Wait(0.0, 30.0), seconds=8.0, terms=QueueTerms(unattended_timeout=3.0)))
        self.assertEqual(self.states(run), [JobState.SUCCEEDED])
        self.assertEqual(run.judge.facts.attended, {})

    def test_stop_of_a_chain(self) -> None:
        """All attempts are stopped together."""
        chain = submit(code=7, seconds=2.0, terms=QueueTerms(60.0, retry=Retry(5, 1.0)))
        run = self.run_(chain, StopMatching(9.0, "t1"))
        self.assertIn(JobState.STOPPED, self.states(run))
        self.assertLess(len(run.judge.facts.shown), 6)

    def test_list(self) -> None:
        """All pages are read."""
        jobs = [submit(ticket=f"t{number}") for number in range(5)]
        self.assertEqual(answers(self.run_(*jobs, ListJobs(9.0, 2, 0.5)), "jobs"), ["ok"] * 3)

    def test_workers(self) -> None:
        """A drained worker takes no job, and a worker that is gone can be forgotten."""
        run = self.run_(
            Drain(1.0, "w1"),
            submit(),
            Drain(9.0, "w1", resume=True),
            Forget(12.0, "w1"),
            Forget(2.0, "nobody"),
            faults=(KillWorker(10.0, "w1", 5.0),),
        )
        self.assertEqual(self.states(run), [])
        self.assertIn("Draining", "\n".join(run.trace.lines()))
        self.assertTrue(any(answer.startswith("NotFound") for answer in answers(run, "forget")))

    def test_plan(self) -> None:
        """The same source of randomness gives the same acts."""
        first, second = (make_acts(world().random("acts"), MIXED, ["w1"], 90.0) for _ in range(2))
        self.assertEqual(first, second)


class CoreWorkerTests(SynchronousTestCase):
    """A run with one core worker."""

    def run_(self, *acts: Act, faults: tuple[Fault, ...] = (), **variant: bool) -> World:
        """Run the world, with jobs for any worker; it must break no rule."""
        run = world(0, acts, core=(PlannedCoreWorker("c1", **variant),), faults=faults)
        self.assertIsNone(run.run().violation)
        return run

    def submit(self, *then: Step, code: int = 0) -> Submit:
        """A job of 5 s is submitted."""
        return Submit(5.0, "t1", Plan(5.0, code, 3), Target(selector={}), QueueTerms(60.0), then=then)

    def test_ends(self) -> None:
        """The jobs run under the core worker's own ids, and the scheduler learns their ends."""
        for code, state in ((0, JobState.SUCCEEDED), (7, JobState.FAILED)):
            run = self.run_(self.submit(code=code))
            [job] = run.judge.facts.shown.values()
            self.assertEqual((job.state, job.exit_code, job.remote_id), (state, code, "c1-1"))

    def test_stop(self) -> None:
        """A job on a core worker can be stopped."""
        run = self.run_(self.submit(steps.Stop(1.0)))
        self.assertEqual([job.state for job in run.judge.facts.shown.values()], [JobState.STOPPED])

    def test_output(self) -> None:
        self.assertIn("does not support", self.run_(self.submit(Follow(1.0))).judge.facts.followers[0].over)

    def test_killed(self) -> None:
        """The jobs of a killed core worker are lost, unless they run on: then it has them when it registers again."""
        for jobs_run_on, state in ((False, JobState.LOST), (True, JobState.SUCCEEDED)):
            run = self.run_(self.submit(), faults=(KillWorker(7.0, "c1", 1.0),), jobs_run_on=jobs_run_on)
            self.assertEqual([job.state for job in run.judge.facts.shown.values()], [state])

    def test_deregisters(self) -> None:
        """A job of a deregistered core worker is unknown until the worker registers again without it."""
        run = self.run_(self.submit(), faults=(StopWorker(7.0, "c1", 1.0),), deregisters=True)
        [job] = run.judge.facts.shown.values()
        self.assertEqual((job.state, job.reason), (JobState.LOST, "no record"))
