"""The questions that a registration asks the processes in its way, and those that it does without."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred

from scheduler.cluster.workers.clashes import MAX_ASKING
from scheduler.errors import Busy, Conflict
from scheduler.messages import Registered
from scheduler.model import Ref, Worker, WorkerState
from tests.unit.cluster.test_clashes import ClashTestCase


class QuestionTests(ClashTestCase):
    """Questions that a registration does without, and those that must wait."""

    def stale(self, *nonces: str) -> list[Worker]:
        """Workers at the address of the newcomer, each of which has registered and not been heard since."""
        first = self.registered()
        workers = [evolve(first, id=f"w-{nonce}", name=nonce, labels={"name": nonce}, nonce=nonce) for nonce in nonces]
        for worker in workers:
            self.ledger.learn(worker)
        self.ledger.learn(Ref("worker", first.id))
        return workers

    def newcomer(self) -> Deferred[Registered]:
        return self.registering(folder_id="new", nonce="new", name="new")

    def is_asked_next(self) -> str:
        """The nonce of the process that is asked now."""
        (call,) = [call for call in self.workers.held if call.method == "answers"]
        return str(call.worker.nonce)

    def test_nobody_answers(self) -> None:
        """All workers at an address at which nobody answers need one question only."""
        workers = self.stale("a", "b", "c")
        newcomer = self.newcomer()
        self.asked().callback(None)
        self.successResultOf(newcomer)
        for worker in workers:
            self.assertIs(self.ledger.registry.presences.of(worker.id).state, WorkerState.UNREACHABLE)

    def test_newcomer_answers(self) -> None:
        """An answer from the newcomer means that none of the others is there."""
        self.stale("a", "b", "c")
        newcomer = self.newcomer()
        self.assertEqual(self.is_asked_next(), "a")
        self.asked().callback(False)
        self.assertEqual(self.is_asked_next(), "new")
        self.asked().callback(True)
        self.successResultOf(newcomer)

    def test_another_answers(self) -> None:
        """An answer from another process may come from any of the others, so each is asked."""
        self.stale("a", "b", "c")
        newcomer = self.newcomer()
        for nonce in ("a", "new", "b"):
            self.assertEqual(self.is_asked_next(), nonce)
            self.asked().callback(False)
        self.assertEqual(self.is_asked_next(), "c")
        self.asked().callback(True)
        self.failureResultOf(newcomer, Conflict)

    def test_another_comes(self) -> None:
        """A process that registers while another is asked is asked, too."""
        (stale,) = self.stale("a")
        newcomer = self.newcomer()
        question = self.asked()
        self.ledger.learn(evolve(stale, nonce="b"))
        question.callback(None)
        self.assertEqual(self.is_asked_next(), "b")
        self.asked().callback(True)
        self.failureResultOf(newcomer, Conflict)

    def test_elsewhere(self) -> None:
        """An answer at one address says nothing about another address."""
        self.registered(30001, folder_id="other", name="new", nonce="a")
        self.stale("b")
        newcomer = self.newcomer()
        self.assertEqual(self.is_asked_next(), "a")
        self.asked().callback(None)
        self.assertEqual(self.is_asked_next(), "b")
        self.asked().callback(None)
        self.successResultOf(newcomer)

    def test_too_many(self) -> None:
        """A limited number of registrations ask at a time; further ones have to try again."""
        for number in range(MAX_ASKING + 1):
            self.registered(30000 + number, folder_id=f"f{number}", name=f"n{number}")
        waiting = [
            self.registering(31000 + number, folder_id=f"f{number}", name=f"n{number}", nonce="second")
            for number in range(MAX_ASKING + 1)
        ]
        self.failureResultOf(waiting.pop(), Busy)
        self.registered(32000, folder_id="other", name="other")
        self.assertFalse(self.membership.idle)
        for registration in waiting:
            self.asked().callback(False)
            self.successResultOf(registration)
        last = self.registering(31000 + MAX_ASKING, folder_id=f"f{MAX_ASKING}", name=f"n{MAX_ASKING}", nonce="second")
        self.asked().callback(False)
        self.successResultOf(last)
        self.assertTrue(self.membership.idle)
