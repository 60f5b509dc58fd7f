"""Calls that fail: the log lines about them, and the delays after them."""

from random import Random

from twisted.internet.task import Clock

from scheduler.errors import Conflict, DeadlineExceeded, Invalid, Refused, StoreFailed, Unreachable
from scheduler.worker.troubles import RETRY_MAX_SECONDS
from tests.doubles.scheduler_client import RefusingSchedulerClient, SilentSchedulerClient, UnreachableSchedulerClient
from tests.unit.worker.link_case import LinkCase


class RetryTests(LinkCase):
    """A scheduler that can't be reached, or does not want us."""

    def tries(self, seconds: float, step: float = 0.125) -> list[float]:
        """When calls were made in that time, in seconds from now."""
        times = []
        began = self.clock.seconds()
        for _ in range(int(seconds / step)):
            before = len(self.client.calls)
            self.clock.advance(step)
            times += [self.clock.seconds() - began] * (len(self.client.calls) - before)
        return times

    def test_backoff(self) -> None:
        """Started before the scheduler it tries again and again, at first soon, in the end every five seconds."""
        self.use(UnreachableSchedulerClient())
        self.link.startService()
        self.assertEqual(self.tries(20), [0.25, 0.75, 1.75, 3.75, 7.75, 12.75, 17.75])
        self.assertEqual(set(self.client.methods), {"register"})
        self.client.failure = None
        self.clock.advance(5)
        self.assertIn("w1", self.client.workers)

    def test_jitter(self) -> None:
        """Workers that lost their scheduler together do not come back together, nor later than the longest delay."""
        seconds = set()
        for seed in range(20):
            self.clock = Clock()
            self.use(UnreachableSchedulerClient(), Random(seed))
            self.link.startService()
            self.clock.pump([0.01] * 2000)
            (call,) = self.clock.getDelayedCalls()
            seconds.add(round(call.getTime() - self.clock.seconds(), 2))
            self.assertLessEqual(call.getTime() - self.clock.seconds(), RETRY_MAX_SECONDS)
        self.assertGreater(len(seconds), 10)

    def test_for_ever(self) -> None:
        """However long it takes."""
        self.use(UnreachableSchedulerClient())
        self.link.startService()
        self.clock.pump([5.0] * 3000)
        self.client.failure = None
        self.clock.advance(5)
        self.assertEqual(self.client.methods[-2:], ["register", "heartbeat"])

    def test_told_once(self) -> None:
        """A scheduler that can't be reached is logged once, in all its forms, and once when it is back."""
        self.link.startService()
        self.logged.clear()
        for failure in (Unreachable("s"), DeadlineExceeded("heartbeat", 10), Unreachable("s", sent=True)):
            self.client.failure = failure
            self.clock.pump([5.0] * 10)
        self.assertEqual(self.logged, ["no contact with the scheduler, trying again"])
        self.client.failure = None
        self.clock.pump([5.0] * 10)
        self.assertEqual(self.logged[1:], ["in contact with the scheduler again"])
        self.assertEqual(self.client.methods.count("register"), 1)

    def test_refused(self) -> None:
        """A lasting refusal is logged once until it changes, and tried again every five seconds."""
        for error in (Refused("address not allowed"), Conflict("name is taken"), Invalid("labels", "too many")):
            self.logged.clear()
            self.use(RefusingSchedulerClient(error))
            self.link.startService()
            self.assertEqual(self.tries(16), [5, 10, 15])
            self.assertEqual(self.logged, [f"the scheduler refuses this worker: {error}, trying again"])
            self.client.failure = Refused("something else")
            self.clock.advance(5)
            self.assertEqual(len(self.logged), 2)

    def test_changing_text(self) -> None:
        """A text that is another one with each try is logged ten times, and again when there was contact in between."""
        self.begin()
        for _ in range(2):
            self.logged.clear()
            for number in range(30):
                self.client.failure = (Refused, StoreFailed)[number % 2](f"request {number}")
                self.clock.pump([5.0] * 3)
            self.assertEqual(len(self.logged), 10, self.logged)
            self.client.failure = None
            self.clock.pump([5.0] * 3)
            self.assertEqual(self.logged[10:], ["in contact with the scheduler again"])

    def test_fault(self) -> None:
        """A scheduler that can't do it now is tried like one that is not there."""
        self.use(RefusingSchedulerClient(StoreFailed("disk full")))
        self.link.startService()
        self.assertEqual(self.tries(2), [0.25, 0.75, 1.75])
        self.assertEqual(self.logged, ["the scheduler answers with a fault: disk full, trying again"])

    def test_silent(self) -> None:
        """A scheduler that does not answer gets one call at a time."""
        self.use(SilentSchedulerClient(self.clock, 10))
        self.link.startService()
        self.assertEqual(self.tries(31), [10.25, 20.75])

    def test_bug(self) -> None:
        """Even a mistake of ours ends nothing."""
        self.client.failure = RuntimeError("bug")  # type: ignore[assignment]
        self.link.startService()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.client.failure = None
        self.clock.advance(5)
        self.assertIn("w1", self.client.workers)

    def test_ends_do_not_hurry(self) -> None:
        """While the scheduler can't be reached the ends of jobs make no calls of their own, and are told later."""
        self.start("j1", "j2")
        self.begin()
        self.client.failure = Unreachable("s")
        self.jobs.end("j1")
        self.assertEqual(len(self.client.calls), 1)
        self.jobs.end("j2")
        self.assertEqual(len(self.client.calls), 1)
        self.client.failure = None
        self.clock.advance(0.25)
        self.assertEqual(self.ended(self.client.heartbeats[-1]), ["j1", "j2"])
        self.assertEqual(self.unacknowledged(), [])
