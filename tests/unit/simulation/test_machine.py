"""A simulated machine reports an end like the shim."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scheduler.messages import JobStatus
from scheduler.model import JobState
from tests.simulation.loop import Loop
from tests.simulation.machine import Machine, Plan, Spool
from tests.simulation.trace import Trace


class EndTests(SynchronousTestCase):
    """A job of a second ends."""

    def end(self, code: int, stopped_at: float | None = None) -> JobStatus:
        """The end of the job, with a stop at that time."""
        loop = Loop()
        machine = Machine(loop, Trace(loop), "m1", "10.0.0.9", lambda run: None)
        spool = Spool("j1", Plan(1.0, code, 0).spec(), 0.0, machine.boot_id)
        machine.begin(spool, lambda: None)
        if stopped_at is not None:
            loop.run(stopped_at)
            spool.stop_asked = True
            machine.kill("j1", "SIGTERM")
        loop.run(3.0)
        assert spool.exit is not None
        return spool.exit

    def test_reasons(self) -> None:
        """Each end but a success has a reason. A stopped job may end with its own code before the signal arrives."""
        for code, stopped_at, state, reason in (
            (0, None, JobState.SUCCEEDED, ""),
            (7, None, JobState.FAILED, "exit status 7"),
            (0, 0.5, JobState.STOPPED, "signal: terminated"),
            (0, 0.995, JobState.STOPPED, "stopped"),
            (7, 0.995, JobState.STOPPED, "exit status 7"),
        ):
            ended = self.end(code, stopped_at)
            self.assertEqual((ended.state, ended.reason), (state, reason))
