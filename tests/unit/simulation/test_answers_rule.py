"""The rule about answers, with doctored answers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import JobRemoved, KeyReused, NotFound
from scheduler.model import JobState
from scheduler.terms import QueueTerms
from tests.simulation.clients import Reply
from tests.simulation.machine import EPOCH, Run
from tests.unit.simulation.scene import Scene


class AnswersTests(SynchronousTestCase):
    """A test for each false answer."""

    def setUp(self) -> None:
        self.scene = Scene()
        self.judge = self.scene.judge
        self.facts = self.scene.facts

    def shows(self, job_id: str = "j1", state: JobState = JobState.RUNNING, **more: object) -> None:
        """The scheduler shows a job."""
        self.scene.world.start_scheduler()
        before = self.facts.shown.pop(job_id, None)
        job = self.scene.job(state, job_id, **more)
        for rule in self.judge.rules:
            rule.shown(self.scene.world.scheduler, before, job)

    def test_not_found(self) -> None:
        """A job that a client knows exists."""
        self.scene.reply("stop", error=NotFound("job", "j1"))
        self.assertEqual(self.scene.broken, "P1 kept")

    def test_not_found_after_a_removal(self) -> None:
        """A removed job may be missing."""
        self.judge.removal_asked("j1")
        self.scene.reply("stop", error=NotFound("job", "j1"))
        self.assertEqual(self.scene.broken, "")

    def test_refused_for_want_of_a_job(self) -> None:
        """A request for a new job can't be answered with "no such job"; "no such worker" is possible."""
        self.judge.submitting("t1")
        self.judge.refused("t1", NotFound("worker", "w9"))
        self.assertEqual(self.scene.broken, "")
        self.judge.refused("t1", NotFound("job", "j1"))
        self.assertEqual(self.scene.broken, "answers are true")

    def test_query_of_one_that_never_ran(self) -> None:
        """A job that never ran can't be running."""
        self.scene.reply("query", self.scene.job())
        self.assertEqual(self.scene.broken, "answers are true")

    def test_query_of_one_that_ended(self) -> None:
        """The job ended long before the query."""
        self.scene.runs(ended=5.0)
        self.scene.loop.now = 30.0
        self.judge.replied(self.late_query(asked_at=20.0))
        self.assertEqual(self.scene.broken, "answers are true")

    def test_query_of_one_that_ends_meanwhile(self) -> None:
        """The job ran at a moment of the call."""
        self.scene.runs(ended=25.0)
        self.scene.loop.now = 30.0
        self.judge.replied(self.late_query(asked_at=20.0))
        self.assertEqual(self.scene.broken, "")

    def late_query(self, asked_at: float) -> Reply:
        """The answer is that the job is running."""
        return Reply("query", "j1", asked_at, self.scene.loop.now, self.scene.job(), detail="w1")

    def test_wait_too_short(self) -> None:
        """The job has not ended, and the time is not over."""
        self.scene.loop.now = 4.9
        self.scene.reply("wait", self.scene.job(), detail=5.0)
        self.assertEqual(self.scene.broken, "answers are true")

    def test_wait_long_enough(self) -> None:
        """The time is over."""
        self.scene.loop.now = 5.1
        self.scene.reply("wait", self.scene.job(), detail=5.0)
        self.assertEqual(self.scene.broken, "")

    def test_attempt_after_the_last(self) -> None:
        """No attempt follows the one that was answered as the last."""
        self.scene.runs(ended=1.0, code=7)
        self.scene.reply("wait_for_attempts", self.scene.job(JobState.FAILED, exit_code=7), detail=5.0)
        self.shows("j2", JobState.QUEUED, retry_of="j1", group_id="j1")
        self.assertEqual(self.scene.broken, "answers are true")

    def test_stop_that_is_not_recorded(self) -> None:
        """A job that has not ended must have a stop on record."""
        self.scene.reply("stop", self.scene.job())
        self.assertEqual(self.scene.broken, "answers are true")

    def test_run_after_a_stop(self) -> None:
        """A job whose stop was answered never begins."""
        self.judge.stop_asked("j1")
        self.scene.reply("stop", self.scene.job(JobState.STOPPED, stop_requested_at=1.0))
        self.judge.began(Run("j1", "m1", 0.0))
        self.assertEqual(self.scene.broken, "a stop holds")

    def test_attempt_after_a_stop(self) -> None:
        """No attempt follows."""
        self.judge.stop_asked("j1")
        self.scene.runs()
        self.scene.reply("stop", self.scene.job(stop_requested_at=1.0, group_id="j1"))
        self.shows("j2", JobState.QUEUED, retry_of="j1", group_id="j1")
        self.assertEqual(self.scene.broken, "a stop holds")

    def test_stop_of_others(self) -> None:
        """Only matching jobs are stopped."""
        self.scene.reply("stop_matching", (self.scene.job(stop_requested_at=1.0),), detail="t2")
        self.assertEqual(self.scene.broken, "answers are true")

    def test_there_after_its_removal(self) -> None:
        """A removed job is not shown."""
        self.judge.removal_asked("j1")
        self.scene.reply("remove", True)
        self.shows(state=JobState.QUEUED)
        self.assertEqual(self.scene.broken, "a removal holds")

    def test_found_after_its_removal(self) -> None:
        """A removed job is not found."""
        self.judge.removal_asked("j1")
        self.scene.reply("remove", True)
        self.scene.reply("job", self.scene.job(JobState.QUEUED))
        self.assertEqual(self.scene.broken, "answers are true")

    def test_begins_late_on_a_core_worker(self) -> None:
        """A stop promises nothing if a core worker did not answer the start of the job: the job is lost."""
        for state, remote_id, broken in (
            (JobState.LOST, None, ""),
            (JobState.LOST, "c1-1", "a stop holds"),
            (JobState.STOPPED, None, "a stop holds"),
        ):
            self.setUp()
            self.scene.facts.core["w"] = "10.0.0.1:30000"
            self.scene.reply("stop", self.scene.job(state, remote_id=remote_id, stop_requested_at=1.0))
            self.judge.began(Run("j1", "m1", 0.0))
            self.assertEqual(self.scene.broken, broken)

    def test_signal_twice(self) -> None:
        """A signal arrives at most once, whatever the answer."""
        run = self.scene.runs(signals=["SIGUSR1", "SIGUSR1"])
        self.scene.reply("signal", error=NotFound("worker", "w"), detail=(run, 0))
        self.assertEqual(self.scene.broken, "answers are true")

    def test_signal_not_sent(self) -> None:
        """An acknowledged signal arrived."""
        self.scene.reply("signal", detail=(self.scene.runs(), 0))
        self.assertEqual(self.scene.broken, "answers are true")

    def test_key_with_another_body(self) -> None:
        """A reused key makes no job."""
        self.scene.reply("resubmit", self.scene.job(JobState.QUEUED), detail=True)
        self.assertEqual(self.scene.broken, "one job for each key")

    def test_key_with_the_same_body(self) -> None:
        """The same key with the same body is the same request."""
        self.scene.reply("resubmit", error=KeyReused("k"), detail=False)
        self.assertEqual(self.scene.broken, "answers are true")

    def test_key_of_a_job_that_nobody_removed(self) -> None:
        """Only a client removes a job."""
        self.scene.reply("resubmit", error=JobRemoved("j1"), detail=False)
        self.assertEqual(self.scene.broken, "answers are true")

    def test_forgotten_worker_that_is_none(self) -> None:
        """A worker that does not exist can't be forgotten."""
        self.scene.reply("forget", detail="nobody")
        self.assertEqual(self.scene.broken, "answers are true")

    def test_listed_twice(self) -> None:
        """A list has each job once."""
        self.scene.job()
        self.judge.listed({"j1": None}, ["j1", "j1"])
        self.assertEqual(self.scene.broken, "lists are whole")

    def test_not_listed(self) -> None:
        """A list has all jobs that existed throughout."""
        self.scene.job()
        self.judge.listed({"j1": None}, [])
        self.assertEqual(self.scene.broken, "lists are whole")

    def test_not_listed_as_it_went(self) -> None:
        """A job that was dropped meanwhile may be missing."""
        self.scene.job()
        self.facts.gone["j1"] = None
        self.judge.listed({"j1": None}, [])
        self.assertEqual(self.scene.broken, "")

    def attended(self, decided: float) -> str:
        """The rule broken by a stop as unattended at that time, if a client attends from 5 s on."""
        self.scene.world.start_scheduler()
        scheduler = self.scene.world.scheduler
        assert scheduler is not None
        self.facts.attended[object()] = (scheduler.process, "j1", 5.0)
        self.scene.job(terms=QueueTerms(unattended_timeout=3.0))
        self.shows(
            terms=QueueTerms(unattended_timeout=3.0),
            stop_reason="stopped: no client",
            stop_requested_at=EPOCH + decided,
        )
        return self.scene.broken

    def test_stopped_though_it_is_attended(self) -> None:
        """A client follows the job."""
        self.assertEqual(self.attended(6.0), "who is attended runs")

    def test_stopped_before_it_was_attended(self) -> None:
        """The client came too late."""
        self.assertEqual(self.attended(4.0), "")
