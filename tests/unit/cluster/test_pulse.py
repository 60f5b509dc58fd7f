from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.workers.pulses import Pulse
from scheduler.model import WorkerState

ONLINE, UNREACHABLE = WorkerState.ONLINE, WorkerState.UNREACHABLE
LEASE = 30.0


class JudgeTests(SynchronousTestCase):
    def test_both_directions(self) -> None:
        """Online takes a heartbeat within the lease and a call that was answered; one alone is not enough."""
        for pulse, state in (
            (Pulse(), UNREACHABLE),
            (Pulse(heard=100.0), UNREACHABLE),
            (Pulse(answered=100.0), UNREACHABLE),
            (Pulse(heard=100.0, answered=1.0), ONLINE),
            (Pulse(heard=100.0, answered=1.0, failed=""), UNREACHABLE),
            (Pulse(heard=69.0, answered=100.0), UNREACHABLE),
            (Pulse(heard=70.0, answered=100.0), ONLINE),
        ):
            self.assertIs(pulse.judge(True, 100.0, LEASE), state, pulse)

    def test_without_heartbeats(self) -> None:
        """An answered call within the lease is enough for a worker that sends no heartbeats."""
        self.assertIs(Pulse(answered=70.0).judge(False, 100.0, LEASE), ONLINE)
        self.assertIs(Pulse(answered=69.0).judge(False, 100.0, LEASE), UNREACHABLE)
        self.assertIs(Pulse(heard=100.0).judge(False, 100.0, LEASE), UNREACHABLE)

    def test_why_unreachable(self) -> None:
        """The sign that is missing is named; that it was known to go comes first."""
        never = "it has not called since the scheduler was started"
        for pulse, heartbeats, why in (
            (Pulse(gone="it was stopped"), True, "it was stopped"),
            (Pulse(), True, never),
            (
                Pulse(failed="no route"),
                True,
                "it has not called since the scheduler was started; calls to it fail: no route",
            ),
            (Pulse(heard=57.2, answered=100.0), True, "no sign of life for 43 s"),
            (
                Pulse(heard=57.2, answered=1.0, failed="refused"),
                True,
                "no sign of life for 43 s; calls to it fail: refused",
            ),
            (Pulse(heard=100.0, answered=1.0, failed=""), True, "calls to it fail"),
            (Pulse(heard=100.0, answered=1.0, failed="refused"), True, "calls to it fail: refused"),
            (Pulse(heard=100.0), True, "no call to it has succeeded yet"),
            (Pulse(heard=1.0), False, "no call to it has succeeded yet"),
            (Pulse(failed=""), False, "calls to it fail"),
            (Pulse(answered=57.2), False, "no sign of life for 43 s"),
            (Pulse(answered=99.0, failed=""), False, "calls to it fail"),
        ):
            self.assertIs(pulse.judge(heartbeats, 100.0, LEASE), UNREACHABLE)
            self.assertEqual(pulse.why_unreachable(heartbeats, 100.0, LEASE), why)

    def test_when_to_probe(self) -> None:
        """A probe is due after a failure, before any answer, and half a lease after the last; never two at once."""
        for pulse, due in (
            (Pulse(), True),
            (Pulse(answered=86.0), False),
            (Pulse(answered=85.0), True),
            (Pulse(answered=99.0, failed=""), True),
            (Pulse(answered=1.0, probing=True), False),
        ):
            self.assertIs(pulse.wants_probe(False, 100.0, LEASE), due, pulse)
            self.assertIs(evolve(pulse, heard=70.0).wants_probe(True, 100.0, LEASE), due, pulse)

    def test_the_silent_are_not_probed(self) -> None:
        """A worker whose heartbeats are missing is not probed: it would not be online for that."""
        for heard in (None, 69.0):
            self.assertFalse(Pulse(heard=heard, answered=1.0, failed="").wants_probe(True, 100.0, LEASE))
