"""The token that is made when there is none."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.logger import globalLogPublisher

from scheduler.errors import StoreFailed
from scheduler.security.first_token import FirstToken, UnwritableToken
from scheduler.security.principals import Principal, Scope
from scheduler.security.token_text import new_text
from tests.house import EPOCH, result_of
from tests.unit.security.test_tokens import ROOT, TokenCase


class FirstTokenTests(TokenCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp())
        self.folder.mkdir(mode=0o700)
        self.file = self.folder / "admin.token"
        self.draft = self.folder / "admin.token.tmp"

    def begin(self) -> None:
        """A start of the scheduler."""
        result_of(FirstToken(self.tokens, self.folder).make())

    def principal(self) -> Principal:
        """The principal of the token in the file."""
        return self.tokens.principal(self.file.read_text().strip())

    def restart(self) -> None:
        self.house.restart()
        self.tokens = self.house.parts.tokens
        self.begin()

    def test_made(self) -> None:
        """The token is an administrator's, in a file that only its owner can read, and the next start leaves it."""
        self.begin()
        text = self.file.read_text()
        self.assertEqual((str(self.principal()), self.principal().scope), ("token:admin", Scope.ADMIN))
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)
        self.assertEqual(list(self.folder.iterdir()), [self.file])
        self.restart()
        self.assertEqual(self.file.read_text(), text)
        self.assertEqual(str(self.principal()), "token:admin")

    def test_not_made(self) -> None:
        """If there is a valid token, of whatever scope, none is made."""
        self.make(scope=Scope.READ)
        self.begin()
        self.assertFalse(self.file.exists())

    def test_again(self) -> None:
        """When all tokens are revoked or have expired, the next start replaces the file."""
        self.begin()
        text = self.file.read_text()
        for token in self.tokens.all(ROOT):
            self.revoke(token)
        self.make(name="admin", expires_at=EPOCH + 5)
        self.house.clock.advance(5)
        self.begin()
        self.assertNotEqual(self.file.read_text(), text)
        self.assertEqual([token.created_by for token in self.tokens.all(ROOT)], ["scheduler"])
        self.assertEqual(str(self.principal()), "token:admin")

    def test_links(self) -> None:
        """Links at the file and at its draft are replaced, not followed."""
        victim = self.folder / "victim"
        victim.write_text("precious")
        self.file.symlink_to(victim)
        self.draft.symlink_to(victim)
        self.begin()
        self.assertEqual(victim.read_text(), "precious")
        self.assertFalse(self.file.is_symlink())
        self.assertEqual(str(self.principal()), "token:admin")

    def test_unwritable(self) -> None:
        """If the file can't be written, the start fails, names the file, and leaves no token."""
        self.file.mkdir()
        (self.file / "x").touch()
        with self.assertRaises(UnwritableToken) as caught:
            self.begin()
        self.assertIn(str(self.file), str(caught.exception))
        self.assertEqual(self.house.store.holding().tokens, ())
        self.draft.unlink(missing_ok=True)
        self.draft.mkdir()
        self.assertRaises(UnwritableToken, self.begin)
        self.assertEqual(self.tokens.all(ROOT), ())

    def test_store_fails(self) -> None:
        """If the token can't be saved, the start fails, and no file appears."""
        self.house.store.problem = "disk full"
        self.assertRaises(StoreFailed, self.begin)
        self.assertFalse(self.file.exists())
        self.house.store.problem = ""
        self.restart()
        self.assertEqual(str(self.principal()), "token:admin")

    def test_durable_first(self) -> None:
        """The file appears once the token is durable."""
        self.house.store.held = True
        made = FirstToken(self.tokens, self.folder).make()
        self.assertFalse(self.file.exists())
        self.house.store.commit()
        self.successResultOf(made)
        self.assertTrue(self.file.exists())

    def test_killed_in_between(self) -> None:
        """A start that was killed after the token was saved is completed by the next one."""
        self.begin()
        os.rename(self.file, self.draft)
        self.restart()
        self.assertEqual(str(self.principal()), "token:admin")
        self.assertFalse(self.draft.exists())

    def test_strange_drafts(self) -> None:
        """A draft whose token is not valid never becomes the file."""
        self.make()
        for text in (new_text("abcd2345"), "", "\xff" * 10, "x" * 10_000):
            self.draft.write_bytes(text.encode("latin-1"))
            self.begin()
            self.assertFalse(self.file.exists())

    def test_a_pipe(self) -> None:
        """A start does not wait for the writer of a pipe in the place of the draft."""
        self.make()
        os.mkfifo(self.draft, 0o600)
        self.begin()
        self.assertFalse(self.file.exists())

    def test_log(self) -> None:
        """The log says where the token is, and not which."""
        events: list[str] = []
        globalLogPublisher.addObserver(lambda event: events.append(repr(event)))
        self.addCleanup(globalLogPublisher.removeObserver, globalLogPublisher)
        self.begin()
        logged = "".join(events)
        self.assertIn(str(self.file), logged)
        self.assertNotIn(self.file.read_text().split("_")[2], logged)
