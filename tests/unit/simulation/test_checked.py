"""The checker of the fault experiments judges a simulated run by the history that the run kept."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from scheduler.api.errors import PROBLEMS
from scheduler.errors import Busy, JobNotEnded, KeyInUse, NotFound, StartUnanswered
from scheduler.model import Job, JobState
from tests.simulation.clients import Reply
from tests.simulation.machine import USAGE, Spool
from tests.simulation.network import CallFailed
from tests.simulation.rules.checked import Checked, status_of
from tests.unit.simulation.scene_case import SceneCase


class CheckedTests(SceneCase):
    """Only this rule is asked, so that its findings are not those of others."""

    def setUp(self) -> None:
        super().setUp()
        self.begin()
        self.rule = Checked(self.facts, self.judge.broken)
        self.judge.rules = [self.rule]

    def replied(self, name: str, value: Any = None, error: Exception | None = None, at: float = 6.0) -> None:
        self.world.loop.run(at)
        self.judge.replied(Reply(name, "j1", at, at, value, error))

    def over(self, *jobs: Job) -> None:
        """The scheduler has these, and the run is over."""
        self.put(*jobs)
        self.rule.rested()

    def test_kept(self) -> None:
        """A job that was acknowledged, seen to run, and succeeded breaks nothing."""
        self.acknowledged(self.job())
        self.replied("job", self.job())
        self.ran()
        self.replied("job", self.ended(usage=USAGE), at=7.0)
        self.over(self.ended(usage=USAGE))
        self.assert_kept()

    def test_forgotten(self) -> None:
        self.acknowledged(self.job())
        self.over()
        self.assert_broken("checker P1", "not there at the end")

    def test_vanished(self) -> None:
        """A job that nobody was told of, and somebody saw to run, is there at the end."""
        self.replied("job", self.job())
        self.ran("j2")
        self.over(self.ended("j2", usage=USAGE))
        self.assert_broken("checker P1", "was running")

    def test_twice(self) -> None:
        self.ran()
        self.ran()
        self.over(self.ended(usage=USAGE))
        self.assert_broken("checker P2", "ran 2 times")

    def test_excused(self) -> None:
        """Of a job whose first run a fault destroyed, the last run counts."""
        self.facts.excused["j1"] = "its folder was lost"
        self.ran()
        self.ran()
        self.over(self.ended(usage=USAGE))
        self.assert_kept()

    def test_set_back(self) -> None:
        """Of a job that the database lost by being set back nothing counts."""
        self.facts.set_back["j1"] = None
        self.acknowledged(self.job())
        self.replied("job", self.job())
        self.ran()
        self.ran()
        self.over()
        self.assert_kept()

    def test_attempts(self) -> None:
        """An attempt that follows another is no second job of the request."""
        self.ran("j1", 1)
        self.ran("j2")
        failed = self.ended("j1", JobState.FAILED, exit_code=1, usage=USAGE)
        self.over(failed, self.ended("j2", retry_of="j1", usage=USAGE))
        self.assert_kept()

    def test_running_again(self) -> None:
        """A job that was seen to have ended is not seen to run later."""
        self.ran()
        self.replied("job", self.ended(usage=USAGE))
        self.replied("query", self.job(), at=7.0)
        self.over(self.ended(usage=USAGE))
        self.assert_broken("checker P4", "running after it was succeeded")

    def test_replayed(self) -> None:
        """A request sent again is answered with the job as it was."""
        self.ran()
        self.replied("job", self.ended(usage=USAGE))
        self.replied("resubmit", self.job(), at=7.0)
        self.over(self.ended(usage=USAGE))
        self.assert_kept()

    def test_refused(self) -> None:
        """A request that was refused made no run, unless another answer left that open."""
        for error in (None, KeyInUse("k")):
            self.setUp()
            self.judge.submitting("t1")
            self.judge.refused("t1", Busy("calls", 4))
            if error is None:
                self.judge.not_answered("t1")
            self.ran()
            self.put(self.ended(usage=USAGE))
            self.rule.rested()
            self.assertEqual(self.judge.violation is None, error is None)

    def test_key_that_nobody_knows(self) -> None:
        """A key whose job nobody has since the database was set back may be used with another body, and none else."""
        for unknown in (True, False):
            self.setUp()
            self.judge.submitting("t1")
            self.judge.refused("t1", Busy("calls", 4))
            if unknown:
                self.facts.set_back["j1"] = self.facts.erased["j1"] = None
            self.ran("j2")
            self.put(self.ended("j2", usage=USAGE))
            self.judge.replied(Reply("resubmit", "j1", 6.0, 6.0, self.ended("j2", usage=USAGE), None, True))
            self.rule.rested()
            self.assertEqual(self.judge.violation is None, unknown)

    def test_removed(self) -> None:
        """A removed job is not seen again."""
        self.ran()
        self.replied("remove", True)
        self.replied("job", self.ended(usage=USAGE), at=7.0)
        self.over()
        self.assert_broken("checker P6", "was seen (job) after it was removed")

    def test_removed_and_runs(self) -> None:
        """A removed job that was lost is listed again where its worker runs it all the same."""
        for orphan in (True, False):
            self.setUp()
            lost = self.job(state=JobState.LOST, reason="forgotten", finished_at=1.0)
            self.facts.excused["j1"] = self.facts.removed["j1"] = None
            self.replied("remove", True)
            self.world.loop.run(7.0)
            self.judge.show(self.world.scheduler, evolve(lost, orphan=orphan))
            self.over(lost)
            self.assertEqual(self.judge.violation is None, orphan)

    def test_removal_refused(self) -> None:
        self.replied("remove", error=JobNotEnded("j1", "running"))
        self.ran("j2")
        self.over(self.ended("j2", usage=USAGE))
        self.assert_broken("checker P6", "is gone, though")

    def test_signal(self) -> None:
        """A job counts the signals that were sent, and an unanswered one may have arrived."""
        self.ran().signals.append("SIGUSR1")
        self.replied("signal", error=CallFailed("deadline"))
        self.over(self.ended(usage=USAGE))
        self.assert_kept()
        self.setUp()
        self.ran().signals.append("SIGUSR1")
        self.over(self.ended(usage=USAGE))
        self.assert_broken("checker P7", "counted 1 signals")

    def test_stop(self) -> None:
        """A job is stopped only where that was asked for."""
        stopped = self.ended(state=JobState.STOPPED)
        self.ran(code=None, signal="SIGTERM")
        self.judge.stop_asked("j1")
        self.over(evolve(stopped, signal="SIGTERM", usage=USAGE))
        self.assert_kept()
        self.facts.stops.clear()
        self.rule._events.clear()
        self.rule.rested()
        self.assert_broken("checker P4", "nobody asked")

    def test_disagreement(self) -> None:
        """The spool and the scheduler say the same at the end."""
        spool = Spool("j1", self.job().spec, 1.0, "boot")
        self.world.workers["w1"].folder.spools["j1"] = spool
        self.ran()
        self.over(self.ended(usage=USAGE))
        self.assert_broken("checker P5", "has not ended on its worker")

    def test_left_behind(self) -> None:
        """A worker that had deregistered keeps its spool of a job that was removed meanwhile; another one does not."""
        for known in (True, False):
            self.setUp()
            self.judge.removal_asked("j1")
            self.put(self.ended(worker_id=self.worker_id, usage=USAGE), self.ended("j2", usage=USAGE))
            if not known:
                self.scheduler.parts.ledger.remove_worker(self.worker_id)
            self.scheduler.parts.ledger.remove_for_client("j1")
            self.world.loop.run(7.0)
            spool = Spool("j1", self.job().spec, 1.0, "boot")
            self.world.workers["w1"].folder.spools["j1"] = spool
            self.ran("j2")
            self.rule.rested()
            self.assertEqual(self.judge.violation is not None, known, self.judge.violation)

    def test_destroyed_on_a_core_worker(self) -> None:
        """It says that a job was interrupted where one of ours says that it is lost."""
        for core in (True, False):
            self.setUp()
            self.ran(code=None, destroyed="rebooted")
            self.facts.core.update({"w-1": "10.0.0.9:1"} if core else {})
            self.over(self.ended(state=JobState.FAILED, reason="interrupted"))
            self.assertEqual(self.judge.violation is None, core)

    def test_status(self) -> None:
        """Errors have the status that HTTP gives them; no answer has none."""
        self.assertEqual(status_of(NotFound("job", "j1")), 404)
        self.assertEqual(status_of(StartUnanswered("w1", "j1")), PROBLEMS[StartUnanswered][0])
        self.assertIsNone(status_of(CallFailed("deadline")))
