"""P5 at the time when it is judged."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from scheduler.model import JobState
from tests.simulation.world import World
from tests.unit.simulation.worlds import a_world, broken, job_of, registry


class UnderWayTests(SynchronousTestCase):
    """A job of 10 s that runs from 1 s on."""

    def setUp(self) -> None:
        self.world: World = a_world(acts=(job_of(10.0, 1.0, "w1"),), workers=("w1",))
        self.world.loop.run(5.0)

    def agree(self, time: float) -> str:
        self.world.loop.run(time)
        self.world.judge.agreed()
        return broken(self.world)

    def show(self, state: JobState, reason: str | None = None) -> None:
        """Another job of the worker is shown like this, until its next heartbeat at 9 s."""
        assert self.world.scheduler is not None
        job = registry(self.world).jobs.get(next(iter(self.world.judge.facts.runs)))
        another = evolve(job, id="another", state=state, reason=reason, spec=evolve(job.spec, labels={}))
        self.world.scheduler.parts.ledger.learn(another)

    def test_runs(self) -> None:
        """A running job is shown as running."""
        self.assertEqual(self.agree(5.0), "")

    def test_begins_to_start(self) -> None:
        """A start may be in progress for a moment."""
        self.show(JobState.STARTING)
        self.assertEqual(self.agree(6.0), "")

    def test_starts_for_long(self) -> None:
        """A start in progress for longer breaks the rule, even if the job is shown again."""
        self.show(JobState.STARTING)
        self.world.loop.run(6.0)
        self.show(JobState.STARTING, reason="again")
        self.assertEqual(self.agree(7.5), "P5 agreement")

    def test_answered_late(self) -> None:
        """A job whose start a core worker has just answered may have ended; a second later it was asked about."""
        self.show(JobState.RUNNING)
        job = registry(self.world).jobs.get("another")
        self.world.judge.facts.core[job.worker_id] = "10.0.1.4:30000"
        self.assertEqual(self.agree(6.0), "")
        self.assertEqual(self.agree(7.5), "P5 agreement")

    def test_found_set_back(self) -> None:
        """The scheduler must not find a setback of the database that did not happen."""
        self.world.scheduler.parts.set_back.registered("w9", 1 << 20, new_process=True)
        self.assertEqual(self.agree(5.0), "set back is true")

    def test_unknown(self) -> None:
        """A job may not be unknown, not even for a moment."""
        self.show(JobState.UNKNOWN)
        self.assertEqual(self.agree(5.0), "P5 agreement")

    def test_has_just_ended(self) -> None:
        """The report of an end may be under way for a moment, and not for longer."""
        (run,) = self.world.judge.facts.runs[next(iter(self.world.judge.facts.shown))]
        run.ended = 4.0
        self.assertEqual(self.agree(5.0), "")
        run.ended = 2.0
        self.assertEqual(self.agree(5.0), "P5 agreement")
