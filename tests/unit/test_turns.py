"""Limits of calls in flight."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from scheduler.turns import KeyedTurns, Turns

#: More calls than Python's recursion limit.
MANY = 1000


class TurnsTests(SynchronousTestCase):
    """A call is held until its number is fired."""

    def setUp(self) -> None:
        self.turns = Turns(2)
        self.called: list[int] = []
        self.calls: dict[int, Deferred[int]] = {}

    def ask(self, number: int) -> Deferred[int]:
        def call() -> Deferred[int]:
            self.called.append(number)
            self.calls[number] = Deferred()
            return self.calls[number]

        return Deferred.fromCoroutine(self.turns.run(call))

    def test_in_order(self) -> None:
        """A limited number of calls is made at once. When one ends, even by a failure, the first in line is made."""
        asked = [self.ask(number) for number in range(5)]
        self.assertEqual(self.called, [0, 1])
        self.calls[1].callback(1)
        self.assertEqual((self.called, self.successResultOf(asked[1])), ([0, 1, 2], 1))
        self.calls[2].errback(ValueError())
        self.failureResultOf(asked[2], ValueError)
        self.calls[0].callback(0)
        self.assertEqual(self.called, [0, 1, 2, 3, 4])
        self.assertFalse(self.turns.idle)
        for number in (3, 4):
            self.calls[number].callback(number)
        self.assertTrue(self.turns.idle)

    def test_cancelled(self) -> None:
        """A call that is cancelled while it waits is never made; one in flight makes room."""
        asked = [self.ask(number) for number in range(4)]
        asked[2].cancel()
        asked[0].cancel()
        self.assertEqual(self.called, [0, 1, 3])
        for number in (0, 2):
            self.failureResultOf(asked[number])

    def test_many_that_are_answered_at_once(self) -> None:
        """Every call gets its turn, even if very many calls in line take no time."""
        first = [self.ask(number) for number in range(2)]
        rest = [Deferred.fromCoroutine(self.turns.run(succeed, number)) for number in range(MANY)]
        self.calls[0].callback(0)
        self.assertEqual([self.successResultOf(each) for each in rest], list(range(MANY)))
        self.calls[1].callback(1)
        self.assertEqual([self.successResultOf(each) for each in first], [0, 1])


class KeyedTurnsTests(SynchronousTestCase):
    """Separate limits for each key."""

    def test_keys(self) -> None:
        """Calls of one key do not wait for another's, and a key without calls is forgotten."""
        turns = KeyedTurns(1)
        held: dict[str, Deferred[Any]] = {"a": Deferred(), "b": Deferred()}
        asked = [Deferred.fromCoroutine(turns.run(key, lambda key=key: held[key])) for key in "aab"]
        held["b"].callback("b")
        self.assertEqual(self.successResultOf(asked[2]), "b")
        self.assertNoResult(asked[0])
        held["a"].callback("a")
        self.assertEqual([self.successResultOf(each) for each in asked[:2]], ["a", "a"])
        self.assertTrue(turns.idle)
