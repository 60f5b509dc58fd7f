from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from scheduler.daemon.logs import REQUEST_ID
from scheduler.errors import Busy, ShuttingDown
from scheduler.rpc.batches import HOLD_UP_MAX_SECONDS, Batches

LARGEST, LIMIT = 3, 8


class BatchesTests(SynchronousTestCase):
    """Questions are strings, and the test answers the calls."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[tuple[list[str], Deferred[list[str | Failure]]]] = []
        self.made_for: list[str] = []
        self.batches: Batches[str, str] = Batches(self.clock, "questions", self.call, LARGEST, LIMIT)

    def call(self, questions: list[str]) -> Deferred[list[str | Failure]]:
        self.made_for.append(REQUEST_ID.get())
        self.calls.append((questions, Deferred()))
        return self.calls[-1][1]

    def ask(self, questions: str, key: str = "w") -> list[Deferred[str]]:
        return [self.batches.ask(key, question) for question in questions]

    def asked(self) -> list[str]:
        return ["".join(questions) for questions, _ in self.calls]

    def answer(self, number: int) -> None:
        """Answer a call with its questions in capitals."""
        questions, answer = self.calls[number]
        answer.callback([question.upper() for question in questions])

    def assert_idle(self) -> None:
        """Nothing remains of finished calls."""
        self.assertTrue(self.batches.idle)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_once(self) -> None:
        """A question that finds no call in flight is sent alone, at once."""
        for number, question in enumerate("ab"):
            (answer,) = self.ask(question)
            self.assertEqual(self.asked()[number:], [question])
            self.answer(number)
            self.assertEqual(self.successResultOf(answer), question.upper())
        self.assert_idle()

    def test_together(self) -> None:
        """Questions that arrive during a call go in the next, up to a limit, and each gets its own answer."""
        answers = self.ask("abcdef")
        for number, batch in enumerate(["a", "bcd", "ef"]):
            self.assertEqual(self.asked()[number:], [batch])
            self.answer(number)
        self.assertEqual("".join(map(self.successResultOf, answers)), "ABCDEF")
        self.assert_idle()

    def test_keys(self) -> None:
        """The questions of one key do not wait for those of another."""
        self.ask("ab", "v")
        self.ask("cd", "w")
        self.assertEqual(self.asked(), ["a", "c"])
        self.answer(1)
        self.assertEqual(self.asked(), ["a", "c", "d"])

    def test_one_fails(self) -> None:
        """A failure in place of one answer fails only its question."""
        answers = self.ask("abc")
        self.answer(0)
        self.calls[1][1].callback([Failure(ValueError()), "C"])
        self.failureResultOf(answers[1], ValueError)
        self.assertEqual(self.successResultOf(answers[2]), "C")

    def test_call_fails(self) -> None:
        """A call that fails fails all its questions, and the next call is made."""
        answers = self.ask("abcde")
        self.calls[0][1].errback(ValueError())
        self.failureResultOf(answers[0], ValueError)
        self.calls[1][1].errback(KeyError())
        for answer in answers[1:4]:
            self.failureResultOf(answer, KeyError)
        self.answer(2)
        self.assertEqual(self.successResultOf(answers[4]), "E")
        self.assert_idle()

    def test_calls_fail_at_once(self) -> None:
        """Calls that fail before they are made leave nothing behind."""
        self.ask("ab")
        batches: Batches[str, str] = Batches(self.clock, "questions", lambda _: fail(ShuttingDown()), LARGEST, LIMIT)
        self.failureResultOf(batches.ask("w", "x"), ShuttingDown)
        self.assertTrue(batches.idle)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_leaves_while_it_waits(self) -> None:
        """A question that is cancelled while it waits is not sent."""
        answers = self.ask("abc")
        answers[1].cancel()
        self.failureResultOf(answers[1], CancelledError)
        self.answer(0)
        self.assertEqual(self.asked(), ["a", "c"])
        self.answer(1)
        self.assert_idle()

    def test_leaves_while_it_is_asked(self) -> None:
        """Cancelling a sent question affects neither the call nor the others in it."""
        answers = self.ask("abc")
        self.answer(0)
        answers[1].cancel()
        self.failureResultOf(answers[1], CancelledError)
        self.answer(1)
        self.assertEqual(self.successResultOf(answers[2]), "C")
        self.assert_idle()

    def test_hung_call(self) -> None:
        """A call that hangs delays the others only for a moment; then the next call is made beside it."""
        answers = self.ask("abcde")
        self.clock.advance(HOLD_UP_MAX_SECONDS * 0.9)
        self.assertEqual(self.asked(), ["a"])
        self.clock.advance(HOLD_UP_MAX_SECONDS * 0.2)
        self.assertEqual(self.asked(), ["a", "bcd"])
        self.answer(1)
        self.assertEqual(self.asked(), ["a", "bcd", "e"])
        self.answer(2)
        answers += self.ask("f")  # no call delays this one now
        self.assertEqual(self.asked()[3:], ["f"])
        answers += self.ask("g")
        self.answer(0)  # long after, when another call delays the questions
        self.assertEqual(self.asked()[4:], [])
        self.answer(3)
        self.answer(4)
        self.assertEqual("".join(map(self.successResultOf, answers)), "ABCDEFG")
        self.assert_idle()

    def test_limit(self) -> None:
        """A key may have so many questions without an answer, sent or waiting. Further ones fail with Busy."""
        answers = self.ask("abcdefgh")
        for _ in range(5):
            self.clock.advance(HOLD_UP_MAX_SECONDS)
        self.assertEqual(self.asked(), ["a", "bcd", "efg", "h"])
        error = self.failureResultOf(self.ask("i")[0], Busy).value
        self.assertEqual(error.limit, LIMIT)
        self.assertIn("questions of w", str(error))
        self.ask("x", "v")
        self.assertEqual(self.asked()[4:], ["x"])
        self.answer(0)
        self.ask("i")
        self.assertEqual(self.asked()[5:], ["i"])
        answers[1].cancel()
        self.failureResultOf(answers[1], CancelledError)
        self.failureResultOf(self.ask("j")[0], Busy)  # the sent questions are still in flight

    def test_drop(self) -> None:
        """Waiting questions can be failed, each with its own error. Sent ones are not."""
        answers = self.ask("abc")
        self.batches.drop("w", ValueError)
        for question, answer in zip("bc", answers[1:], strict=True):
            self.assertEqual(self.failureResultOf(answer, ValueError).value.args, (question,))
        self.answer(0)
        self.assertEqual(self.successResultOf(answers[0]), "A")
        self.assertEqual(self.asked(), ["a"])
        self.batches.drop("w", ValueError)
        self.assert_idle()

    def test_request(self) -> None:
        """A call with one question runs for its request, one with several for none; callbacks run for their own
        request.
        """
        seen: list[tuple[str, str]] = []
        for question in "abcd":
            token = REQUEST_ID.set(f"r-{question}")
            self.ask(question)[0].addCallback(lambda answer: seen.append((answer, REQUEST_ID.get())))
            if question == "c":
                self.answer(0)
            REQUEST_ID.reset(token)
        self.answer(1)
        self.answer(2)
        self.assertEqual(self.made_for, ["r-a", "", "r-d"])
        self.assertEqual(seen, [("A", "r-a"), ("B", "r-b"), ("C", "r-c"), ("D", "r-d")])
