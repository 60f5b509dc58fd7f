"""The consequences of an error in answer to a start, as a table. ``outcome_of`` is this table as a pure function.

| the error | fate | backoff | another worker at once |
| --- | --- | --- | --- |
| the worker lacks what it takes now | not sent | yes | yes |
| another process, or a program that is no worker, answered | not sent | yes | yes |
| the worker could not be called | not sent | yes | no |
| the store failed before the call | not sent | no | no |
| the worker can't do what the job asks for | not sent | no | no |
| the call was sent and not answered | unknown, and the answer may come yet | - | - |
| the id was used up before | failed | - | - |
| a fault of a core worker | failed | - | - |
| any other fault, an answer that can't be read | unknown | - | - |

*Not sent* means that nothing runs: the worker has not heard of the job, or could not take it. The caller decides what
becomes of the job. Another worker is tried at once only if an answer makes certain that nothing runs.
"""

from __future__ import annotations

import enum

from attrs import frozen

from scheduler.cluster.jobs.backoff import is_shortage
from scheduler.errors import (
    AnswerUnreadable,
    Conflict,
    DeadlineExceeded,
    Misdirected,
    NotAWorker,
    SchedulerError,
    StoreFailed,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
)


class Fate(enum.Enum):
    """The fate of a job that was to be started."""

    NOT_SENT = "not sent"
    UNKNOWN = "unknown"
    FAILED = "failed"


@frozen
class Outcome:
    """The consequences of one error."""

    fate: Fate
    #: No job is offered to the worker for a while.
    backoff: bool = False
    #: The job may be sent to another worker at once.
    elsewhere: bool = False
    #: The answer may come yet.
    awaited: bool = False


def outcome_of(error: SchedulerError, is_core: bool) -> Outcome:
    """The consequences of the error in which a start ended; ``is_core``: the worker is a core worker."""
    match error:
        case DeadlineExceeded() | Unreachable(sent=True):
            return Outcome(Fate.UNKNOWN, awaited=True)
        case StoreFailed() | Unsupported():
            return Outcome(Fate.NOT_SENT)
        case Unavailable():
            is_answer = is_shortage(error) or isinstance(error, Misdirected | NotAWorker)
            return Outcome(Fate.NOT_SENT, backoff=True, elsewhere=is_answer)
        case Conflict():
            return Outcome(Fate.FAILED)
        case WorkerFault() if is_core and not isinstance(error, AnswerUnreadable):
            return Outcome(Fate.FAILED)
    return Outcome(Fate.UNKNOWN)
