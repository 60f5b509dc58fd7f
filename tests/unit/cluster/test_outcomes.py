from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.jobs.outcomes import Fate, Outcome, outcome_of
from scheduler.errors import (
    AnswerUnreadable,
    Busy,
    Conflict,
    DeadlineExceeded,
    Invalid,
    Misdirected,
    NotAWorker,
    ShuttingDown,
    StoreFailed,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
)

NOT_SENT = Outcome(Fate.NOT_SENT)
HELD_OFF = Outcome(Fate.NOT_SENT, backoff=True)
PASSED_ON = Outcome(Fate.NOT_SENT, backoff=True, elsewhere=True)
UNKNOWN, FAILED = Outcome(Fate.UNKNOWN), Outcome(Fate.FAILED)
UNANSWERED = Outcome(Fate.UNKNOWN, awaited=True)

#: The error, and what follows from it, of one of our workers and of a core worker.
TABLE = (
    (Unavailable("no more processes"), PASSED_ON, PASSED_ON),
    (Misdirected("w-1"), PASSED_ON, PASSED_ON),
    (NotAWorker("w-1", "StartJob"), PASSED_ON, PASSED_ON),
    (Unreachable("w-1"), HELD_OFF, HELD_OFF),
    (Busy("calls", 4), HELD_OFF, HELD_OFF),
    (ShuttingDown(), HELD_OFF, HELD_OFF),
    (StoreFailed("disk full"), NOT_SENT, NOT_SENT),
    (Unsupported("w-1", "umask"), NOT_SENT, NOT_SENT),
    (Unreachable("w-1", sent=True), UNANSWERED, UNANSWERED),
    (DeadlineExceeded("start", 10.0), UNANSWERED, UNANSWERED),
    (Conflict("the id was used up"), FAILED, FAILED),
    (WorkerFault("w-1", "boom"), UNKNOWN, FAILED),
    (AnswerUnreadable("w-1", "garbled"), UNKNOWN, UNKNOWN),
    (Invalid("command", "is empty"), UNKNOWN, UNKNOWN),
)


class OutcomeTests(SynchronousTestCase):
    def test_table(self) -> None:
        """The consequences of each error are those in the table."""
        for error, ours, core in TABLE:
            for is_core, expected in ((False, ours), (True, core)):
                self.assertEqual(outcome_of(error, is_core), expected, (error, is_core))
