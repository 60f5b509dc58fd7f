"""Failed logins, counted by address."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import TooManyRequests
from scheduler.limits import LOGINS_SECONDS
from scheduler.security.logins import FailedLogins

HERE, THERE = "192.0.2.1", "192.0.2.2"


class FailedLoginsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.logins = FailedLogins(3, self.clock.seconds, 2)

    def fail_often(self, address: str, times: int = 3) -> None:
        for _ in range(times):
            self.logins.failed(address)

    def test_limit(self) -> None:
        """After as many failures as allowed an address is refused, others are not."""
        for _ in range(3):
            self.logins.check(HERE)
            self.logins.failed(HERE)
        self.assertRaises(TooManyRequests, self.logins.check, HERE)
        self.logins.check(THERE)

    def test_over(self) -> None:
        """The refusal says when it ends, and ends then. Failures meanwhile do not extend it."""
        self.fail_often(HERE)
        self.clock.advance(LOGINS_SECONDS - 20)
        self.fail_often(HERE)
        error = self.assertRaises(TooManyRequests, self.logins.check, HERE)
        self.assertEqual(error.retry_after, 20)
        self.clock.advance(20)
        self.logins.check(HERE)
        self.logins.failed(HERE)
        self.logins.check(HERE)

    def test_networks(self) -> None:
        """The addresses of one IPv6 network of 64 bits count together."""
        for last in range(3):
            self.logins.failed(f"2001:db8::{last}")
        self.assertRaises(TooManyRequests, self.logins.check, "2001:db8::ffff")
        self.logins.check("2001:db8:0:1::1")

    def test_bounded(self) -> None:
        """When more addresses failed than are remembered, the one that failed first is forgotten."""
        for address in (HERE, THERE, "192.0.2.3"):
            self.fail_often(address)
        self.logins.check(HERE)
        for address in (THERE, "192.0.2.3"):
            self.assertRaises(TooManyRequests, self.logins.check, address)
