"""The rule about answers, with doctored answers."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import JobRemoved, KeyReused, NotFound, StartUnanswered
from scheduler.model import JobState
from scheduler.terms import QueueTerms
from tests.simulation.clients import Reply
from tests.simulation.machine import EPOCH, Run
from tests.simulation.rules.answers import Answers
from tests.unit.simulation.scene import Scene


class AnswersTests(SynchronousTestCase):
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
        """A job that a client knows exists, unless a client removed it."""
        for removed, broken in ((False, "P1 kept"), (True, "")):
            self.setUp()
            if removed:
                self.judge.removal_asked("j1")
            self.scene.reply("stop", error=NotFound("job", "j1"))
            self.assertEqual(self.scene.broken, broken)

    def test_refused_for_want_of_a_job(self) -> None:
        """A request for a new job can't be answered with "no such job"; "no such worker" is possible."""
        self.judge.submitting("t1")
        self.judge.refused("t1", NotFound("worker", "w9"))
        self.assertEqual(self.scene.broken, "")
        self.judge.refused("t1", NotFound("job", "j1"))
        self.assertEqual(self.scene.broken, "answers are true")

    def test_refused_for_the_key_of_another(self) -> None:
        """A request that is the only one of its principal with that key is not refused for the key."""
        self.judge.submitting("t1")
        self.judge.refused("t1", KeyReused("k"))
        self.assertEqual(self.scene.broken, "answers are true")

    def test_query_of_one_that_never_ran(self) -> None:
        """A job that never ran can't be running."""
        self.scene.reply("query", self.scene.job())
        self.assertEqual(self.scene.broken, "answers are true")

    def test_query_after_the_end(self) -> None:
        """A query is answered that the job runs only if it ran at a moment of the call."""
        for ended, broken in ((5.0, "answers are true"), (25.0, "")):
            self.setUp()
            self.scene.runs(ended=ended)
            self.scene.loop.now = 30.0
            self.judge.replied(Reply("query", "j1", 20.0, 30.0, self.scene.job(), detail="w1"))
            self.assertEqual(self.scene.broken, broken)

    def test_wait(self) -> None:
        """A job that has not ended is the answer only when the time is over."""
        for now, broken in ((4.9, "answers are true"), (5.1, "")):
            self.setUp()
            self.scene.loop.now = now
            self.scene.reply("wait", self.scene.job(), detail=5.0)
            self.assertEqual(self.scene.broken, broken)

    def test_attempt_after_the_last(self) -> None:
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
        """A removed job is neither shown nor found."""
        for shown, broken in ((True, "a removal holds"), (False, "answers are true")):
            self.setUp()
            self.judge.removal_asked("j1")
            self.scene.reply("remove", True)
            if shown:
                self.shows(state=JobState.QUEUED)
            else:
                self.scene.reply("job", self.scene.job(JobState.QUEUED))
            self.assertEqual(self.scene.broken, broken)

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

    def test_signal(self) -> None:
        """A signal arrives at most once, whatever the answer, and an acknowledged one has arrived."""
        for signals, error in ((["SIGUSR1", "SIGUSR1"], NotFound("worker", "w")), ([], None)):
            self.setUp()
            self.scene.reply("signal", error=error, detail=(self.scene.runs(signals=signals), 0))
            self.assertEqual(self.scene.broken, "answers are true")

    def test_key_with_another_body(self) -> None:
        """A reused key makes no job."""
        self.scene.reply("resubmit", self.scene.job(JobState.QUEUED), detail=True)
        self.assertEqual(self.scene.broken, "one job for each key")

    def test_key_with_the_same_body(self) -> None:
        """The same key with the same body is the same request, and only a client removes its job."""
        for error in (KeyReused("k"), JobRemoved("j1")):
            self.setUp()
            self.scene.reply("resubmit", error=error, detail=False)
            self.assertEqual(self.scene.broken, "answers are true")

    def test_key_of_a_job_that_has_ended(self) -> None:
        """The answer to a repeated request is the job as it is now."""
        for state, error in ((JobState.RUNNING, None), (None, StartUnanswered("w1", "j1")), (JobState.FAILED, None)):
            self.setUp()
            rule = next(rule for rule in self.judge.rules if isinstance(rule, Answers))
            rule.shown(None, None, job := self.scene.job(JobState.FAILED))
            now = self.scene.loop.now = self.scene.loop.now + 1.0
            rule.replied(Reply("resubmit", "j1", now, now, state and evolve(job, state=state), error, False))
            self.assertEqual(self.scene.broken, "" if state is JobState.FAILED else "answers are true")

    def test_forgotten_worker_that_is_none(self) -> None:
        """A worker that does not exist can't be forgotten."""
        self.scene.reply("forget", detail="nobody")
        self.assertEqual(self.scene.broken, "answers are true")

    def test_list(self) -> None:
        """A list has each job that existed throughout once; one that was dropped meanwhile may be missing."""
        for listed, gone, broken in (
            (["j1", "j1"], False, "lists are whole"),
            ([], False, "lists are whole"),
            ([], True, ""),
        ):
            self.setUp()
            self.scene.job()
            if gone:
                self.facts.gone["j1"] = None
            self.judge.listed({"j1": None}, listed)
            self.assertEqual(self.scene.broken, broken)

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
        """A job that a client attends is not stopped, unless the client came too late."""
        for decided, broken in ((6.0, "who is attended runs"), (4.0, "")):
            self.setUp()
            self.assertEqual(self.attended(decided), broken)
