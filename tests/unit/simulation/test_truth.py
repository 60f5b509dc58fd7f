"""The rules about ends: they stay, have the true exit code, and are ``lost`` only if something destroyed the job."""

from __future__ import annotations

from attrs import evolve

from scheduler.model import JobState
from scheduler.terms import QueueTerms, Retry
from tests.simulation.machine import Spool
from tests.unit.simulation.scene_case import SceneCase


class FinalTests(SceneCase):
    def test_stays(self) -> None:
        """An end may be shown again, be marked for removal, or be followed by another attempt."""
        self.ran()
        self.show(self.ended(), evolve(self.ended(), remove_requested_at=2.0, retried_by="j2"))
        self.assert_kept()

    def test_changes(self) -> None:
        """Another code, another reason and another time each make another end."""
        for change in ({"exit_code": 7}, {"reason": "it was"}, {"finished_at": 2.0}, {"stdout_bytes": 1}):
            self.setUp()
            self.ran()
            self.show(self.ended(), self.ended(**change))
            self.assert_broken("a final state stays", next(iter(change)))

    def test_not_even_unknown(self) -> None:
        """After a restart of the scheduler the end is the same."""
        self.ran()
        self.begin()
        self.show(self.ended())
        self.put(self.job(state=JobState.UNKNOWN))
        self.assert_broken("a final state stays", "unknown")

    def test_returns(self) -> None:
        """A removed job that was lost and still runs is shown as lost for the same reason, with other times."""
        for removed in (True, False):
            self.setUp()
            self.begin()
            self.facts.forgotten["w1"] = None
            lost = {"state": JobState.LOST, "reason": "forgotten", "exit_code": None}
            self.show(self.ended(**lost, finished_at=1.0))
            if removed:
                self.facts.removals["j1"] = None
            self.show(self.ended(**lost, finished_at=2.0, orphan=True))
            self.assertEqual(self.judge.violation is None, removed)


class CodeTests(SceneCase):
    def test_true(self) -> None:
        """The code, or the signal, is that of the run."""
        self.ran("j1", 0)
        self.ran("j2", 7)
        self.ran("j3", None, signal="SIGKILL")
        self.show(self.ended("j1"))
        self.show(self.ended("j2", JobState.FAILED, exit_code=7), self.ended("j3", JobState.FAILED, signal="SIGKILL"))
        self.assert_kept()

    def test_another_code(self) -> None:
        self.ran(code=7)
        self.show(self.ended(state=JobState.FAILED, exit_code=1))
        self.assert_broken("the code it had", "(1, None)")

    def test_never_ran(self) -> None:
        """A code needs a run."""
        self.show(self.ended())
        self.assert_broken("the code it had")

    def test_no_code(self) -> None:
        """A success has a code, and so has the failure of a job that ran to its end."""
        self.show(self.ended(exit_code=None))
        self.assert_broken("the code it had", "no exit code")
        self.setUp()
        self.ran(code=7)
        self.show(self.ended(state=JobState.FAILED))
        self.assert_broken("the code it had", "it ended with [(7, None)]")

    def test_state_of_the_code(self) -> None:
        """Only code 0 is a success."""
        for code, state in ((7, JobState.SUCCEEDED), (0, JobState.FAILED)):
            self.setUp()
            self.ran(code=code)
            self.show(self.ended(state=state, exit_code=code))
            self.assert_broken("the code it had", str(code))

    def test_still_runs(self) -> None:
        self.running()
        self.show(self.ended(state=JobState.FAILED))
        self.assert_broken("P4 true", "still runs")

    def test_no_reason(self) -> None:
        """Every end but a success has a reason."""
        self.show(self.ended(state=JobState.FAILED, reason=""))
        self.assert_broken("P4 true", "no reason")


class StoppedTests(SceneCase):
    def test_asked(self) -> None:
        """A stop of an attempt counts for the attempts that follow, too."""
        self.judge.stop_asked("j1")
        self.ran("j1", 7)
        self.show(self.ended("j1", JobState.FAILED, exit_code=7))
        self.show(self.ended("j2", JobState.STOPPED, retry_of="j1", terms=QueueTerms(retry=Retry(1, 0.0))))
        self.assert_kept()

    def test_nobody_asked(self) -> None:
        self.show(self.ended(state=JobState.STOPPED))
        self.assert_broken("P4 true", "nobody asked")

    def test_ran_to_its_end(self) -> None:
        """A job that ran shows its real end, even if it was to be stopped."""
        self.judge.stop_asked("j1")
        self.ran(code=0)
        self.show(self.ended(state=JobState.STOPPED, reason="stopped before it was started"))
        self.assert_broken("the code it had")


class LostTests(SceneCase):
    def lost(self, reason: str) -> None:
        self.show(self.ended(state=JobState.LOST, reason=reason))

    def test_destroyed(self) -> None:
        """A job is lost for the reason that destroyed it, a reboot or a signal to its shim."""
        for destroyed, reason in (("rebooted", "rebooted"), ("killed", "its shim was killed by a signal")):
            self.setUp()
            self.ran(code=None, destroyed=destroyed)
            self.lost(reason)
            self.assert_kept()

    def test_excused(self) -> None:
        self.facts.excused["j1"] = "its worker lost its folder"
        self.lost("no record")
        self.assert_kept()

    def test_forgotten(self) -> None:
        """The jobs of a forgotten worker are lost."""
        self.judge.forget_asked("w1")
        self.lost("forgotten")
        self.assert_kept()

    def test_nothing_destroyed_it(self) -> None:
        for reason in ("no record", "rebooted", "forgotten"):
            self.setUp()
            self.running()
            self.lost(reason)
            self.assert_broken("lost only if destroyed", reason)

    def test_rebooted_before_it_began(self) -> None:
        """If the folder of a job is from before the reboot, the worker can't tell whether a shim began it."""
        for begun, rebooted in ((False, True), (True, True), (False, False)):
            self.setUp()
            node = self.world.workers["w1"]
            node.folder.spools["j1"] = Spool("j1", self.job().spec, 0.0, node.machine.boot_id, begun=begun)
            if rebooted:
                node.machine.reboot()
            self.lost("rebooted")
            self.assertEqual(self.judge.violation is None, rebooted and not begun)

    def test_something_else_destroyed_it(self) -> None:
        """A reboot does not erase the record of a job."""
        self.ran(code=None, destroyed="rebooted")
        self.lost("no record")
        self.assert_broken("lost only if destroyed", "no record")
