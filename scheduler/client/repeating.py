"""What may be sent again, decided in one place; for how long; and the error when it was not answered in the end.

A request that starts a job carries an ``Idempotency-Key``, so it may be repeated
whatever became of it. One that is not ``repeatable`` (a signal) is repeated only
where it certainly never arrived.

A scheduler that this client never reached is not waited for: an address that is
wrong is reported at once. Once it was reached, or a request to it may have
arrived, a refused connection means that it restarts, and is tried again.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from attrs import define, evolve

from scheduler.client.errors import ApiProblem, ClientError, ConnectionFailed, Started
from scheduler.client.exchange import Answer, Loss, NoAnswer, Pause, Request, Script, exchange

#: Seconds before the first repetition; doubled with each, up to the second.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0

#: Seconds for which a job may be unknown to a scheduler that knew it: workers come back to one that restarted sooner.
FORGOTTEN = 15.0

#: Seconds that a stream must last to count as one that works, though it tells nothing new.
LASTED = 5.0

#: Answers to a submission that decide about this job, given how long it may wait: the caller may ask again, not we.
DECISIONS = frozenset({"no-free-slot", "unavailable", "worker-unreachable"})


#: Statuses of a proxy that pass: it had no whole request in time, refused one too early, or too many.
PASSING = frozenset({408, 425, 429})

#: Statuses of a server that does not know the method or the version of HTTP, and so did nothing.
INCAPABLE = frozenset({501, 505})


def may_repeat(request: Request, outcome: Answer | NoAnswer, reached: bool) -> bool:
    """Whether the same request can be sent again, and may then do better.

    ``reached``: this client had an answer of the scheduler before, or a request may have arrived there.
    """
    if isinstance(outcome, NoAnswer):
        if outcome.loss is Loss.UNSENT:
            return reached
        if outcome.loss is Loss.GARBLED:
            return reached and request.repeatable
        return outcome.loss is Loss.LOST and request.repeatable
    if not request.repeatable:
        return False
    if not outcome.is_problem:  # a proxy's word
        return outcome.status in PASSING or (outcome.status >= 500 and outcome.status not in INCAPABLE)
    kind = ApiProblem(outcome.status, outcome.document).type
    match outcome.status:
        case 409:
            return outcome.retry_after is not None  # the first request with this key is under way
        case 429:
            return True
        case 503:
            return not (request.submits and kind in DECISIONS)
        case 504:
            return kind != "job-not-ended"
    return False


@define
class Attempts:
    """Those of one operation: how long it may go on, and what is known of the ones that failed."""

    clock: Callable[[], float]
    #: Seconds from the first failure on.
    patience: float
    #: 0 to 1, so that many clients do not come back at the same moment.
    jitter: Callable[[], float] = random.random
    #: A request was sent and not answered, or its answer left open whether it was carried out.
    lost: bool = False
    #: Named by an answer that was not the last.
    job_id: str | None = None
    _since: float | None = None
    _count: int = 0
    _began: float | None = None
    _forgotten: float | None = None

    def pause(self, outcome: Answer | NoAnswer) -> float | None:
        """Seconds until the next attempt; ``None``: the time is over."""
        now = self.clock()
        if self._since is None:
            self._since = now
        left = self._since + self.patience - now
        if left <= 0:
            return None
        seconds = min(FIRST_PAUSE * 2**self._count, LONGEST_PAUSE) * (0.5 + self.jitter() / 2)
        self._count += 1
        if isinstance(outcome, Answer):
            seconds = max(seconds, outcome.retry_after or 0.0)
        return float(min(seconds, left))

    def begun(self) -> None:
        """A stream of output has begun, so there is such a job."""
        self._began = self.clock()

    def alive(self) -> None:
        """Something came, if nothing new: if the stream has lasted, patience begins anew at the next failure.

        One that always breaks at once, and at the same place, must not be tried for ever.
        """
        if self._began is not None and self.clock() - self._began >= LASTED:
            self._since = None

    def may_return(self, outcome: Answer | NoAnswer) -> bool:
        """Whether this is a job that the scheduler knew, and may know again: it restarted without its memory.

        A worker that registers tells it of the jobs that it runs.
        """
        if not (self.lost or self._began is not None) or not isinstance(outcome, Answer):
            return False
        if not outcome.is_problem or ApiProblem(outcome.status, outcome.document).type != "job-unknown":
            self._forgotten = None
            return False
        now = self.clock()
        if self._forgotten is None:
            self._forgotten = now
        return now - self._forgotten < FORGOTTEN

    def progressed(self) -> None:
        """Something new came: the next pause is a short one again."""
        self._since = None
        self._count = 0

    def note(self, outcome: Answer | NoAnswer) -> None:
        """Remember what this failure leaves open."""
        if isinstance(outcome, NoAnswer):
            self.lost = self.lost or outcome.loss in (Loss.LOST, Loss.GARBLED)
        else:
            self.lost = self.lost or _leaves_open(outcome)
            named = outcome.document.get("job_id")
            if isinstance(named, str):
                self.job_id = named


def error_of(request: Request, outcome: Answer | NoAnswer, attempts: Attempts) -> ClientError:
    """The error for an outcome that is the last one; ``attempts`` has noted it."""
    if isinstance(outcome, NoAnswer):
        started: Started = None
        if request.submits:
            started = "unknown" if attempts.lost else False
        message = f"{request.method} {request.path}: {outcome.why}"
        return ConnectionFailed(message, started=started, job_id=attempts.job_id)
    document = outcome.document
    job_id = document.get("job_id")
    return ApiProblem(
        outcome.status,
        document,
        started=_started(outcome, attempts) if request.submits else None,
        job_id=job_id if isinstance(job_id, str) else attempts.job_id,
    )


def _detail(answer: Answer) -> str:
    return ApiProblem(answer.status, answer.document).detail


def _started(outcome: Answer, attempts: Attempts) -> Started:
    if outcome.is_problem and outcome.document.get("started") is True:
        return True
    # A refusal of the last attempt says nothing of an earlier one that was lost.
    return "unknown" if attempts.lost else False


def _leaves_open(outcome: Answer) -> bool:
    """Whether, for all that this refusal says, the request may have been carried out."""
    if outcome.is_problem:
        if outcome.status == 409 and outcome.retry_after is not None:
            return True  # another attempt with this key is under way
        if isinstance(started := outcome.document.get("started"), bool):
            return False
        return started == "unknown" or outcome.status in (500, 502, 504)
    # A proxy's word: below 500 it refused to pass the request on, unless that took too long.
    return outcome.status in (408, 499) or (outcome.status >= 500 and outcome.status not in INCAPABLE)


@define
class Repeater:
    """Sends requests until they are answered. One for a client: it knows whether the scheduler was ever reached."""

    clock: Callable[[], float]
    patience: float
    jitter: Callable[[], float] = random.random
    reached: bool = False

    def attempts(self) -> Attempts:
        """For a new operation."""
        return Attempts(self.clock, self.patience, self.jitter)

    def answer(self, request: Request) -> Script[Answer]:
        """The answer to a request, sent as often as needed; ``ClientError``."""
        attempts = self.attempts()
        while True:
            outcome = yield from exchange(request)
            if isinstance(outcome, Answer):
                self.reached = True
                if outcome.status < 300 and outcome.is_cut:
                    outcome = NoAnswer(Loss.LOST, "the answer is JSON, and not all of it came")
                elif outcome.status < 300 or outcome.status in request.expected:
                    return outcome
                elif outcome.status == 404 and outcome.is_problem and request.method == "DELETE" and attempts.lost:
                    return evolve(outcome, status=204)  # the attempt whose answer was lost removed it
            yield from self.again(request, outcome, attempts)

    def again(self, request: Request, outcome: Answer | NoAnswer, attempts: Attempts) -> Script[None]:
        """Wait for the time of the next attempt after one that failed; ``ClientError`` if there is none."""
        reached = self.reached or attempts.lost
        returns = request.repeatable and attempts.may_return(outcome)
        attempts.note(outcome)
        if returns or may_repeat(request, outcome, reached):
            seconds = attempts.pause(outcome)
            if seconds is not None:
                yield Pause(seconds, outcome.why if isinstance(outcome, NoAnswer) else _detail(outcome))
                return
        raise error_of(request, outcome, attempts)
