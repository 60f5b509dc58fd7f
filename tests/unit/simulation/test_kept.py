"""The rules about starts: an acknowledged job is kept and runs once, and a request makes at most one job."""

from __future__ import annotations

from scheduler.errors import Busy, WorkerFault
from scheduler.model import JobState
from scheduler.terms import Target
from tests.unit.simulation.scene_case import SceneCase


class RunTests(SceneCase):
    def test_once(self) -> None:
        self.ran()
        self.ran("j2")
        self.assert_kept()

    def test_twice(self) -> None:
        self.ran()
        self.running()
        self.assert_broken("P2 one run", "j1")

    def test_excused(self) -> None:
        """A second run is excused if a fault destroyed the record of the first."""
        self.facts.excused["j1"] = "the folder was lost"
        self.ran()
        self.running()
        self.assert_kept()


class KeyTests(SceneCase):
    def test_one_job(self) -> None:
        """A repeated request is answered with the same job."""
        self.acknowledged(self.job())
        self.acknowledged(self.job())
        self.assert_kept()

    def test_another_answer(self) -> None:
        self.acknowledged(self.job())
        self.acknowledged(self.job("j2"))
        self.assert_broken("one job for each key", "j2")

    def test_two_jobs(self) -> None:
        """Jobs that were never acknowledged count, too."""
        self.begin()
        self.judge.submitting("t1")
        self.put(self.job())
        self.assert_kept()
        self.put(self.job("j2"))
        self.assert_broken("one job for each key", "j2")


class KeptTests(SceneCase):
    def test_dropped(self) -> None:
        """A job that has run must not be dropped; one whose start was never sent may be."""
        self.begin()
        self.put(self.job())
        self.scheduler.parts.ledger.learn(self.job().ref)
        self.assert_kept()
        self.ran("j2")
        self.put(self.job("j2"))
        self.scheduler.parts.ledger.learn(self.job("j2").ref)
        self.assert_broken("P1 kept", "dropped")

    def test_forgotten(self) -> None:
        """An acknowledged job is there after a restart, unless a client removed it."""
        self.acknowledged(self.job())
        self.judge.removal_asked("j1")
        self.begin()
        self.facts.removals.clear()
        self.judge.loaded(self.scheduler)
        self.assert_broken("P1 kept", "not there any more")

    def test_not_over(self) -> None:
        """Every job has ended when everything is over."""
        self.begin()
        self.put(self.job(state=JobState.UNKNOWN))
        self.judge.ended()
        self.assert_broken("P1 ends", "unknown")

    def test_goes_on(self) -> None:
        """A job that still runs, or waits for its slot, need not have ended."""
        self.begin()
        self.running()
        self.put(self.job(), self.job("j2", state=JobState.QUEUED, worker_id=None))
        self.judge.ended()
        self.assert_kept()

    def test_waits_for_nobody(self) -> None:
        """A job that waits while none runs must have ended."""
        self.begin()
        self.put(self.job("j2", state=JobState.QUEUED, worker_id=None))
        self.judge.ended()
        self.assert_broken("P1 ends", "queued")

    def test_never_ran(self) -> None:
        """An acknowledged job ran, or its time in the queue was over."""
        self.too_late(600.0)
        self.assert_kept()
        self.setUp()
        self.test_of_another_reason()

    def too_late(self, seconds: float, by_the_clock: float = 600.0, restart: bool = False) -> None:
        """The job fails after this time, by the loop and by the wall clock, perhaps after a restart."""
        self.begin()
        waits = self.job(state=JobState.QUEUED, target=Target(selector={"kind": "none"}), worker_id=None)
        over = waits.created_at + by_the_clock
        self.acknowledged(waits)
        self.put(waits)
        if restart:
            self.world.loop.run(self.world.loop.now + 1.0)
            self.scheduler.process.end()
            self.world.start_scheduler()
        self.world.loop.now += seconds
        why = "queue_timeout passed"
        self.put(self.ended(state=JobState.FAILED, reason=why, created_at=waits.created_at, finished_at=over))
        self.judge.ended()

    def test_wrong_clock(self) -> None:
        """The wall clock, which may be wrong, does not measure the time in the queue."""
        self.too_late(600.0, by_the_clock=-60.0)
        self.assert_kept()
        self.setUp()
        self.too_late(5.0)
        self.assert_broken("P1 runs", "queue_timeout")

    def test_wrong_clock_and_restart(self) -> None:
        """A scheduler that starts has only the wall clock."""
        self.too_late(5.0, restart=True)
        self.assert_kept()
        self.setUp()
        self.too_late(5.0, by_the_clock=5.0, restart=True)
        self.assert_broken("P1 runs", "queue_timeout")

    def test_made_by_the_process_before(self) -> None:
        """A job that was made and not shown before the scheduler was killed has waited since it was made."""
        made = self.world.scheduler_machine.wall_time() - 597.0
        nowhere = Target(selector={"kind": "none"})
        waits = self.job(state=JobState.QUEUED, created_at=made, target=nowhere, worker_id=None)
        self.world.database.commit([[waits]], ())
        self.begin()
        self.acknowledged(waits)
        self.assertIs(self.facts.shown["j1"].state, JobState.FAILED)
        self.judge.ended()
        self.assert_kept()

    def test_worker_forgotten(self) -> None:
        """A job that is queued for a forgotten worker does not run."""
        self.begin()
        named = Target(worker="w1")
        self.acknowledged(self.job(target=named))
        self.judge.forget_asked("w1")
        self.put(self.job(target=named), self.ended(state=JobState.FAILED, target=named))
        self.judge.ended()
        self.assert_kept()

    def test_loaded(self) -> None:
        """A restarted scheduler may be the first to show a job that does not run."""
        self.begin()
        waits = self.job(state=JobState.QUEUED, target=Target(selector={"kind": "none"}), worker_id=None)
        self.acknowledged(waits)
        self.scheduler.serving = False
        self.put(waits)
        self.scheduler.serving = True
        self.put(self.ended(state=JobState.FAILED, reason="too late", finished_at=waits.created_at + 600.0))
        self.judge.ended()
        self.assert_kept()

    def test_refused_by_a_core_worker(self) -> None:
        """A core worker that answers a start with a fault may have begun the job, which is not started elsewhere."""
        for core in (True, False):
            self.setUp()
            self.begin()
            if core:
                self.judge.facts.core["w"] = "10.0.0.1:30000"
            self.acknowledged(self.job(worker_id="w"))
            reason = str(WorkerFault("w", "no more processes"))
            self.put(self.job(worker_id="w"), self.ended(state=JobState.FAILED, reason=reason, worker_id="w"))
            self.judge.ended()
            if core:
                self.assert_kept()
            else:
                self.assert_broken("P1 runs", "no more processes")

    def test_of_another_reason(self) -> None:
        self.begin()
        self.acknowledged(self.job())
        self.put(self.job(), self.ended(state=JobState.FAILED, reason="never started"))
        self.judge.ended()
        self.assert_broken("P1 runs", "never started")

    def test_refused(self) -> None:
        """A request has no run if all its answers were that nothing was started."""
        self.begin()
        self.judge.submitting("t1")
        self.judge.refused("t1", Busy("calls", 4))
        self.ran()
        self.put(self.job(), self.ended())
        self.judge.not_answered("t1")
        self.judge.ended()
        self.assert_kept()
        self.facts.tickets["t1"].open = False
        self.judge.ended()
        self.assert_broken("P4 refused", "Busy")
