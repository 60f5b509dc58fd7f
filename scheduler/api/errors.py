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

from scheduler import errors as domain
from scheduler import wire

_log = Logger()

#: The status and the type of problem of every exception of the domain.
PROBLEMS: Mapping[type[domain.SchedulerError], tuple[int, str]] = {
    domain.Invalid: (400, "invalid-request"),
    domain.Unauthenticated: (401, "unauthenticated"),
    domain.Refused: (403, "refused"),
    domain.ScopeNeeded: (403, "scope-needed"),
    domain.NotFound: (404, "job-unknown"),  # the type depends on the kind: see NOT_FOUND
    domain.BeyondReach: (404, "job-unknown"),
    domain.Conflict: (409, "conflict"),
    domain.Draining: (409, "worker-draining"),
    domain.NoMatch: (409, "no-match"),
    domain.NameTaken: (409, "name-taken"),
    domain.WorkerOnline: (409, "worker-online"),
    domain.JobNotRunning: (409, "job-not-running"),
    domain.JobNotEnded: (409, "job-not-ended"),
    domain.KeyInUse: (409, "key-in-use"),
    domain.LeftRunning: (409, "left-running"),
    domain.JobRemoved: (410, "job-removed"),
    domain.OutputPruned: (410, "output-pruned"),
    domain.OutputCut: (410, "output-cut"),
    domain.OutputGone: (410, "output-gone"),
    domain.OffsetBeyondEnd: (416, "offset-beyond-end"),
    domain.KeyReused: (422, "key-reused"),
    domain.QueueFull: (429, "queue-full"),
    domain.TooManyRequests: (429, "too-many-requests"),
    domain.Unsupported: (501, "unsupported"),
    domain.WorkerFault: (502, "worker-fault"),
    domain.AnswerUnreadable: (502, "worker-fault"),
    domain.Unavailable: (503, "unavailable"),
    domain.Unreachable: (503, "worker-unreachable"),
    domain.Misdirected: (503, "worker-unreachable"),
    domain.NotAWorker: (503, "worker-unreachable"),
    domain.NoFreeSlot: (503, "no-free-slot"),
    domain.KeyUnsettled: (503, "key-unsettled"),
    domain.Busy: (503, "busy"),
    domain.StoreFailed: (503, "store-failing"),
    domain.ShuttingDown: (503, "shutting-down"),
    domain.DeadlineExceeded: (504, "timeout"),
    domain.StartUnanswered: (504, "start-unanswered"),
}


#: The type of the problem for each kind of ``NotFound``.
NOT_FOUND: Mapping[str, str] = {
    "worker": "worker-unknown",
    "job": "job-unknown",
    "output of job": "output-unknown",
    "token": "token-unknown",
}

#: The core routes, whose problem documents also have the text as ``error``.
CORE_PATHS = frozenset({b"/start", b"/stop", b"/query"})

#: Errors after which it is not known whether a job was started. After any other error of the domain no job was started.
#: With ``KeyInUse`` and ``KeyUnsettled`` the job may have been started by another request with the same key.
_MAY_HAVE_STARTED = (
    domain.DeadlineExceeded,
    domain.StartUnanswered,
    domain.WorkerFault,
    domain.KeyInUse,
    domain.KeyUnsettled,
)


@frozen
class Problem:
    """An error as the client sees it; ``members`` are added to the usual members of the document.

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
        """The problem as the answer to a submission; ``started``: whether its job was started, or ``"unknown"``."""
        return evolve(self, members={**self.members, "started": started})


class ProblemError(Exception):
    """A refusal by the rules of HTTP, such as a wrong content type."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, *, type: str) -> None:  # noqa: A002
        super().__init__(detail)
        self.problem = Problem(status, detail, headers or {}, type=type)


def problem_of(failure: Failure) -> Problem:
    """The problem for a failure. An exception that is not in ``PROBLEMS`` is a bug, and is logged."""
    error = failure.value
    if isinstance(error, ProblemError):
        return error.problem
    if isinstance(error, domain.SchedulerError) and type(error) in PROBLEMS:
        status, name = PROBLEMS[type(error)]
        if isinstance(error, domain.NotFound):
            name = NOT_FOUND[error.kind]
        detail = domain.StoreFailed.sentence(str(error)) if isinstance(error, domain.StoreFailed) else str(error)
        return Problem(status, detail, _headers(error), _members(error), type=name)
    incident = uuid.uuid4().hex
    _log.failure("incident {incident}", failure=failure, incident=incident)
    detail = f"internal error; the log has more under {incident}"
    return Problem(500, detail, members={"incident": incident}, type="internal")


def submission_problem(failure: Failure) -> Problem:
    """The problem for a submission that failed. It says whether the job was started."""
    error, problem = failure.value, problem_of(failure)
    started: bool | str = False
    sent = isinstance(error, domain.Unreachable) and error.sent
    if isinstance(error, domain.NotFound) and error.kind == "job":  # the job of its key is beyond the client's reach
        started, problem = True, evolve(problem, members={"job_id": error.name})
    elif isinstance(error, domain.JobRemoved):
        started = True
    elif sent or isinstance(error, _MAY_HAVE_STARTED) or problem.type == "internal":
        started = "unknown"
    return problem.of_submission(started)


def _headers(error: domain.SchedulerError) -> dict[str, str]:
    if isinstance(error, domain.Unavailable):
        return {"Retry-After": str(max(1, round(error.retry_after)))}
    if isinstance(error, domain.Unauthenticated):
        return {"WWW-Authenticate": 'Bearer realm="scheduler"'}
    if isinstance(error, domain.OffsetBeyondEnd):
        return {"Content-Range": f"bytes */{error.size}"}
    return {}


def _members(error: domain.SchedulerError) -> dict[str, Any]:
    if isinstance(error, domain.Invalid):
        return {"field": error.field}
    if isinstance(error, domain.ScopeNeeded):
        return {"needed_scope": error.needed}
    if isinstance(error, domain.LeftRunning):
        return {"success": False, "job_id": error.job_id, "leftover": list(error.leftover)}
    job_id = getattr(error, "job_id", "")
    return {"job_id": job_id} if job_id else {}


def no_such_route() -> Problem:
    """The problem for a path that no route has."""
    return Problem(404, "there is no such route", type="route-unknown")
