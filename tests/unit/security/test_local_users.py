"""The rights of this machine's users, and the log of those who were refused."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from scheduler.daemon.users import User
from scheduler.errors import Unauthenticated
from scheduler.security.authentication import Authentication, Credentials
from scheduler.security.local_users import MAX_LOGGED_USERS, REFUSAL_INTERVAL_SECONDS, LocalUsers
from scheduler.security.principals import Principal, Scope
from tests.doubles.authentication import NoTokens

ALICE, CI = User(4_000_001, "alice"), User(4_000_002, "ci")

OWN, STRANGER = 4_000_003, 4_000_004


class LocalUsersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.users = LocalUsers({ALICE: "admin", CI: "run"}, self.clock.seconds, lambda: OWN)
        self.lines: list[str] = []

        def observe(event: LogEvent) -> None:
            self.lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def refusal(self, uid: int) -> str:
        text = str(self.assertRaises(Unauthenticated, self.users.principal, uid))
        self.users.refused(uid)
        return text

    def test_stranger(self) -> None:
        """Another user is refused, with a text that says how to go on."""
        text = self.refusal(STRANGER)
        for word in (str(STRANGER), "sudo", "Authorization: Bearer", "local_users", "[http_server]"):
            self.assertIn(word, text)

    def test_logged(self) -> None:
        """A refusal is logged with the uid, the user's name and the key, once a minute for each user."""
        for _ in range(3):
            self.refusal(65534)
        (line,) = self.lines
        for word in ("65534", "nobody", "[http_server] local_users"):
            self.assertIn(word, line)
        self.refusal(STRANGER)
        self.assertEqual(len(self.lines), 2)
        self.clock.advance(REFUSAL_INTERVAL_SECONDS)
        self.refusal(65534)
        self.assertEqual(len(self.lines), 3)

    def test_noted(self) -> None:
        """Only a request that was refused for want of a token is logged: not one with a wrong token, nor from afar."""
        authentication = Authentication(NoTokens(), self.users)
        authentication.refused(Credentials(["Bearer x"], STRANGER))
        authentication.refused(Credentials())
        self.assertEqual(self.lines, [])
        authentication.refused(Credentials(uid=STRANGER))
        self.assertEqual(len(self.lines), 1)

    def test_token_first(self) -> None:
        """A token in a request counts, even a wrong one of root."""
        authentication = Authentication(NoTokens(), self.users)
        self.assertEqual(authentication.principal(Credentials(uid=0)).name, "root")
        self.assertRaises(Unauthenticated, authentication.principal, Credentials(["Bearer x"], 0))
        self.assertRaises(Unauthenticated, authentication.principal, Credentials())

    def test_many_refused(self) -> None:
        """A user who has thousands of ids can't fill the log."""
        for uid in range(5_000_000, 5_000_100):
            self.refusal(uid)
        self.assertEqual(len(self.lines), MAX_LOGGED_USERS)

    def test_own_and_root(self) -> None:
        """Root and the process's own user are administrators."""
        self.assertEqual(self.users.principal(0), Principal("local", "root", Scope.ADMIN))
        self.assertEqual(self.users.principal(OWN), Principal("local", str(OWN), Scope.ADMIN))

    def test_given(self) -> None:
        """Users in the configuration have the scope that they are given."""
        self.assertEqual(self.users.principal(ALICE.uid), Principal("local", "alice", Scope.ADMIN))
        self.assertEqual(self.users.principal(CI.uid), Principal("local", "ci", Scope.RUN))
        self.assertEqual(str(self.users.principal(CI.uid)), "local:ci")
        self.assertEqual(self.lines, [])
