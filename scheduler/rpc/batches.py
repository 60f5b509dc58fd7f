"""Groups questions into batches: questions that arrive while a call is in flight go together in the next call.

Theory of operation. This works like a group commit. A question that finds no call in flight is sent at once, alone.
Questions that arrive meanwhile are sent in one call as soon as the first has ended. So the more questions there are,
the fewer calls each costs, and a single question never waits.

A slow call does not block later questions for long: after ``HOLD_UP_MAX_SECONDS`` the next call is made beside it, even
if the deadline of the slow call is far away. If a server answers nothing, its questions wait, up to a limit; further
ones fail with ``Busy``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Generic, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from scheduler.errors import Busy

Question = TypeVar("Question")
Answer = TypeVar("Answer")

#: Seconds for which one call delays the questions that arrive after it.
HOLD_UP_MAX_SECONDS = 0.1


@frozen(eq=False)
class _Asked(Generic[Question, Answer]):
    question: Question
    answer: Deferred[Answer]
    #: The context of the caller, in which its callbacks run.
    context: Context

    def tell(self, result: Answer | Failure) -> None:
        """Fire the Deferred, unless it was cancelled."""
        if not self.answer.called:
            self.context.run(self.answer.callback, result)  # a Failure starts the errbacks


@define
class _Lane(Generic[Question, Answer]):
    """The questions for one key: those that wait, whether a call delays them, and the number of all unanswered."""

    waiting: deque[_Asked[Question, Answer]] = field(factory=deque)
    held_up: bool = False
    unanswered: int = 0


@define(eq=False)
class Batches(Generic[Question, Answer]):
    """Batches of questions. For each key, a batch is sent when the call before it has ended."""

    _clock: IReactorTime
    #: The name of the questions in ``Busy``.
    _what: str
    #: Answers each of its questions, in order.
    _call: Callable[[list[Question]], Deferred[list[Answer | Failure]]]
    #: Questions that a call can carry, and questions of one key that may be without an answer.
    _largest: int
    _limit: int
    _lanes: dict[str, _Lane[Question, Answer]] = field(factory=dict)

    @property
    def idle(self) -> bool:
        return not self._lanes

    def ask(self, key: str, question: Question) -> Deferred[Answer]:
        """Ask a question. Cancelling withdraws it while it waits. If a call fails, all its questions fail."""
        lane = self._lanes.setdefault(key, _Lane())
        if lane.unanswered >= self._limit:
            return fail(Busy(f"{self._what} of {key}", self._limit))
        answer: Deferred[Answer] = Deferred(lambda _: self._withdraw(key, lane, asked))
        asked = _Asked(question, answer, copy_context())
        lane.unanswered += 1
        lane.waiting.append(asked)
        if not lane.held_up:
            self._advance(key, lane)
        return answer

    def drop(self, key: str, error: Callable[[Question], Exception]) -> None:
        """Fail all waiting questions of this key; ``error`` makes the exception for each."""
        lane = self._lanes.get(key)
        if lane is None:
            return
        dropped, lane.waiting = lane.waiting, deque()
        self._over(key, lane, len(dropped))
        for asked in dropped:
            asked.tell(Failure(error(asked.question)))

    def _advance(self, key: str, lane: _Lane[Question, Answer]) -> None:
        lane.held_up = bool(lane.waiting)
        if lane.waiting:
            self._begin(key, lane, [lane.waiting.popleft() for _ in range(min(len(lane.waiting), self._largest))])

    def _begin(self, key: str, lane: _Lane[Question, Answer], batch: list[_Asked[Question, Answer]]) -> None:
        patience = self._clock.callLater(HOLD_UP_MAX_SECONDS, self._advance, key, lane)

        def ended(result: list[Answer | Failure] | Failure) -> None:
            self._over(key, lane, len(batch))
            if patience.active():
                patience.cancel()
                self._advance(key, lane)
            results = [result] * len(batch) if isinstance(result, Failure) else result
            for asked, its in zip(batch, results, strict=True):
                asked.tell(its)

        # A call that carries several questions belongs to no single request, so it runs without a request id.
        context = batch[0].context if len(batch) == 1 else Context()
        context.run(maybeDeferred, self._call, [asked.question for asked in batch]).addBoth(ended)

    def _withdraw(self, key: str, lane: _Lane[Question, Answer], asked: _Asked[Question, Answer]) -> None:
        if asked in lane.waiting:
            lane.waiting.remove(asked)
            self._over(key, lane, 1)

    def _over(self, key: str, lane: _Lane[Question, Answer], count: int) -> None:
        lane.unanswered -= count
        if not lane.unanswered:
            self._lanes.pop(key, None)
