"""Tokens in the ledger: decided, learned, revoked, restored."""

from __future__ import annotations

from scheduler.cluster.ledger import Ledger
from scheduler.errors import StoreFailed
from scheduler.model import Ref
from tests.unit.cluster.ledger_case import LedgerCase
from tests.unit.cluster.values import a_token

TOKEN, NAME = a_token(), Ref("token", "abcd2345")


class TokenTests(LedgerCase):
    def made(self) -> None:
        made = self.ledger.decide(TOKEN)
        self.store.commit()
        self.successResultOf(made)

    def test_made(self) -> None:
        """A new token is visible once it is durable, and not at all if the store fails."""
        made = self.ledger.decide(TOKEN)
        self.assertIsNone(self.ledger.registry.find(NAME))
        self.store.fail()
        self.failureResultOf(made, StoreFailed)
        self.assertEqual(self.ledger.registry.tokens, {})

    def test_loaded(self) -> None:
        """The next process has the tokens of this one."""
        self.made()
        later = Ledger(self.clock, lambda: 1000.0, self.store)
        self.successResultOf(later.load())
        self.assertEqual(later.registry.tokens, {TOKEN.id: TOKEN})
        self.assertEqual(later.registry.everything().tokens, (TOKEN,))

    def test_used(self) -> None:
        """The use of a token is visible at once, and saved a little later."""
        self.made()
        used = a_token(last_used_at=5.0)
        self.successResultOf(self.ledger.learn(used, lazily=True))
        self.assertEqual((self.ledger.registry.find(NAME), self.store.saves), (used, []))
        self.clock.advance(1)
        self.store.commit()
        self.assertEqual(self.store.holding().tokens, (used,))

    def test_revoked(self) -> None:
        """A token that is revoked is gone at once, also if the store fails, and a noted use does not bring it back."""
        self.made()
        self.ledger.learn(a_token(last_used_at=5.0), lazily=True)
        revoked = self.ledger.learn(NAME)
        self.assertIsNone(self.ledger.registry.find(NAME))
        self.store.fail()
        self.failureResultOf(revoked, StoreFailed)
        self.assertEqual(self.store.holding().tokens, (TOKEN,))
        self.clock.advance(1)
        self.store.commit_all()
        self.assertEqual((self.ledger.registry.tokens, self.store.holding().tokens), ({}, ()))
