from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.candidates import Standing
from scheduler.cluster.jobs.backoff import Backoff, seconds
from scheduler.cluster.registry import Registry
from scheduler.cluster.requirement import Requirement
from scheduler.errors import Busy, NoFreeSlot, Unavailable, Unreachable
from scheduler.model import JobSpec, Presence, WorkerState
from scheduler.terms import Target
from tests.unit.cluster.values import a_worker

ANY = Requirement.of(JobSpec(command="echo"), Target(selector={}))
SHORT = Unavailable("no more processes", 5)


class BackoffTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.registry = Registry()
        self.backoff = Backoff(self.clock, self.registry)

    def lasts(self, expected: float) -> None:
        """The backoff is over after that many seconds, and not before."""
        self.clock.advance(expected - 0.25)
        self.assertTrue(self.backoff.active("w"))
        self.clock.advance(0.25)
        self.assertFalse(self.backoff.active("w"))

    def test_grows(self) -> None:
        """Each shortage in a row makes it longer, up to a minute, until the worker runs a job."""
        for _ in range(2):
            for expected in (5, 10, 20, 40, 60, 60):
                self.backoff.refused("w", SHORT)
                self.assertEqual(self.backoff.reason("w"), "no more processes")
                self.lasts(expected)
                self.assertIsNone(self.backoff.reason("w"))
            self.backoff.forget("w")

    def test_candidates(self) -> None:
        """Placement sees a worker as held from when it is refused until the last of its backoffs is over."""

        def held() -> bool:
            return next(self.backoff.candidates.each(ANY, (Standing.HELD,)), None) is not None

        self.registry.put_worker(a_worker("w"))
        self.registry.see("w", Presence(WorkerState.ONLINE))
        self.assertFalse(held())
        self.backoff.refused("w", SHORT)
        self.assertEqual((held(), self.backoff.next_end), (True, 5.0))
        self.clock.advance(2)
        self.backoff.refused("w", Busy("calls", 4))
        self.backoff.refused("w", Unavailable("no more memory", 9))
        self.clock.advance(5)
        self.assertTrue(held())
        self.registry.see("w", Presence(WorkerState.ONLINE, last_seen=2.0))
        self.assertTrue(held())
        self.clock.advance(4)
        self.assertEqual((held(), self.backoff.next_end), (False, None))
        self.backoff.refused("w", SHORT)
        self.backoff.forget("w")
        self.assertFalse(held())

    def test_sent_together(self) -> None:
        """Starts that were sent together are refused together, which counts once."""
        for expected in (5, 10):
            for _ in range(4):
                self.backoff.refused("w", SHORT)
            self.lasts(expected)

    def test_during_another(self) -> None:
        """A shortage that shows while the worker is in backoff for another reason counts, and tells more."""
        self.backoff.refused("w", Busy("calls", 4))
        self.backoff.refused("w", SHORT)
        self.assertEqual(self.backoff.reason("w"), "no more processes")
        self.lasts(5)
        self.backoff.refused("w", SHORT)
        self.lasts(10)

    def test_never_asked(self) -> None:
        """A call that did not reach the worker does not make the backoff longer."""
        for error, expected, reason in (
            (Busy("calls", 4), 1, "calls: all 4 in use"),
            (Unreachable("w"), 5, "worker 'w' can't be reached"),
            (NoFreeSlot("none"), 5, "none"),
        ):
            for _ in range(3):
                self.backoff.refused("w", error)
                self.assertEqual(self.backoff.reason("w"), reason)
                self.lasts(expected)

    def test_ends(self) -> None:
        """The backoff ends when the worker runs a job, or is another process."""
        self.backoff.refused("w", SHORT)
        for _ in range(2):
            self.backoff.forget("w")
            self.assertEqual((self.backoff.active("w"), self.backoff.reason("w")), (False, None))

    def test_of_one(self) -> None:
        """The backoff of one worker does not apply to another."""
        self.backoff.refused("w", SHORT)
        self.assertEqual((self.backoff.active("v"), self.backoff.reason("v")), (False, None))

    def test_seconds(self) -> None:
        """The seconds that a worker asks for are limited."""
        self.assertEqual([seconds(after, 1) for after in (-1, 0, 30, 3600)], [1, 1, 30, 60])
        self.assertEqual(seconds(1, 10**6), 60)
