"""From what went wrong to what the client is told: one table, and RFC 9457 problem documents.

Every error of this server is ``application/problem+json`` that also carries
``error``, its text. What is not in the table is a bug: the client gets an
incident id, the log gets the traceback under the same id.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from attrs import field, frozen
from twisted.logger import Logger
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from scheduler import wire
from scheduler.errors import (
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
    LeftRunning,
    NameTaken,
    NoFreeSlot,
    NoMatch,
    NotFound,
    OffsetBeyondEnd,
    OutputCut,
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

#: Every exception of the domain: the status, and the name of the problem's type.
PROBLEMS: Mapping[type[SchedulerError], tuple[int, str]] = {
    Invalid: (400, "invalid-request"),
    Refused: (403, "refused"),
    NotFound: (404, "not-found"),
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
    OffsetBeyondEnd: (416, "offset-beyond-end"),
    KeyReused: (422, "key-reused"),
    QueueFull: (429, "queue-full"),
    Unsupported: (501, "unsupported"),
    WorkerFault: (502, "worker-fault"),
    Unavailable: (503, "unavailable"),
    Unreachable: (503, "worker-unreachable"),
    NoFreeSlot: (503, "no-free-slot"),
    Busy: (503, "busy"),
    StoreFailed: (503, "store-failing"),
    ShuttingDown: (503, "shutting-down"),
    DeadlineExceeded: (504, "timeout"),
    StartUnanswered: (504, "start-unanswered"),
}


@frozen
class Problem:
    """What a client is told of an error: ``members`` are further members of the document.

    ``type`` is the name of the type, as docs/api.md lists them; ``""`` is the status alone.
    """

    status: int
    detail: str
    headers: Mapping[str, str] = field(factory=dict)
    members: Mapping[str, Any] = field(factory=dict)
    type: str = ""

    def document(self) -> bytes:
        """The body."""
        return wire.dump(
            {
                "type": f"/problems/{self.type}" if self.type else "about:blank",
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "detail": self.detail,
                "error": self.detail,
                **self.members,
            }
        )


class ProblemError(Exception):
    """A refusal that only HTTP knows, such as an unwelcome content type."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.problem = Problem(status, detail, headers or {})


def problem_of(failure: Failure) -> Problem:
    """What to tell of a failure; logs it if it is a bug."""
    error = failure.value
    if isinstance(error, ProblemError):
        return error.problem
    if isinstance(error, SchedulerError) and type(error) in PROBLEMS:
        status, name = PROBLEMS[type(error)]
        if isinstance(error, NotFound):
            name = f"{error.kind}-unknown"
        return Problem(status, _detail(error), _headers(error), _members(error), name)
    if isinstance(error, HTTPException) and error.code is not None and error.code < 500:
        return _routing(error)
    incident = uuid.uuid4().hex
    _log.failure("incident {incident}", failure=failure, incident=incident)
    return Problem(500, f"internal error; the log has more under {incident}", members={"incident": incident})


def _detail(error: SchedulerError) -> str:
    return StoreFailed.told(str(error)) if isinstance(error, StoreFailed) else str(error)


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
    if isinstance(error, LeftRunning):
        return {"success": False, "job_id": error.job_id, "leftover": list(error.leftover)}
    return {}


def _routing(error: HTTPException) -> Problem:
    status = error.code or 400
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        return Problem(status, f"this route is for {allowed}", {"Allow": allowed})
    return Problem(status, "there is no such route" if status == 404 else str(error.description))
