"""Decides which requests are repeated, and for how long, and makes the error when all attempts have failed.

A request that starts a job carries an ``Idempotency-Key``, so it may be repeated after any failure. A request that is
not ``repeatable`` (a signal) is repeated only if it certainly never arrived.

If this client never reached the scheduler, it reports the failure at once, because the address may be wrong. Once it
did, or once a request may have arrived, a refused connection means that the scheduler restarts. Then the request is
tried again.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from attrs import define, evolve

from scheduler.client.errors import ApiProblem, ClientError, ConnectionFailed, Started
from scheduler.client.exchange import Answer, Loss, NoAnswer, Pause, Request, Script, exchange

#: Seconds before the first repetition, doubled with each further one, and the longest such pause.
FIRST_PAUSE_SECONDS, PAUSE_MAX_SECONDS = 0.1, 5.0

#: Seconds for which a scheduler that restarted without its memory may not know a job; workers report back earlier.
FORGOTTEN_MAX_SECONDS = 15.0

#: Seconds after which a stream counts as working, even if it delivered nothing new.
LASTING_AFTER_SECONDS = 5.0

#: Types of problems for which the scheduler already waited as long as the job allows. The caller may ask again; this
#: module does not.
DECISIONS = frozenset({"no-free-slot", "unavailable", "worker-unreachable"})


#: Temporary statuses of a proxy: the request did not arrive in time, came too early, or was one too many.
TEMPORARY = frozenset({408, 425, 429})

#: Statuses of a server that does not know the method or version of HTTP, and so did nothing.
INCAPABLE = frozenset({501, 505})


def may_repeat(request: Request, outcome: Answer | NoAnswer, reached: bool) -> bool:
    """Whether the same request may be sent again, and may then succeed.

    ``reached``: this client had an answer from the scheduler before, or a request may have arrived.
    """
    if isinstance(outcome, NoAnswer):
        if outcome.loss is Loss.UNSENT:
            return reached
        if outcome.loss is Loss.GARBLED:
            return reached and request.repeatable
        return outcome.loss is Loss.LOST and request.repeatable
    if not request.repeatable:
        return False
    if not outcome.is_problem:  # written by a proxy
        return outcome.status in TEMPORARY or (outcome.status >= 500 and outcome.status not in INCAPABLE)
    kind = ApiProblem(outcome.status, outcome.document).type
    match outcome.status:
        case 409:
            return outcome.retry_after is not None  # the first request with this key is in progress
        case 429:
            return True
        case 503:
            return not (request.submits and kind in DECISIONS)
        case 504:
            return kind != "job-not-ended"
    return False


@define
class Attempts:
    """The attempts of one operation: the time that they may take, and whether one of them may have been carried out."""

    clock: Callable[[], float]
    #: Seconds from the first failure after which no attempt is made.
    patience: float
    #: Returns a number from 0 to 1, which spreads the repetitions of many clients.
    jitter: Callable[[], float] = random.random
    #: Whether an attempt may have been carried out: it had no answer, or an answer that does not tell.
    lost: bool = False
    #: The job that an earlier answer named.
    job_id: str | None = None
    _since: float | None = None
    _count: int = 0
    _began: float | None = None
    _forgotten: float | None = None

    def pause(self, outcome: Answer | NoAnswer) -> float | None:
        """Seconds until the next attempt; ``None`` if the time is over."""
        now = self.clock()
        if self._since is None:
            self._since = now
        left = self._since + self.patience - now
        if left <= 0:
            return None
        seconds = min(FIRST_PAUSE_SECONDS * 2**self._count, PAUSE_MAX_SECONDS) * (0.5 + self.jitter() / 2)
        self._count += 1
        if isinstance(outcome, Answer):
            seconds = max(seconds, outcome.retry_after or 0.0)
        return float(min(seconds, left))

    def begun(self) -> None:
        """Note that a stream of output has begun, so the job exists."""
        self._began = self.clock()

    def alive(self) -> None:
        """Note that data arrived, if nothing new. If the stream lasted, ``patience`` starts anew at the next failure.

        A stream that always breaks at once, at the same place, must not be retried for ever.
        """
        if self._began is not None and self.clock() - self._began >= LASTING_AFTER_SECONDS:
            self._since = None

    def may_return(self, outcome: Answer | NoAnswer) -> bool:
        """Whether the scheduler knew the job and may know it again, because it restarted without its memory.

        A worker that registers reports the jobs that it runs.
        """
        if not (self.lost or self._began is not None) or not isinstance(outcome, Answer):
            return False
        if not outcome.is_problem or ApiProblem(outcome.status, outcome.document).type != "job-unknown":
            self._forgotten = None
            return False
        now = self.clock()
        if self._forgotten is None:
            self._forgotten = now
        return now - self._forgotten < FORGOTTEN_MAX_SECONDS

    def progressed(self) -> None:
        """Note that something new arrived: ``patience`` and the pauses start anew."""
        self._since = None
        self._count = 0

    def note(self, outcome: Answer | NoAnswer) -> None:
        if isinstance(outcome, NoAnswer):
            self.lost = self.lost or outcome.loss in (Loss.LOST, Loss.GARBLED)
        else:
            self.lost = self.lost or _leaves_open(outcome)
            named = outcome.document.get("job_id")
            if isinstance(named, str):
                self.job_id = named


def error_of(request: Request, outcome: Answer | NoAnswer, attempts: Attempts) -> ClientError:
    """The error for the last outcome, after ``attempts.note`` has had it."""
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
    # The refusal of the last attempt proves nothing about an earlier one that was lost.
    return "unknown" if attempts.lost else False


def _leaves_open(outcome: Answer) -> bool:
    """Whether the request may have been carried out in spite of this refusal."""
    if outcome.is_problem:
        if outcome.status == 409 and outcome.retry_after is not None:
            return True  # another attempt with this key is in progress
        if isinstance(started := outcome.document.get("started"), bool):
            return False
        return started == "unknown" or outcome.status in (500, 502, 504)
    # A proxy wrote the answer: below 500 it did not pass the request on, unless that took too long.
    return outcome.status in (408, 499) or (outcome.status >= 500 and outcome.status not in INCAPABLE)


@define
class Repeater:
    """Sends requests until they are answered. It belongs to one client, and knows if the scheduler was ever reached."""

    clock: Callable[[], float]
    patience: float
    jitter: Callable[[], float] = random.random
    reached: bool = False

    def attempts(self) -> Attempts:
        return Attempts(self.clock, self.patience, self.jitter)

    def answer(self, request: Request) -> Script[Answer]:
        """Send a request, as often as needed, and return its answer. Raises ``ClientError`` if no attempt succeeds."""
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
                    return evolve(outcome, status=204)  # an attempt whose answer was lost removed it
            yield from self.again(request, outcome, attempts)

    def again(self, request: Request, outcome: Answer | NoAnswer, attempts: Attempts) -> Script[None]:
        """Wait until the next attempt. Raises ``ClientError`` if there is none."""
        reached = self.reached or attempts.lost
        returns = request.repeatable and attempts.may_return(outcome)
        attempts.note(outcome)
        if returns or may_repeat(request, outcome, reached):
            seconds = attempts.pause(outcome)
            if seconds is not None:
                yield Pause(seconds, outcome.why if isinstance(outcome, NoAnswer) else _detail(outcome))
                return
        raise error_of(request, outcome, attempts)
