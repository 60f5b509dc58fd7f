"""Calls that keep the server waiting are cancelled."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.rpc.admission import CROWD, MAX_CANCELLED_AT_ONCE, MAX_WAITING_CALLS, WaitingCalls


class Call:
    """A call that counts its cancellations."""

    cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


class WaitingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.waiting = WaitingCalls(self.clock.seconds)

    def begun(self, count: int) -> list[Call]:
        calls = [Call() for _ in range(count)]
        for call in calls:
            self.waiting.begin(call)
        return calls

    def after(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.waiting.cancel_old()

    def assert_cancelled(self, calls: list[Call], first: int) -> None:
        """The first ``first`` calls were cancelled once, the others were not."""
        self.assertEqual([call.cancelled for call in calls], [1] * first + [0] * (len(calls) - first))

    def test_too_long(self) -> None:
        """A call is cancelled, once, after waiting for five seconds."""
        (first,) = self.begun(1)
        self.after(2.0)
        (second,) = self.begun(1)
        self.after(2.5)
        self.assert_cancelled([first, second], 0)
        self.after(0.5)
        self.assert_cancelled([first, second], 1)
        self.after(2.0)
        self.after(2.0)
        self.assert_cancelled([first, second], 2)

    def test_message(self) -> None:
        """A call whose message arrived is not cancelled. If it waits for another message, it has five seconds again."""
        over, again = calls = self.begun(2)
        self.after(4.0)
        self.waiting.end(over)
        self.waiting.begin(again)
        self.after(4.0)
        self.assert_cancelled(calls, 0)
        self.after(1.0)
        self.assert_cancelled([again, over], 1)

    def test_crowd(self) -> None:
        """If very many calls wait, those above a limit have one second, and not all are cancelled at once."""
        calls = self.begun(CROWD + MAX_CANCELLED_AT_ONCE + 10)
        self.after(0.9)
        self.assert_cancelled(calls, 0)
        self.after(0.1)
        self.assert_cancelled(calls, MAX_CANCELLED_AT_ONCE)
        self.after(1.0)
        self.assert_cancelled(calls, MAX_CANCELLED_AT_ONCE + 10)
        self.after(3.0)
        self.assert_cancelled(calls, 2 * MAX_CANCELLED_AT_ONCE + 10)

    def test_too_many(self) -> None:
        """A call beyond the limit cancels the oldest one."""
        calls = self.begun(MAX_WAITING_CALLS)
        self.assert_cancelled(calls, 0)
        self.assert_cancelled(calls + self.begun(2), 2)

    def test_all(self) -> None:
        """All calls are cancelled when the server ends."""
        calls = self.begun(3)
        self.waiting.end(calls[2])
        self.waiting.cancel_all()
        self.assert_cancelled(calls, 2)
        self.after(10.0)
        self.assert_cancelled(calls, 2)
