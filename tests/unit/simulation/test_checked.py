"""The checker of the fault experiments judges a simulated run by its history."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from scheduler.api.errors import PROBLEMS
from scheduler.errors import Busy, JobNotEnded, KeyInUse, NotFound, StartUnanswered
from scheduler.model import Job, JobState, Ref
from tests.simulation.clients import Reply
from tests.simulation.machine import USAGE, Spool
from tests.simulation.network import CallFailed
from tests.simulation.rules.checked import Checked, status_of
from tests.unit.cluster.values import a_removal
from tests.unit.simulation.scene_case import SceneCase


class CheckedTests(SceneCase):
    """Only this rule is called, so that no other rule is found broken."""

    def setUp(self) -> None:
        super().setUp()
        self.begin()
        self.rule = Checked(self.facts, self.judge.broken)
        self.judge.rules = [self.rule]

    def replied(self, name: str, value: Any = None, error: Exception | None = None, at: float = 6.0) -> None:
        self.world.loop.run(at)
        self.judge.replied(Reply(name, "j1", at, at, value, error))

    def over(self, *jobs: Job) -> None:
        """The scheduler has these jobs, and the run is over."""
        self.put(*jobs)
        self.rule.rested()

    def test_kept(self) -> None:
        """An acknowledged job that was seen running and then succeeded breaks no rule."""
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
        """A job that a client saw running is there at the end, even if it was never acknowledged."""
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
        """If a fault destroyed the first run of a job, only the last run counts."""
        self.facts.excused["j1"] = "its folder was lost"
        self.ran()
        self.ran()
        self.over(self.ended(usage=USAGE))
        self.assert_kept()

    def test_set_back(self) -> None:
        """No run counts of a job that the database lost when it was set back."""
        self.facts.set_back["j1"] = None
        self.acknowledged(self.job())
        self.replied("job", self.job())
        self.ran()
        self.ran()
        self.over()
        self.assert_kept()

    def test_attempts(self) -> None:
        """A later attempt is no second job of the request."""
        self.ran("j1", 1)
        self.ran("j2")
        failed = self.ended("j1", JobState.FAILED, exit_code=1, usage=USAGE)
        self.over(failed, self.ended("j2", retry_of="j1", usage=USAGE))
        self.assert_kept()

    def test_running_again(self) -> None:
        """A job that was seen to have ended is not seen running later."""
        self.ran()
        self.replied("job", self.ended(usage=USAGE))
        self.replied("query", self.job(), at=7.0)
        self.over(self.ended(usage=USAGE))
        self.assert_broken("checker P4", "running after it was succeeded")

    def test_replayed(self) -> None:
        """A repeated request is answered with the job as it is now."""
        self.ran()
        self.replied("job", self.ended(usage=USAGE))
        self.replied("resubmit", self.job(), at=7.0)
        self.over(self.ended(usage=USAGE))
        self.assert_broken("checker P4", "running after it was succeeded")

    def test_refused(self) -> None:
        """A refused request has no run, unless another answer left that open."""
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
        """Only a key whose job is unknown since the database was set back may be used with another body."""
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
        """A removed job that was lost is listed again if its worker still runs it."""
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
        """Acknowledged signals arrived, and an unanswered one may have."""
        self.ran().signals.append("SIGUSR1")
        self.replied("signal", error=CallFailed("deadline"))
        self.over(self.ended(usage=USAGE))
        self.assert_kept()
        self.setUp()
        self.ran().signals.append("SIGUSR1")
        self.over(self.ended(usage=USAGE))
        self.assert_broken("checker P7", "counted 1 signals")

    def test_stop(self) -> None:
        """A job is stopped only on request."""
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
        """The spool and the scheduler agree at the end."""
        spool = Spool("j1", self.job().spec, 1.0, "boot")
        self.world.workers["w1"].folder.spools["j1"] = spool
        self.ran()
        self.over(self.ended(usage=USAGE))
        self.assert_broken("checker P5", "has not ended on its worker")

    def test_left_behind(self) -> None:
        """Only a worker that had deregistered may keep its spool of a removed job."""
        for known in (True, False):
            self.setUp()
            self.judge.removal_asked("j1")
            self.put(self.ended(worker_id=self.worker_id, usage=USAGE), self.ended("j2", usage=USAGE))
            if not known:
                self.scheduler.parts.ledger.learn(Ref("worker", self.worker_id))
            self.scheduler.parts.ledger.decide(*a_removal("j1"))
            self.world.loop.run(7.0)
            spool = Spool("j1", self.job().spec, 1.0, "boot")
            self.world.workers["w1"].folder.spools["j1"] = spool
            self.ran("j2")
            self.rule.rested()
            self.assertEqual(self.judge.violation is not None, known, self.judge.violation)

    def test_destroyed_on_a_core_worker(self) -> None:
        """Only a core worker may report a destroyed job as interrupted."""
        for core in (True, False):
            self.setUp()
            self.ran(code=None, destroyed="rebooted")
            self.facts.core.update({"w-1": "10.0.0.9:1"} if core else {})
            self.over(self.ended(state=JobState.FAILED, reason="interrupted"))
            self.assertEqual(self.judge.violation is None, core)

    def test_status(self) -> None:
        """Errors have their HTTP status, and a missing answer has none."""
        self.assertEqual(status_of(NotFound("job", "j1")), 404)
        self.assertEqual(status_of(StartUnanswered("w1", "j1")), PROBLEMS[StartUnanswered][0])
        self.assertIsNone(status_of(CallFailed("deadline")))
