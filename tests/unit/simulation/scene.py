"""Runs without faults, and doctored jobs."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from scheduler.model import Job, JobSpec, JobState
from tests.simulation.clients import Reply
from tests.simulation.machine import Run
from tests.simulation.plan import Act, Fault, Plan, PlannedCoreWorker, PlannedWorker
from tests.simulation.world import World


def world(
    workers: int = 1,
    acts: tuple[Act, ...] = (),
    core: tuple[PlannedCoreWorker, ...] = (),
    faults: tuple[Fault, ...] = (),
) -> World:
    """A run of 20 s."""
    ours = tuple(PlannedWorker(f"w{number}") for number in range(1, workers + 1))
    return World(1, Plan(20.0, ours, faults, acts, slow=0.0, core_workers=core))


class Scene:
    """A judge that a test feeds with events."""

    def __init__(self) -> None:
        self.world = world()
        self.judge = self.world.judge
        self.facts = self.judge.facts
        self.loop = self.world.loop

    @property
    def broken(self) -> str:
        """The name of the broken rule; ``""``: none."""
        return "" if self.judge.violation is None else self.judge.violation.rule

    def runs(self, job_id: str = "j1", began: float = 0.0, ended: float | None = None, **more: Any) -> Run:
        """The job has run, or runs; it writes ten lines in ten seconds."""
        run = Run(job_id, "m1", began, ended, 0 if ended is not None else None, seconds=10.0, writes=10)
        for name, value in more.items():
            setattr(run, name, value)
        self.facts.runs.setdefault(job_id, []).append(run)
        return run

    def job(self, state: JobState = JobState.RUNNING, job_id: str = "j1", **more: Any) -> Job:
        """A job, which is shown in this state."""
        job = evolve(
            Job(job_id, JobSpec("work", labels={"ticket": "t1"}), state, 0.0, worker_id="w", worker_name="w1"), **more
        )
        self.facts.shown[job_id] = job
        return job

    def reply(self, name: str, value: Any = None, error: Exception | None = None, detail: Any = None) -> None:
        """A request about j1 was made at 0 s, and is answered now."""
        self.judge.replied(Reply(name, "j1", 0.0, self.loop.now, value, error, detail))
