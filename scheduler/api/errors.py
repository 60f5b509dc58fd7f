"""The table from exceptions to HTTP statuses and types of problems, and RFC 9457 problem documents.

Every error of this server is ``application/problem+json``. On the core routes the document also has the text as
``error``. An exception that is not in the table is a bug: the client gets an incident id, and the log has the traceback
under the same id. ``scheduler.api.problems`` describes the types.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from attrs import evolve, field, frozen
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler import wire
from scheduler.errors import (
    AnswerUnreadable,
    Busy,
    Conflict,
    DeadlineExceeded,
    Draining,
    Invalid,
    JobNotEnded,
    JobNotRunning,
    JobRemoved,
    KeyInUse,
    KeyReused,
    KeyUnsettled,
    LeftRunning,
    Misdirected,
    NameTaken,
    NoFreeSlot,
    NoMatch,
    NotAWorker,
    NotFound,
    OffsetBeyondEnd,
    OutputCut,
    OutputGone,
    OutputPruned,
    QueueFull,
    Refused,
    SchedulerError,
    ShuttingDown,
    StartUnanswered,
    StoreFailed,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
    WorkerOnline,
)

_log = Logger()

#: The status and the type of problem of every exception of the domain.
PROBLEMS: Mapping[type[SchedulerError], tuple[int, str]] = {
    Invalid: (400, "invalid-request"),
    Refused: (403, "refused"),
    NotFound: (404, "job-unknown"),  # the type depends on the kind: see NOT_FOUND
    Conflict: (409, "conflict"),
    Draining: (409, "worker-draining"),
    NoMatch: (409, "no-match"),
    NameTaken: (409, "name-taken"),
    WorkerOnline: (409, "worker-online"),
    JobNotRunning: (409, "job-not-running"),
    JobNotEnded: (409, "job-not-ended"),
    KeyInUse: (409, "key-in-use"),
    LeftRunning: (409, "left-running"),
    JobRemoved: (410, "job-removed"),
    OutputPruned: (410, "output-pruned"),
    OutputCut: (410, "output-cut"),
    OutputGone: (410, "output-gone"),
    OffsetBeyondEnd: (416, "offset-beyond-end"),
    KeyReused: (422, "key-reused"),
    QueueFull: (429, "queue-full"),
    Unsupported: (501, "unsupported"),
    WorkerFault: (502, "worker-fault"),
    AnswerUnreadable: (502, "worker-fault"),
    Unavailable: (503, "unavailable"),
    Unreachable: (503, "worker-unreachable"),
    Misdirected: (503, "worker-unreachable"),
    NotAWorker: (503, "worker-unreachable"),
    NoFreeSlot: (503, "no-free-slot"),
    KeyUnsettled: (503, "key-unsettled"),
    Busy: (503, "busy"),
    StoreFailed: (503, "store-failing"),
    ShuttingDown: (503, "shutting-down"),
    DeadlineExceeded: (504, "timeout"),
    StartUnanswered: (504, "start-unanswered"),
}


#: The type of problem for each kind of ``NotFound``.
NOT_FOUND: Mapping[str, str] = {
    "worker": "worker-unknown",
    "job": "job-unknown",
    "output of job": "output-unknown",
}

#: The core routes, whose problem documents also have the text as ``error``.
CORE_PATHS = frozenset({b"/start", b"/stop", b"/query"})

#: Errors after which it is not known whether a job was started. After any other error of the domain no job was started.
#: With ``KeyInUse`` and ``KeyUnsettled`` it may have been started by another request with that key.
_MAY_HAVE_STARTED = (DeadlineExceeded, StartUnanswered, WorkerFault, KeyInUse, KeyUnsettled)


@frozen
class Problem:
    """An error as the client sees it; ``members`` are further members of the document.

    ``type`` is the name of one of ``scheduler.api.problems.TYPES``.
    """

    status: int
    detail: str
    headers: Mapping[str, str] = field(factory=dict)
    members: Mapping[str, Any] = field(factory=dict)
    type: str = field(kw_only=True)

    def document(self, path: bytes) -> bytes:
        """The body of the answer to a request for ``path``."""
        return wire.dump(
            {
                "type": f"/problems/{self.type}",
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "detail": self.detail,
                **({"error": self.detail} if path in CORE_PATHS else {}),
                **self.members,
            }
        )

    def of_submission(self, started: bool | str) -> Problem:
        """The problem of a submission; ``started``: whether its job was started, or ``"unknown"``."""
        return evolve(self, members={**self.members, "started": started})


class ProblemError(Exception):
    """A refusal by the rules of HTTP, such as a wrong content type."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, *, type: str) -> None:  # noqa: A002
        super().__init__(detail)
        self.problem = Problem(status, detail, headers or {}, type=type)


def problem_of(failure: Failure) -> Problem:
    """The problem of a failure. A failure that is a bug is logged."""
    error = failure.value
    if isinstance(error, ProblemError):
        return error.problem
    if isinstance(error, SchedulerError) and type(error) in PROBLEMS:
        status, name = PROBLEMS[type(error)]
        if isinstance(error, NotFound):
            name = NOT_FOUND[error.kind]
        return Problem(status, _detail(error), _headers(error), _members(error), type=name)
    incident = uuid.uuid4().hex
    _log.failure("incident {incident}", failure=failure, incident=incident)
    detail = f"internal error; the log has more under {incident}"
    return Problem(500, detail, members={"incident": incident}, type="internal")


def submission_problem(failure: Failure) -> Problem:
    """The problem of a submission that failed, with whether its job was started."""
    error, problem = failure.value, problem_of(failure)
    started: bool | str = False
    sent = isinstance(error, Unreachable) and error.sent
    if isinstance(error, JobRemoved):
        started = True
    elif sent or isinstance(error, _MAY_HAVE_STARTED) or problem.type == "internal":
        started = "unknown"
    return problem.of_submission(started)


def _detail(error: SchedulerError) -> str:
    return StoreFailed.sentence(str(error)) if isinstance(error, StoreFailed) else str(error)


def _headers(error: SchedulerError) -> dict[str, str]:
    if isinstance(error, Unavailable):
        return {"Retry-After": str(max(1, round(error.retry_after)))}
    if isinstance(error, OffsetBeyondEnd):
        return {"Content-Range": f"bytes */{error.size}"}
    return {}


def _members(error: SchedulerError) -> dict[str, Any]:
    if isinstance(error, Invalid):
        return {"field": error.field}
    if isinstance(error, (DeadlineExceeded, StartUnanswered)) and error.job_id:
        return {"job_id": error.job_id}
    if isinstance(error, (JobRemoved, OutputPruned, OutputCut, OutputGone, JobNotRunning, JobNotEnded)):
        return {"job_id": error.job_id}
    if isinstance(error, LeftRunning):
        return {"success": False, "job_id": error.job_id, "leftover": list(error.leftover)}
    return {}


def no_such_route() -> Problem:
    """The problem of a path that no route has."""
    return Problem(404, "there is no such route", type="route-unknown")
